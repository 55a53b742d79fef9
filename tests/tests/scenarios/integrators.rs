//! What somebody meets who connects a bank: the pages, their samples, the sandbox and the cases of the
//! contract, on real processes.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use serde_json::{Value, json};
use standin_core::signature::{Scheme, Secret, basic, sign, stripe};

use super::PROGRAMS;

mod iso8583;

const FORMATS: [&str; 4] = ["native", "stripe", "lithic", "marqeta"];
/// Of every language: the file's ending, what its block in the page is called, what runs it.
const LANGUAGES: [(&str, &str, &[&str]); 4] = [
    ("sh", "sh", &["sh"]),
    ("py", "python", &["python3"]),
    ("mjs", "js", &["node"]),
    ("go", "go", &["go", "run"]),
];

fn banks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/banks")
}

fn sample(format: &str, ending: &str) -> String {
    let file = banks().join(format!("samples/{format}.{ending}"));
    std::fs::read_to_string(&file).unwrap()
}

/// `standin bank listen`, and how to connect to it.
struct Sandbox {
    process: Child,
    lines: BufReader<ChildStdout>,
    ready: Value,
}

impl Sandbox {
    fn start(format: &str, more: &[&str]) -> Self {
        let mut process = Command::new(PROGRAMS.standin)
            .args(["bank", "listen", "--json", "--listen", "127.0.0.1:0"])
            .args(["--format", format])
            .args(more)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        let ready = next(&mut lines);
        Self {
            process,
            lines,
            ready,
        }
    }

    fn word(&self, name: &str) -> &str {
        self.ready[name].as_str().unwrap_or_default()
    }

    /// With everything exported that the sandbox says to.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        for (variable, name) in [
            ("STANDIN_URL", "url"),
            ("STANDIN_BANK", "bank"),
            ("STANDIN_FORMAT", "format"),
            ("STANDIN_SIGNATURE", "signature"),
            ("STANDIN_BANK_SECRET", "secret"),
            ("STANDIN_KEY_ID", "key_id"),
            ("STANDIN_ENCODING", "encoding"),
            ("STANDIN_CARD_ACCEPTOR", "card_acceptor"),
            ("STANDIN_CA", "ca"),
            ("STANDIN_CERTIFICATE", "certificate"),
            ("STANDIN_KEY", "key"),
        ] {
            if !self.ready[name].is_null() {
                command.env(variable, self.word(name));
            }
        }
        command.stdin(Stdio::null());
        command
    }

    fn standin(&self, arguments: &[&str]) -> Output {
        self.command(PROGRAMS.standin)
            .args(arguments)
            .output()
            .unwrap()
    }

    /// What it says of the next request.
    fn line(&mut self) -> Value {
        next(&mut self.lines)
    }

    fn stop(mut self) {
        let id = i32::try_from(self.process.id()).unwrap();
        let process = rustix::process::Pid::from_raw(id).unwrap();
        rustix::process::kill_process(process, rustix::process::Signal::TERM).unwrap();
        let status = self.process.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // Of one that was stopped there is nothing to kill.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn next(lines: &mut BufReader<ChildStdout>) -> Value {
    let mut line = String::new();
    lines.read_line(&mut line).unwrap();
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn every_page_shows_its_samples_as_they_are() {
    for format in FORMATS {
        let page = std::fs::read_to_string(banks().join(format!("{format}.md"))).unwrap();
        for (ending, block, _) in LANGUAGES {
            let shown = format!("```{block}\n{}```\n", sample(format, ending));
            assert!(page.contains(&shown), "{format}.md and {format}.{ending}");
        }
    }
}

#[test]
fn every_sample_names_a_signature_to_check_by_that_is_right() {
    let (time, body) = (1_700_000_000, br#"{"id":"evt_1"}"#);
    let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".parse().unwrap();
    let webhook = sign(&secret, "msg_1", time, body);
    let of_stripe = Scheme::Stripe.secret("whsec_test_secret").unwrap();
    let credentials = Scheme::Basic.secret("marqeta:sesame-street").unwrap();
    for (format, named, right) in [
        ("native", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &webhook),
        ("lithic", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &webhook),
        (
            "stripe",
            "whsec_test_secret",
            &stripe::sign(&of_stripe, time, body),
        ),
        (
            "marqeta",
            "marqeta:sesame-street",
            &basic::credentials(&credentials),
        ),
    ] {
        for (ending, _, _) in LANGUAGES {
            let sample = sample(format, ending);
            assert!(
                sample.contains(named) && sample.contains(right),
                "{format}.{ending}: {right}"
            );
        }
    }
}

#[test]
fn samples_are_approved_by_a_real_edge_and_replay_in_another_language() {
    for format in FORMATS {
        let mut sandbox = Sandbox::start(format, &[]);
        for (earlier, (ending, _, words)) in LANGUAGES.into_iter().enumerate() {
            let (program, first) = words.split_first().unwrap();
            let file = banks().join(format!("samples/{format}.{ending}"));
            let output = sandbox
                .command(program)
                .args(first)
                .arg(&file)
                .output()
                .unwrap();
            let said = text(&output.stdout);
            println!("{format}.{ending}: {}\n{said}", output.status);
            assert!(output.status.success(), "{output:?}");
            assert!(said.contains("200"), "{said}");
            let line = sandbox.line();
            assert_eq!(line["authentic"], true, "{line}");
            assert_eq!(line["told"]["verdict"], "approved", "{line}");
            assert_eq!(line["told"]["amount"], "12.30", "{line}");
            // Every sample sends the same payment.
            assert_eq!(line["told"]["replayed"], earlier > 0, "{line}");
        }
        sandbox.stop();
    }
}

const SCENARIOS: [&str; 11] = [
    "approve",
    "duplicate",
    "reuse",
    "over-cap",
    "wrong-store",
    "unknown-card",
    "forged",
    "late",
    "timeout",
    "reversal",
    "partial",
];

#[test]
fn every_case_of_the_contract_is_kept_in_every_format() {
    for format in FORMATS {
        let sandbox = Sandbox::start(format, &[]);
        for scenario in SCENARIOS {
            let output = sandbox.standin(&["bank", "trigger", scenario, "--json"]);
            let not_in_it = matches!(
                (scenario, format),
                ("unknown-card", "native") | ("reversal", "stripe" | "lithic")
            );
            let said = text(&output.stdout);
            println!("{format} {scenario}: {}", output.status);
            if not_in_it {
                assert_eq!(output.status.code(), Some(2), "{output:?}");
                continue;
            }
            assert_eq!(output.status.code(), Some(0), "{said}{output:?}");
            let report: Value = serde_json::from_str(&said).unwrap();
            assert_eq!(report["kept"], true, "{report}");
            assert!(!said.contains(sandbox.word("secret")), "{said}");
            let steps = report["steps"].as_array().unwrap();
            assert!(!steps.is_empty());
            let headers = steps
                .iter()
                .flat_map(|step| step["sent"]["headers"].as_array().unwrap().iter());
            for header in headers {
                let header = header.as_str().unwrap();
                let is_secret = header.starts_with("authorization:");
                assert!(!is_secret || header == "authorization: Basic …", "{header}");
            }
        }
        sandbox.stop();
    }
}

#[test]
fn what_is_not_kept_is_told_by_the_exit_code() {
    let sandbox = Sandbox::start("native", &["--shoppers", "1"]);
    let code = |arguments: &[&str]| sandbox.standin(arguments).status.code();
    // Shopper 900 has no trip: nothing that fits is approved.
    let declined = ["bank", "trigger", "duplicate", "--shopper", "900"];
    assert_eq!(code(&declined), Some(4));
    let nobody = ["bank", "trigger", "approve", "--url", "http://127.0.0.1:1"];
    assert_eq!(code(&nobody), Some(1));
    assert_eq!(
        code(&["bank", "trigger", "approve", "--amount", "x"]),
        Some(2)
    );
    assert_eq!(code(&["bank", "send", "--amount", "20"]), Some(0));
    assert_eq!(code(&["bank", "send", "--amount", "2000"]), Some(3));
    assert_eq!(code(&["bank", "send", "--amount", "x"]), Some(4));
    sandbox.stop();
}

#[test]
fn a_sandbox_says_why_a_request_is_not_authentic_and_shows_no_secret() {
    let mut sandbox = Sandbox::start("stripe", &["--shopper-by", "cardholder"]);
    let secret = sandbox.word("secret").to_owned();
    let path = format!(
        "{}/v1/banks/{}/authorizations",
        sandbox.word("url"),
        sandbox.word("bank")
    );
    let curl = |headers: &[&str]| {
        let headers = headers.iter().flat_map(|header| ["-H", header]);
        let status = Command::new("curl")
            .args(["-sS", "-o", "/dev/null", &path, "-d", "{}"])
            .args(headers)
            .status();
        assert!(status.unwrap().success());
    };
    curl(&[]);
    curl(&["stripe-signature: t=1,v1=00"]);
    let sent = sandbox.standin(&["bank", "send", "--amount", "20", "--json"]);
    let shown: Value = serde_json::from_slice(&sent.stdout).unwrap();
    assert_eq!(
        (&shown["verdict"], &shown["reason"]),
        (&json!("approved"), &json!("within_cap")),
        "{shown}"
    );
    let lines = [sandbox.line(), sandbox.line(), sandbox.line()];
    let seen: Vec<_> = lines
        .iter()
        .map(|line| (&line["authentic"], &line["why_not"]))
        .collect();
    let (no, yes) = (json!(false), json!(true));
    let expected = [
        (&no, &json!("header")),
        (&no, &json!("old")),
        (&yes, &Value::Null),
    ];
    assert_eq!(seen, expected, "{lines:?}");
    assert_eq!(lines[2]["asked"]["card"], sandbox.word("cardholder"));
    for line in &lines {
        assert!(!line.to_string().contains(&secret), "{line}");
    }
    sandbox.stop();
}

#[test]
fn a_sandbox_speaks_every_scheme_and_keeps_to_loopback() {
    for signature in ["stripe", "http-message", "basic"] {
        let sandbox = Sandbox::start("native", &["--signature", signature]);
        let sent = sandbox.standin(&["bank", "send", "--amount", "20"]);
        assert_eq!(sent.status.code(), Some(0), "{signature}: {sent:?}");
        sandbox.stop();
    }
    let abroad = Command::new(PROGRAMS.standin)
        .args(["bank", "listen", "--listen", "0.0.0.0:0"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(abroad.status.code(), Some(1));
    assert!(text(&abroad.stderr).contains("loopback"));
}
