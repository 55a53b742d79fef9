//! `standin announce`: looks after the announcement of one edge, as a process of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::json;
use standin_core::BoxFuture;
use standin_edge::admin::Readiness;
use standin_edge::problem::Problem;
use standin_edge::server::{self, Handler, Request, ServerLimits};
use standin_topology::announce::{Parts, Probe, Rules, Word};
use standin_topology::announcer::{Announcer, InForce, Switch};
use standin_topology::bird::{Bird, Control, ProtocolName};
use standin_topology::derived::BIRD_PROTOCOL;
use standin_topology::region::{Edge, Region, Topology};
use standin_topology::watch::{self, Ended, Other, Report, Setup, Timing};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::client::{Call, CallError, Pool, Reply, Target, TlsArgs};
use crate::out::say;
use crate::topology::usable;

/// What is in force is not known.
const EXIT_UNKNOWN: u8 = 1;
/// It stays announced: too few others are.
const EXIT_LEFT: u8 = 3;
/// For one order to BIRD.
const BIRD_WITHIN: Duration = Duration::from_millis(500);
/// Connections to the announcer itself.
const CONNECTIONS: usize = 256;
/// A reply to another announcer is short.
const PATIENCE: Duration = Duration::from_secs(5);

/// Announces an edge while it can do its work, and withdraws it when it cannot.
///
/// It asks the edge's /readyz (decide, write ahead, fresh trips) and the other announcers. Two misses
/// in a row withdraw the prefix, if another edge is announced and better; an edge that has been well for
/// --rise-s is announced again, so many times an hour. The last one is never withdrawn. An edge whose
/// Postgres is away is well: it stands in. An edge that is stopping is withdrawn a second after it says
/// so, while it still answers and asks its clients to leave.
///
/// It is a process of its own: inside the edge it would hang with it. When it dies, what is announced
/// stays; started again, it goes on from there. On SIGTERM or SIGINT it withdraws, waits for routers to
/// hear of it, and ends.
///
/// --bird switches the protocols of the BIRD on this machine that `standin topology bird` makes.
/// --switch is for Kubernetes: this process' /readyz is 200 while the edge is to be announced, for
/// the pod's readiness probe. Everybody else may ask /announcez how it is.
///
/// Exit code: 0 withdrawn, 3 left announced (too few others are), 1 what is announced is not known, or
/// it could not start.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin announce east-1 --dir regions --bird /run/bird/bird.ctl \\
      --ca certs/operators-ca.pem --certificate certs/operator-announcer.pem --key certs/operator-announcer.key
  standin announce east-1 --dir regions --switch
  curl http://10.1.0.11:8495/announcez          how it is, and why")]
pub struct Args {
    /// The edge's name in the topology.
    edge: String,
    /// Where the regions' files are.
    #[arg(long, value_name = "DIR", default_value = "regions")]
    dir: PathBuf,
    /// BIRD's control socket.
    #[arg(
        long,
        value_name = "SOCKET",
        required_unless_present = "switch",
        conflicts_with = "switch"
    )]
    bird: Option<PathBuf>,
    /// The protocol that holds the prefixes; with IPv6 too, that one's name with _6.
    #[arg(long, value_name = "NAME", default_value = BIRD_PROTOCOL)]
    protocol: String,
    /// Be a readiness switch.
    #[arg(long)]
    switch: bool,
    /// The edge's admin listener, if it is not where the topology says.
    #[arg(long, value_name = "URL")]
    admin: Option<Target>,
    #[command(flatten)]
    tls: TlsArgs,
    #[command(flatten)]
    pace: Pace,
    /// Lines of JSON.
    #[arg(long)]
    json: bool,
}

/// How often is looked, and how fast it falls and rises.
#[derive(Debug, clap::Args)]
struct Pace {
    /// Milliseconds between probes.
    #[arg(long, value_name = "MS", default_value_t = 250, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    every_ms: u64,
    /// Milliseconds that one probe may take.
    #[arg(long, value_name = "MS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    deadline_ms: u64,
    /// Misses in a row that withdraw.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    misses: u32,
    /// Seconds that an edge is well before it is announced again.
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    rise_s: u64,
    /// How often an hour it is announced again.
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rises: u32,
    /// Milliseconds that routers get to hear of a withdrawal before this process ends.
    #[arg(long, value_name = "MS", default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    settle_ms: u64,
}

/// The edge, asked over its admin listener.
struct AdminProbe(Pool);

/// Another announcer.
struct OtherAnnouncer(Pool);

/// What this process says of itself.
struct Page {
    report: tokio::sync::watch::Receiver<Report>,
}

// === impl Args ===

impl Args {
    /// Runs until a signal; gives the exit code.
    ///
    /// # Errors
    /// When it cannot start.
    pub async fn run(self) -> anyhow::Result<u8> {
        let topology = usable(&self.dir)?;
        let found = topology.edge(&self.edge);
        let (region, edge) = found.with_context(|| format!("there is no edge {:?}", self.edge))?;
        let anycast = region.anycast.as_ref();
        let anycast =
            anycast.with_context(|| format!("region {} is not announced", region.name))?;
        let at = edge
            .announcer
            .context("the edge has no announcer address")?;
        let setup = Setup {
            rules: self.pace.rules(anycast.floor),
            timing: self.pace.timing(),
            edge: Arc::new(AdminProbe(self.pool(region, edge)?)),
            others: others(&topology, &edge.name),
        };
        let count = setup.others.len();
        let (tell, report) = tokio::sync::watch::channel(Report::new());
        let mut signals = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let listener = TcpListener::bind(at).await;
        let listener = listener.with_context(|| format!("cannot listen on {at}"))?;
        let stop = CancellationToken::new();
        let page: Arc<dyn Handler> = Arc::new(Page {
            report: report.clone(),
        });
        let limits = ServerLimits {
            connections: CONNECTIONS,
            grace: Duration::from_secs(1),
            ..ServerLimits::default()
        };
        let serving = tokio::spawn(server::serve(listener, None, page, limits, stop.clone()));
        if !self.json {
            say(format_args!(
                "announcer of {}: asks it every {} ms and {count} others, tells on http://{at}/announcez",
                edge.name, self.pace.every_ms
            ));
        }
        let saying = tokio::spawn(say_changes(report, self.json, stop.clone()));
        let signalled = async {
            tokio::select! {
                _ = signals.0.recv() => {}
                _ = signals.1.recv() => {}
            }
        };
        let ended = if self.switch {
            watch::run(setup, Switch::default(), tell, signalled).await
        } else {
            watch::run(setup, self.announcer(region)?, tell, signalled).await
        };
        stop.cancel();
        drop(serving.await);
        saying.await??;
        self.verdict(&ended)
    }

    fn announcer(&self, region: &Region) -> anyhow::Result<impl Announcer> {
        let socket = self.bird.clone().context("--bird says where BIRD is")?;
        let prefixes = region.anycast.iter().flat_map(|anycast| &anycast.prefixes);
        let (mut four, mut six) = (false, false);
        for prefix in prefixes {
            four |= prefix.address.is_ipv4();
            six |= prefix.address.is_ipv6();
        }
        let mut protocols = Vec::new();
        if four {
            protocols.push(ProtocolName::new(self.protocol.clone())?);
        }
        if six {
            protocols.push(ProtocolName::new(format!("{}_6", self.protocol))?);
        }
        Ok(Bird::new(Control::new(socket, BIRD_WITHIN), protocols))
    }

    fn pool(&self, region: &Region, edge: &Edge) -> anyhow::Result<Pool> {
        let target = match (&self.admin, &region.certificates) {
            (Some(target), _) => target.clone(),
            (None, Some(_)) => format!("https://{}", edge.admin).parse()?,
            (None, None) => Target::from(edge.admin),
        };
        self.tls.pool(&target, 1)
    }

    fn verdict(&self, ended: &Ended) -> anyhow::Result<u8> {
        let (word, code) = match ended {
            Ended::Withdrawn => ("withdrawn, and settled".to_owned(), 0),
            Ended::LeftAnnounced => (
                "left announced: too few others are announced and well".to_owned(),
                EXIT_LEFT,
            ),
            Ended::Unknown(why) => (format!("not known what is announced: {why}"), EXIT_UNKNOWN),
        };
        if self.json {
            say(json!({ "ended": word, "code": code }));
        } else {
            say(word);
        }
        Ok(code)
    }
}

// === impl Pace ===

impl Pace {
    fn rules(&self, floor: u32) -> Rules {
        Rules {
            misses: self.misses,
            rise: Duration::from_secs(self.rise_s),
            rises: self.rises,
            floor,
            ..Rules::default()
        }
    }

    fn timing(&self) -> Timing {
        Timing {
            every: Duration::from_millis(self.every_ms),
            deadline: Duration::from_millis(self.deadline_ms),
            settle: Duration::from_millis(self.settle_ms),
            ..Timing::default()
        }
    }
}

fn others(topology: &Topology, name: &str) -> Vec<Arc<dyn Other>> {
    let at = topology.other_announcers(name).into_iter();
    at.map(|(_, at)| -> Arc<dyn Other> { Arc::new(OtherAnnouncer(Pool::new(at.into(), 1))) })
        .collect()
}

/// A line for each change, until the announcer ends.
async fn say_changes(
    mut report: tokio::sync::watch::Receiver<Report>,
    json: bool,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut last: Option<Report> = None;
    loop {
        let now = report.borrow_and_update().clone();
        if last.as_ref() != Some(&now) {
            if json {
                say(serde_json::to_string(&now)?);
            } else {
                say(line(&now));
            }
            last = Some(now);
        }
        tokio::select! {
            changed = report.changed() => if changed.is_err() { return Ok(()) },
            () = stop.cancelled() => return Ok(()),
        }
    }
}

fn line(report: &Report) -> String {
    let word = if report.announced {
        "announced"
    } else {
        "withdrawn"
    };
    let in_force = match report.in_force {
        Some(InForce::Announced) => "in force: announced",
        Some(InForce::Withdrawn) => "in force: withdrawn",
        Some(InForce::Unheard) => "in force: announced, and no router hears it",
        Some(InForce::Mixed) => "in force: some",
        None => "in force: not known",
    };
    let problem = report.problem.iter().map(|problem| format!("; {problem}"));
    let problem: String = problem.collect();
    format!(
        "{word} ({:?}, edge {:?}); {in_force}{problem}",
        report.why, report.health
    )
}

// === impl AdminProbe ===

impl watch::Edge for AdminProbe {
    fn probe(&self) -> standin_topology::BoxFuture<'_, Probe> {
        Box::pin(async {
            match self.0.ask(Call::get("/readyz"), PATIENCE).await {
                Ok(reply) => read_readiness(&reply),
                Err(CallError::Timeout) => Probe::TimedOut,
                Err(error) => {
                    tracing::debug!(%error, "the edge gave no answer");
                    Probe::Unreachable
                }
            }
        })
    }
}

/// What `/readyz` says, whatever its status; anything else there is no edge.
fn read_readiness(reply: &Reply) -> Probe {
    match read::<Readiness>(reply) {
        Some(ready) if ready.stopping => Probe::Stopping,
        Some(ready) => Probe::Answered(Parts {
            decide: ready.decide,
            write_ahead: ready.write_ahead,
            fresh_trips: ready.fresh_trips,
        }),
        None => Probe::Unreachable,
    }
}

fn read<T: DeserializeOwned>(reply: &Reply) -> Option<T> {
    serde_json::from_slice(&reply.body).ok()
}

// === impl OtherAnnouncer ===

impl Other for OtherAnnouncer {
    fn ask(&self) -> standin_topology::BoxFuture<'_, Option<Word>> {
        Box::pin(async {
            let reply = self.0.ask(Call::get("/announcez"), PATIENCE).await.ok()?;
            Some(read::<Report>(&reply)?.word())
        })
    }
}

// === impl Page ===

impl Page {
    fn respond(&self, request: &Request) -> Result<Response<Bytes>, Problem> {
        if !matches!(request.parts.method, Method::GET | Method::HEAD) {
            return Err(Problem::MethodNotAllowed { allow: "GET, HEAD" });
        }
        let report = self.report.borrow().clone();
        let is_on = report.in_force == Some(InForce::Announced);
        let (status, body) = match request.parts.uri.path() {
            "/announcez" => (StatusCode::OK, json!(report)),
            "/readyz" if is_on => (StatusCode::OK, json!({ "ok": true })),
            "/readyz" => (
                StatusCode::SERVICE_UNAVAILABLE,
                json!({ "ok": false, "why": report.why }),
            ),
            "/livez" => (StatusCode::OK, json!({ "ok": true })),
            _ => return Err(Problem::NotFound),
        };
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }
}

impl Handler for Page {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response<Bytes>> {
        // Anybody who reaches it may know it.
        request.vouch.known();
        let response = self.respond(&request);
        Box::pin(async { response.unwrap_or_else(|problem| problem.to_response()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &'static str) -> Reply {
        Reply {
            status,
            replayed: None,
            retry_after: None,
            stripe_version: None,
            body: Bytes::from(body),
        }
    }

    async fn ask(page: &Page, method: Method, path: &str) -> (u16, String) {
        let request = http::Request::builder().method(method).uri(path);
        let now = tokio::time::Instant::now();
        let request = Request {
            parts: request.body(()).unwrap().into_parts().0,
            body: Bytes::new(),
            peer: "127.0.0.1:1".parse().unwrap(),
            peer_name: None,
            received: now,
            complete: now,
            vouch: server::Vouch::default(),
        };
        let response = page.handle(request).await;
        let body = String::from_utf8(response.body().to_vec()).unwrap();
        (response.status().as_u16(), body)
    }

    #[tokio::test]
    async fn a_pod_is_ready_while_its_edge_is_announced_and_others_hear_how_it_is() {
        let (tell, report) = tokio::sync::watch::channel(Report::new());
        let page = Page { report };
        assert_eq!(ask(&page, Method::GET, "/readyz").await.0, 503);
        tell.send_modify(|report| {
            report.announced = true;
            report.in_force = Some(InForce::Announced);
        });
        assert_eq!(ask(&page, Method::GET, "/readyz").await.0, 200);
        let (status, body) = ask(&page, Method::GET, "/announcez").await;
        let heard: Report = serde_json::from_str(&body).unwrap();
        assert_eq!((status, heard.word()), (200, tell.borrow().word()));
        assert!(heard.word().announced);
        assert_eq!(ask(&page, Method::POST, "/announcez").await.0, 405);
        assert_eq!(ask(&page, Method::GET, "/").await.0, 404);
    }

    #[test]
    fn what_an_edge_says_is_told_apart() {
        let body =
            r#"{"ok":true,"decide":true,"write_ahead":true,"fresh_trips":false,"stopping":false}"#;
        let stale = Parts {
            decide: true,
            write_ahead: true,
            fresh_trips: false,
        };
        assert_eq!(read_readiness(&reply(200, body)), Probe::Answered(stale));
        let body = r#"{"ok":false,"why":"x","decide":true,"write_ahead":true,"fresh_trips":true,"stopping":true}"#;
        assert_eq!(read_readiness(&reply(503, body)), Probe::Stopping);
        for other in ["", "{}", "ok", r#"{"ok":true}"#] {
            assert_eq!(
                read_readiness(&reply(200, other)),
                Probe::Unreachable,
                "{other}"
            );
        }
    }
}
