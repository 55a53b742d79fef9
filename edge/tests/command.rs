//! The command line of `standin-edge`, run as a process.

#![allow(clippy::unwrap_used, reason = "test code")]

use std::process::{Command, Output};

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/standin-edge.example.toml");

fn edge(args: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_standin-edge"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("STANDIN_EDGE") {
            command.env_remove(name);
        }
    }
    command
        .args(args)
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn config_check_prints_every_value_and_its_origin_but_no_secret() {
    let output = edge(
        &["config", "check", "--config", EXAMPLE],
        &[("STANDIN_EDGE__REGION", "frankfurt")],
    );
    let page = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let line = |key: &str| {
        let found = page
            .lines()
            .find(|line| line.starts_with(&format!("{key} ")));
        found
            .unwrap_or_else(|| panic!("no {key} in\n{page}"))
            .to_owned()
    };
    assert!(line("region").ends_with("\"frankfurt\"  # environment"));
    assert!(line("listen").ends_with("# file"));
    assert!(line("drain.batch").ends_with("= 1000  # default"));
    assert!(line("banks.0.secrets").ends_with("\"***\"  # file"));
    assert!(!page.contains("MfKQ9r8G") && !page.contains("c3RhbmRpb"));
}

#[test]
fn config_check_speaks_json() {
    let output = edge(&["config", "check", "--json", "--config", EXAMPLE], &[]);
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(page["ok"], true);
    assert!(page["settings"].as_array().unwrap().len() > 40);
}

#[test]
fn an_embedded_ledger_has_nothing_to_migrate() {
    let output = edge(&["migrate", "--config", EXAMPLE], &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).contains("ledger.postgres"));
}

#[test]
fn a_wrong_configuration_is_64_and_says_what_is_right() {
    let wrong = [("STANDIN_EDGE__ADMIN_LISTEN", "0.0.0.0:1")];
    for args in [
        ["config", "check", "--config", EXAMPLE].as_slice(),
        &["--config", EXAMPLE],
    ] {
        let output = edge(args, &wrong);
        assert_eq!(output.status.code(), Some(64), "{args:?}");
        let said = text(&output.stderr);
        assert!(
            said.contains("admin_listen: must be a loopback address"),
            "{said}"
        );
    }
    let output = edge(
        &["config", "check", "--json", "--config", "/nowhere.toml"],
        &[],
    );
    assert_eq!(output.status.code(), Some(64));
    let page: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(page["ok"], false);
    assert!(
        page["errors"][0]
            .as_str()
            .unwrap()
            .contains("/nowhere.toml")
    );
}

#[test]
fn a_wrong_command_line_is_64_and_help_is_0() {
    assert_eq!(edge(&["--confg", "x"], &[]).status.code(), Some(64));
    let help = edge(&["--help"], &[]);
    assert_eq!(help.status.code(), Some(0));
    let page = text(&help.stdout);
    assert!(
        page.contains("config check --config") && page.contains("Exit codes"),
        "{page}"
    );
}

/// A process that does not outlive its test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Waits until the edge answers on its admin port, or panics after 20 s.
fn wait_until_live(address: &str) {
    let deadline = std::time::Duration::from_secs(20);
    let began = tokio::time::Instant::now();
    while ask(address, "/livez").is_none() {
        assert!(
            began.elapsed() < deadline,
            "not ready: {:?}",
            ask(address, "/statusz")
        );
        std::thread::yield_now();
    }
}

fn ask(address: &str, path: &str) -> Option<String> {
    use std::io::{Read as _, Write as _};
    let mut stream = std::net::TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut page = String::new();
    stream.read_to_string(&mut page).ok()?;
    Some(page)
}

fn free_address() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

#[test]
fn the_example_runs_embedded_and_stops_cleanly_on_sigterm() {
    let dir = std::env::temp_dir().join(format!("standin-edge-{}", std::process::id()));
    let (listen, admin) = (free_address(), free_address());
    let edge = Command::new(env!("CARGO_BIN_EXE_standin-edge"))
        .args(["--config", EXAMPLE])
        .env("STANDIN_EDGE__LISTEN", &listen)
        .env("STANDIN_EDGE__ADMIN_LISTEN", &admin)
        .env("STANDIN_EDGE__WAL__DIR", dir.join("wal"))
        .stderr(std::process::Stdio::piped())
        .spawn();
    let mut edge = Running(edge.unwrap());
    wait_until_live(&admin);
    let metrics = ask(&admin, "/metrics").unwrap();
    assert!(metrics.contains("standin_alarm{"), "{metrics}");
    // It knows no store yet, so no bank should be sent here.
    let ready = ask(&admin, "/readyz").unwrap();
    assert!(ready.starts_with("HTTP/1.1 503"), "{ready}");
    let unsigned = ask(&listen, "/v1/banks/first/authorizations").unwrap();
    assert!(unsigned.starts_with("HTTP/1.1 405"), "{unsigned}");
    let kill = Command::new("kill").arg(edge.0.id().to_string()).status();
    assert!(kill.unwrap().success());
    let status = edge.0.wait().unwrap();
    let mut log = String::new();
    std::io::Read::read_to_string(&mut edge.0.stderr.take().unwrap(), &mut log).unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
    assert_eq!(status.code(), Some(0), "{log}");
    for line in log.lines() {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(line);
        assert!(parsed.is_ok(), "not JSON: {line}");
    }
    assert!(
        log.contains("stopped; everything begun was finished"),
        "{log}"
    );
}
