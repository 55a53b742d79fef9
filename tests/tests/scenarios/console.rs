//! The console, on real edges, in a real browser.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use standin_cli::client::{Call, Pool};
use standin_core::answer::Rung;
use standin_drill::process::{Process, free_port};
use standin_tests::harness::browser::file_url;
use standin_tests::harness::wait::until;
use standin_tests::harness::{Browser, Edge, EdgeOptions, Payment, Stage, verdict};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PROGRAMS, SOON};

/// `standin console`.
struct Console {
    process: Child,
    authority: String,
    pool: Pool,
}

/// A browser's stream, read as it comes.
struct Events {
    stream: tokio::io::BufReader<TcpStream>,
    /// The parts of the page, as they are by now.
    parts: BTreeMap<String, String>,
}

impl Console {
    fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new(PROGRAMS.standin)
            .args(["console", "--json", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        lines.read_line(&mut line).unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        let url = ready["url"].as_str().unwrap();
        let authority = url.trim_start_matches("http://").trim_end_matches('/');
        Self {
            process,
            authority: authority.to_owned(),
            pool: Pool::new(authority.parse().unwrap(), 2),
        }
    }

    fn url(&self) -> String {
        format!("http://{}/", self.authority)
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let reply = self.pool.ask(Call::get(path), SOON).await.unwrap();
        (
            reply.status,
            String::from_utf8(reply.body.to_vec()).unwrap(),
        )
    }

    async fn state_until(&self, what: &str, look: impl Fn(&Value) -> bool) {
        until(what, SOON, || async {
            let (status, body) = self.get("/state.json").await;
            assert_eq!(status, 200);
            look(&serde_json::from_str(&body).unwrap()).then_some(())
        })
        .await;
    }

    async fn send(&self, head: &str) -> TcpStream {
        let mut stream = TcpStream::connect(&self.authority).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }

    /// What a raw request is answered with, head and body.
    async fn raw(&self, head: &str) -> String {
        let mut told = String::new();
        let mut stream = self.send(head).await;
        stream.read_to_string(&mut told).await.unwrap();
        told
    }

    async fn events(&self) -> Events {
        let stream = self.send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n");
        Events {
            stream: tokio::io::BufReader::new(stream.await),
            parts: BTreeMap::new(),
        }
    }

    async fn stop(mut self) {
        let id = i32::try_from(self.process.id()).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        let ended = until("the console ends", SOON, || {
            let ended = self.process.try_wait().unwrap();
            async move { ended }
        });
        let status = ended.await;
        assert!(status.success(), "{status}");
    }
}

impl Drop for Console {
    fn drop(&mut self) {
        // Of one that was stopped there is nothing to kill.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Events {
    /// The next line; none when the stream ended.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = timeout(SOON, self.stream.read_line(&mut line)).await;
        (read.unwrap().unwrap() > 0).then_some(line)
    }

    /// Waits for the next event.
    async fn next(&mut self) {
        loop {
            let line = self.line().await.expect("the stream goes on");
            let Some(data) = line.strip_prefix("data: ") else {
                continue;
            };
            let data: Value = serde_json::from_str(data).unwrap();
            for (name, html) in data["parts"].as_object().unwrap() {
                let html = html.as_str().unwrap().to_owned();
                self.parts.insert(name.clone(), html);
            }
            return;
        }
    }

    /// Takes events until a part holds `words`.
    async fn until(&mut self, part: &str, words: &str) {
        let told = async {
            while !self
                .parts
                .get(part)
                .is_some_and(|html| html.contains(words))
            {
                self.next().await;
            }
        };
        let in_time = timeout(SOON, told).await.is_ok();
        assert!(
            in_time,
            "{part} without {words:?}: {:?}",
            self.parts.get(part)
        );
    }
}

/// `standin serve --example`, in a region of its own.
fn serve(folder: &Path) -> (Process, String) {
    let [banks, operators, trips] = [(); 3].map(|()| format!("127.0.0.1:{}", free_port().unwrap()));
    let mut command = Command::new(PROGRAMS.standin);
    command.args([
        "serve",
        "--example",
        "--listen",
        &banks,
        "--trips-listen",
        &trips,
    ]);
    command.args(["--admin-listen", &operators, "--data"]);
    command.arg(folder.join("data"));
    let process = Process::spawn("standin serve", command, &folder.join("serve.log")).unwrap();
    (process, format!("http://{operators}"))
}

/// `standin reconcile` on the folder of an edge that was stopped.
fn reconcile(folder: &Path, out: &Path) {
    let output = Command::new(PROGRAMS.standin)
        .args(["reconcile", "--data"])
        .arg(folder.join("data"))
        .arg("--out")
        .arg(out)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_tells_of_answers_an_outage_and_an_edge_that_hangs() {
    let stage = Stage::set().await;
    stage.trip(1, 1_000_000).await;
    let options = EdgeOptions {
        breaker_failures: 1,
        ..EdgeOptions::on(&stage)
    };
    let mut east = Edge::start_with(PROGRAMS, &stage, options).await;
    let folder = tempfile::tempdir().unwrap();
    let (mut west, west_url) = serve(folder.path());
    let reports = folder.path().join("reports");
    std::fs::create_dir(&reports).unwrap();
    let east_url = format!("east-1={}", east.admin_url());
    let west_url = format!("west-1={west_url}");
    let reports_text = reports.display().to_string();
    let console = Console::start(&[
        "--edge",
        &east_url,
        "--edge",
        &west_url,
        "--reports",
        &reports_text,
    ]);
    let mut events = console.events().await;
    events.until("tiles", "2 of 2").await;
    events.until("verdict", "Well: 2 edges in 2 regions").await;

    // An answer.
    let bank = east.bank(2);
    let first = bank.pay(&Payment::new("first", 1, 10_000)).await;
    assert_eq!(first.said().rung, Rung::Primary);
    events
        .until("traffic", "<th scope=\"row\">primary</th>")
        .await;
    let (_, page) = console.get("/").await;
    assert!(page.contains("<th scope=\"row\">primary</th>"), "{page}");
    let in_state = |state: &Value| {
        let edges = state["regions"].as_array().unwrap().iter();
        let mut edges = edges.flat_map(|region| region["edges"].as_array().unwrap());
        let east = edges.find(|edge| edge["name"] == "east-1").unwrap();
        let rungs = east["traffic"]["by_rung"].as_array().unwrap();
        let primary = rungs.iter().find(|of| of["rung"] == "primary");
        primary.is_some_and(|of| of["per_second"].as_f64() > Some(0.0) && of["p99_ms"].is_f64())
    };
    console.state_until("the answer", in_state).await;

    // Postgres and Redis hang: the page goes on, and says so.
    stage.postgres.pause().unwrap();
    let second = bank.pay(&Payment::new("second", 1, 12_300)).await;
    assert_eq!(second.said().rung, Rung::StandIn);
    stage.redis.pause().unwrap();
    println!("injected: the primary and the trip cache hang");
    events
        .until("verdict", "east-1 answers on stand_in (timeout)")
        .await;
    events.until("facts", "test: since ").await;
    events
        .until("facts", "<b>Exposure</b> now 123.00 USD;")
        .await;
    events.until("regions", "unknown").await;
    let drill = json!({"name": "primary-hang", "started_at": "just now", "phase": "inject"});
    std::fs::write(reports.join("drill.json"), drill.to_string()).unwrap();
    events
        .until("facts", "in progress: primary-hang, inject")
        .await;

    // An edge hangs: the page says since when, and the stream goes on.
    let mut browser = Browser::start();
    let mut tab = browser.look(&console.url(), 1440, false, true).await;
    tab.shows("✓ Live, as of", SOON).await;
    west.pause().unwrap();
    println!("injected: west-1 hangs");
    events
        .until("verdict", "Trouble: west-1 not heard from since")
        .await;
    tab.shows("west-1 not heard from since", SOON).await;
    tab.close().await;
    // Every look brings an event, whatever hangs.
    for _ in 0..3 {
        events.next().await;
    }
    let words = [
        "Trouble: west-1 not heard from since",
        "Outage test: since",
        "Exposure now 123.00 USD; at worst",
        "Drill in progress: primary-hang",
        "stand_in, cause timeout",
        "was primary",
        "no reply within 2 s",
    ];
    browser.check("console", &console.url(), &words).await;
    let mut still = browser.look(&console.url(), 390, true, false).await;
    let text = still.text().await;
    assert!(text.contains("Snapshot of"), "{text}");
    assert!(still.faults(&words).await.is_empty(), "{text}");
    still.close().await;

    // Everything is back.
    west.resume().unwrap();
    stage.redis.resume().unwrap();
    stage.postgres.resume().unwrap();
    events.until("tiles", "2 of 2").await;
    let is_well = "Well: 2 edges in 2 regions";
    events.until("verdict", is_well).await;

    // A reconciliation ends.
    west.terminate().unwrap();
    assert!(west.ended(SOON).await.unwrap().success());
    reconcile(folder.path(), &reports.join("nightly"));
    events.until("reports", "Clean: no findings.").await;
    let report = file_url(&reports.join("nightly/report.html"));
    let words = ["Clean: every answer", "Outages", "Exposure", "Findings"];
    browser.check("reconciliation", &report, &words).await;
    console.stop().await;
    // Its stream ends with it.
    while events.line().await.is_some() {}
    verdict::end(&stage, &mut east, &[]).await.all_approved();
}

#[tokio::test]
async fn what_no_page_of_ours_may_do_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut browser = Browser::start();
    let good = "<p class=verdict>Held.</p>";
    for (page, fault) in [
        (good.to_owned(), None),
        (
            format!("{good}<p style='width:2000px'>wide"),
            Some("it scrolls sideways"),
        ),
        (
            format!("{good}<script>no.such</script>"),
            Some("ReferenceError"),
        ),
        (
            format!("{good}<script>console.error('oh')</script>"),
            Some("oh"),
        ),
        (
            format!("{good}<img src=missing.png>"),
            Some("ERR_FILE_NOT_FOUND"),
        ),
        (
            format!("{good}<p style='color:#999'>pale"),
            Some("2.85: pale"),
        ),
        (
            "<p class=verdict></p>Held.".to_owned(),
            Some("there is no verdict"),
        ),
        (
            "<p class=verdict>Not held.</p>".to_owned(),
            Some("it does not say \"Held.\""),
        ),
    ] {
        let file = folder.path().join("page.html");
        std::fs::write(&file, format!("<!doctype html><meta charset=utf-8>{page}")).unwrap();
        let mut tab = browser.look(&file_url(&file), 390, false, true).await;
        let faults = tab.faults(&["Held."]).await;
        tab.close().await;
        match fault {
            None => assert!(faults.is_empty(), "{page}: {faults:?}"),
            Some(fault) => {
                assert_eq!(faults.len(), 1, "{page}: {faults:?}");
                assert!(faults[0].contains(fault), "{page}: {faults:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_console_only_reads_for_this_machine_and_a_few_browsers() {
    let nobody = format!("http://127.0.0.1:{}", free_port().unwrap());
    let console = Console::start(&["--edge", &format!("gone={nobody}")]);
    console
        .state_until("it is told that nobody is there", |state| {
            state["verdict"]["text"] == "Trouble: gone not heard from yet."
        })
        .await;
    for (request, expected) in [
        (
            "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0",
            "405",
        ),
        ("HEAD / HTTP/1.1\r\nHost: localhost", "405"),
        ("DELETE /state.json HTTP/1.1\r\nHost: localhost", "405"),
        ("GET /other HTTP/1.1\r\nHost: 127.0.0.1:1", "404"),
        ("GET / HTTP/1.1\r\nHost: evil.example", "421"),
        ("GET /events HTTP/1.1\r\nHost: evil.example", "421"),
        ("GET / HTTP/1.1\r\nHost: [::1]:8090", "200"),
    ] {
        let told = console
            .raw(&format!("{request}\r\nConnection: close\r\n\r\n"))
            .await;
        let head = told.split("\r\n\r\n").next().unwrap().to_ascii_lowercase();
        assert!(
            head.starts_with(&format!("http/1.1 {expected}")),
            "{request}: {head}"
        );
        assert!(head.contains("content-security-policy: default-src 'none'; style-src 'sha256-"));
        assert!(head.contains("cache-control: no-store"));
        assert_eq!(head.contains("allow: get"), expected == "405", "{head}");
    }
    let mut browsers = Vec::new();
    for _ in 0..16 {
        let mut events = console.events().await;
        events.until("verdict", "Trouble").await;
        browsers.push(events);
    }
    let one_more = "GET /events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let refused = console.raw(one_more).await;
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    // A place is free again when a browser leaves.
    drop(browsers.pop());
    until("a place", SOON, || async {
        let mut stream = console
            .send("GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await;
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        (&status == b"HTTP/1.1 200").then_some(())
    })
    .await;
    console.stop().await;

    let wrong = |arguments: &[&str]| {
        let output = Command::new(PROGRAMS.standin)
            .arg("console")
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let abroad = wrong(&["--edge", "a=http://127.0.0.1:1", "--listen", "0.0.0.0:0"]);
    assert!(abroad.contains("loopback"), "{abroad}");
    assert!(wrong(&[]).contains("--edge NAME=URL"));
    assert!(wrong(&["--edge", "a=https://127.0.0.1:1"]).contains("--ca"));
}
