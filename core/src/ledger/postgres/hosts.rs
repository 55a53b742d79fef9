//! Which host is the primary: all are asked at once, and the first that takes writes and is of no
//! past epoch is used.
//!
//! The driver's own list would do it in turn, and then a host that accepts connections and says
//! nothing costs its whole patience (its timeout ends with TCP), and a primary of the past that
//! stands first in the list wins for ever. Before any epoch is known, the answers of all hosts are
//! waited for and the highest epoch wins.
//!
//! A host that accepts and says nothing is not dialled again and again: each connection that was given
//! up would be served first once it goes on, by a process of its own, in the middle of its first
//! payments. Whoever asks next waits for the connection that is under way.

use std::collections::VecDeque;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::StreamExt;
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::config::{Host, SslMode, TargetSessionAttrs};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, NoTls, SimpleQueryMessage, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::epoch::Epoch;
use crate::authorities::Authorities;

/// How long a connection that nobody waits for any more may be under way. Of a host that does not
/// even accept, the bound for TCP is reached much earlier.
const UNDER_WAY_MAX: Duration = Duration::from_secs(30);
/// How long one that was made meanwhile waits to be wanted. Longer, and the server may be another.
const MADE_MAX: Duration = Duration::from_secs(5);

/// The hosts of a connection string.
#[derive(Clone)]
pub(super) struct Hosts {
    /// In the order of the string.
    each: Vec<OneHost>,
    /// For one host to let us in, login and questions included.
    patience: Duration,
    tls: Option<MakeRustlsConnect>,
    epoch: Epoch,
}

/// One of them.
#[derive(Clone)]
struct OneHost {
    config: Config,
    under_way: UnderWay,
}

/// Connections to one host that their askers gave up, at most as many as the pool may have; one more
/// is not kept.
#[derive(Clone)]
struct UnderWay {
    tasks: Arc<Mutex<VecDeque<Dialling>>>,
    max: usize,
}

/// A connection that is being made; ends with whoever holds it.
struct Dialling {
    task: JoinHandle<Option<Result<Opened, Error>>>,
    wanted: watch::Sender<bool>,
}

/// One that somebody waits for; given up, it is kept for the next.
struct Dialled {
    dialling: Option<Dialling>,
    under_way: UnderWay,
}

/// A connection that nobody drives yet.
struct Opened {
    client: Client,
    connection: Driving,
    epoch: u64,
}

/// Moves a connection's bytes until it is over.
type Driving = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

type Opening<'a> =
    Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + 'a>>;

// === impl Hosts ===

impl Hosts {
    /// Splits a configuration by host; `limit` is what the whole may take.
    /// With `authorities`, nothing is said to a host whose certificate is not of them.
    pub(super) fn new(
        all: &Config,
        authorities: Option<&Authorities>,
        limit: Duration,
        connections: usize,
        epoch: Epoch,
    ) -> Self {
        let number = all.get_hosts().len().max(all.get_hostaddrs().len());
        let tls = authorities.map(|them| {
            let config = Arc::unwrap_or_clone(them.config());
            MakeRustlsConnect::new(config)
        });
        let one = |at| {
            let mut one = one_host(all, at);
            if tls.is_some() {
                one.ssl_mode(SslMode::Require);
            }
            OneHost {
                config: one,
                under_way: UnderWay {
                    tasks: Arc::default(),
                    max: connections,
                },
            }
        };
        Self {
            each: (0..number).map(one).collect(),
            tls: tls.clone(),
            // The rest is for using what the others said.
            patience: limit.saturating_sub(limit.checked_div(4).unwrap_or_default()),
            epoch,
        }
    }

    /// Connects to the primary. When no host is one, the error is the last host's; when none said
    /// a word, this never returns: whoever asked has a limit for the whole.
    async fn connect_primary(&self, least: u64) -> Result<Opened, Error> {
        let asked = self
            .each
            .iter()
            .enumerate()
            .map(|(at, host)| async move { (at, self.open(host, least).await) });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let mut best: Option<(usize, Opened)> = None;
        let mut failed = None;
        while let Some((at, opened)) = asked.next().await {
            match opened {
                Ok(Some(opened)) if least > 0 => return Ok(opened),
                Ok(Some(opened)) => {
                    let better = best.as_ref().is_none_or(|(first, known)| {
                        opened.epoch > known.epoch || (opened.epoch == known.epoch && at < *first)
                    });
                    if better {
                        best = Some((at, opened));
                    }
                }
                // What a server said of itself tells more than a port that is closed.
                Err(error) => {
                    if failed.is_none() || error.code().is_some() {
                        failed = Some(error);
                    }
                }
                Ok(None) => {}
            }
        }
        match (best, failed) {
            (Some((_, opened)), _) => Ok(opened),
            (None, Some(error)) => Err(error),
            (None, None) => std::future::pending().await,
        }
    }

    /// A connection to one host of this epoch at least; `None` when it said nothing in time.
    async fn open(&self, host: &OneHost, least: u64) -> Result<Option<Opened>, Error> {
        let until = Instant::now().checked_add(self.patience);
        let until = until.unwrap_or_else(Instant::now);
        loop {
            let kept = host.under_way.take();
            let is_new = kept.is_none();
            let dialling = kept.unwrap_or_else(|| self.dial(host.config.clone(), least));
            let mut dialled = Dialled::new(dialling, host.under_way.clone());
            match timeout_at(until, dialled.done()).await {
                Err(_elapsed) => return Ok(None),
                Ok(Some(Ok(opened))) if opened.epoch >= least => return Ok(Some(opened)),
                Ok(Some(Err(error))) if is_new => return Err(error),
                Ok(None) if is_new => return Ok(None),
                // What was said to another, or a while ago, is asked again.
                Ok(_) => {}
            }
        }
    }

    fn dial(&self, host: Config, least: u64) -> Dialling {
        let tls = self.tls.clone();
        let (wanted, mut is_wanted) = watch::channel(true);
        let task = tokio::spawn(async move {
            let opening = async {
                match tls {
                    None => open(&host, NoTls, least).await,
                    Some(tls) => open(&host, tls, least).await,
                }
            };
            let opened = timeout(UNDER_WAY_MAX, opening).await.ok()?;
            let asked = timeout(MADE_MAX, is_wanted.wait_for(|wanted| *wanted)).await;
            asked.is_ok_and(|asked| asked.is_ok()).then_some(opened)
        });
        Dialling { task, wanted }
    }

    /// A connection of its own to the primary of the highest epoch, be it of the past.
    pub(super) async fn connect_any(&self) -> Result<(Client, JoinHandle<()>), Error> {
        Ok(drive(self.connect_primary(0).await?))
    }
}

// === impl UnderWay ===

impl UnderWay {
    fn take(&self) -> Option<Dialling> {
        self.lock().pop_front()
    }

    fn keep(&self, dialling: Dialling) {
        let mut tasks = self.lock();
        tasks.retain(|kept| !kept.task.is_finished());
        if tasks.len() < self.max && !dialling.task.is_finished() {
            dialling.wanted.send_replace(false);
            tasks.push_back(dialling);
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Dialling>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Dialling ===

impl Drop for Dialling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

// === impl Dialled ===

impl Dialled {
    fn new(dialling: Dialling, under_way: UnderWay) -> Self {
        dialling.wanted.send_replace(true);
        Self {
            dialling: Some(dialling),
            under_way,
        }
    }

    /// What the host said; `None` when it was over its time.
    async fn done(&mut self) -> Option<Result<Opened, Error>> {
        let said = (&mut self.dialling.as_mut()?.task).await;
        self.dialling = None;
        said.ok().flatten()
    }
}

impl Drop for Dialled {
    fn drop(&mut self) {
        if let Some(dialling) = self.dialling.take() {
            self.under_way.keep(dialling);
        }
    }
}

impl Connect for Hosts {
    fn connect(&self, _: &Config) -> Opening<'_> {
        Box::pin(async move {
            let opened = self.connect_primary(self.epoch.seen()).await?;
            self.epoch.raise(opened.epoch);
            Ok(drive(opened))
        })
    }
}

/// Runs a connection until its client is gone.
fn drive(opened: Opened) -> (Client, JoinHandle<()>) {
    let Opened {
        client, connection, ..
    } = opened;
    let driven = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to Postgres ended");
        }
    });
    (client, driven)
}

/// Connects to one host and asks for its epoch.
async fn open<T>(host: &Config, tls: T, least: u64) -> Result<Opened, Error>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: TlsConnect<Socket>,
{
    let (client, connection) = host.connect(tls).await?;
    let mut connection: Driving = Box::pin(connection);
    // A server that fails the guard says so with an error of its own.
    let ask = format!(
        "select e.epoch, 1 / (case when e.epoch >= {least} then 1 else 0 end) \
         from ledger_epoch e where e.only_row = 1"
    );
    let reply = {
        let asking = pin!(client.simple_query(&ask));
        match select(asking, &mut connection).await {
            Either::Left((reply, _)) => reply,
            // The connection is over; what it says comes first, else what the question got.
            Either::Right((Err(error), _)) => Err(error),
            Either::Right((Ok(()), asking)) => asking.await,
        }
    };
    let epoch = match reply {
        Ok(messages) => epoch_of(&messages),
        // Migrations have not run: there is nothing yet that a primary of the past could spoil.
        Err(error) if least == 0 && error.code() == Some(&SqlState::UNDEFINED_TABLE) => 0,
        Err(error) => return Err(error),
    };
    Ok(Opened {
        client,
        connection,
        epoch,
    })
}

fn epoch_of(messages: &[SimpleQueryMessage]) -> u64 {
    let row = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.and_then(|epoch| epoch.parse().ok()).unwrap_or(0)
}

/// The configuration with one of its hosts; it is to take writes.
fn one_host(all: &Config, at: usize) -> Config {
    let mut one = Config::new();
    match all.get_hosts().get(at) {
        Some(Host::Tcp(name)) => _ = one.host(name),
        Some(Host::Unix(path)) => _ = one.host_path(path),
        None => {}
    }
    if let Some(address) = all.get_hostaddrs().get(at) {
        one.hostaddr(*address);
    }
    if let Some(port) = all.get_ports().get(at).or(all.get_ports().first()) {
        one.port(*port);
    }
    if let Some(user) = all.get_user() {
        one.user(user);
    }
    if let Some(password) = all.get_password() {
        one.password(password);
    }
    if let Some(name) = all.get_dbname() {
        one.dbname(name);
    }
    if let Some(options) = all.get_options() {
        one.options(options);
    }
    if let Some(name) = all.get_application_name() {
        one.application_name(name);
    }
    if let Some(limit) = all.get_connect_timeout() {
        one.connect_timeout(*limit);
    }
    if let Some(limit) = all.get_tcp_user_timeout() {
        one.tcp_user_timeout(*limit);
    }
    if let Some(interval) = all.get_keepalives_interval() {
        one.keepalives_interval(interval);
    }
    if let Some(retries) = all.get_keepalives_retries() {
        one.keepalives_retries(retries);
    }
    one.ssl_mode(all.get_ssl_mode())
        .ssl_negotiation(all.get_ssl_negotiation())
        .channel_binding(all.get_channel_binding())
        .keepalives(all.get_keepalives())
        .keepalives_idle(all.get_keepalives_idle())
        .target_session_attrs(TargetSessionAttrs::ReadWrite);
    one
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<Config> {
        let all: Config = text.parse().unwrap();
        let hosts = Hosts::new(&all, None, Duration::from_secs(4), 1, Epoch::new(0));
        hosts.each.into_iter().map(|host| host.config).collect()
    }

    #[test]
    fn each_host_has_its_own_port_and_everything_else() {
        let all = hosts(
            "host=one,two,/run/pg port=1,2,3 user=u password=p dbname=d options='-c a=b' \
             application_name=n keepalives_idle=7 keepalives_interval=8 keepalives_retries=9 \
             tcp_user_timeout=10 connect_timeout=11 channel_binding=disable sslmode=disable",
        );
        assert_eq!(all.len(), 3);
        for (at, one) in all.iter().enumerate() {
            let name = ["one", "two", "/run/pg"][at];
            let host = if at == 2 {
                Host::Unix(name.into())
            } else {
                Host::Tcp(name.to_owned())
            };
            assert_eq!(one.get_hosts(), [host]);
            assert_eq!(one.get_ports(), [[1, 2, 3][at]]);
            let same = format!(
                "host={name} port={} user=u password=p dbname=d options='-c a=b' \
                 application_name=n keepalives_idle=7 keepalives_interval=8 keepalives_retries=9 \
                 tcp_user_timeout=10 connect_timeout=11 channel_binding=disable sslmode=disable \
                 target_session_attrs=read-write",
                at.saturating_add(1)
            );
            assert_eq!(*one, same.parse::<Config>().unwrap());
        }
    }

    #[test]
    fn one_port_serves_every_host_and_addresses_stand_beside_names() {
        let all = hosts("host=one,two hostaddr=10.0.0.1,10.0.0.2 port=7");
        let seen: Vec<_> = all
            .iter()
            .map(|one| (one.get_hostaddrs()[0].to_string(), one.get_ports()[0]))
            .collect();
        assert_eq!(
            seen,
            [("10.0.0.1".to_owned(), 7), ("10.0.0.2".to_owned(), 7)]
        );
        assert_eq!(hosts("hostaddr=10.0.0.1,10.0.0.2").len(), 2);
    }
}
