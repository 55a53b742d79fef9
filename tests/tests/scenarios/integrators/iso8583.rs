//! The same for a bank that speaks ISO 8583.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use standin_core::card_number::holds_card_number;
use standin_core::identity::DeploymentKey;

use super::{PROGRAMS, SCENARIOS, Sandbox, banks, text};

/// Of the sandbox's first shopper, as the networks publish it.
const NUMBER: &str = "4111111111111111";
fn kept(sandbox: &Sandbox, scenario: &str) -> Value {
    let output = sandbox.standin(&["bank", "trigger", scenario, "--json"]);
    let said = shows_no_card(&output);
    assert_eq!(output.status.code(), Some(0), "{scenario}: {said}");
    let report: Value = serde_json::from_str(&text(&output.stdout)).unwrap();
    assert_eq!(report["kept"], true, "{report}");
    report
}

fn shows_no_card(output: &Output) -> String {
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(!holds_card_number(&said), "{said}");
    said
}

#[test]
fn every_case_of_the_contract_is_kept_in_iso_8583() {
    for more in [
        &[] as &[&str],
        &[
            "--tls",
            "--encoding",
            "ascii-binary",
            "--card-acceptor",
            "mastercard",
        ],
    ] {
        let sandbox = Sandbox::start("iso8583", more);
        for scenario in SCENARIOS {
            // Without TLS nothing tells who sends.
            if scenario == "forged" && more.is_empty() {
                let output = sandbox.standin(&["bank", "trigger", scenario]);
                assert_eq!(output.status.code(), Some(2), "{output:?}");
                continue;
            }
            let report = kept(&sandbox, scenario);
            println!("iso8583 {more:?} {scenario}: {report}");
            for step in report["steps"].as_array().unwrap() {
                let kind = &step["sent"]["message"]["t"];
                assert!(kind.is_string(), "{step}");
            }
        }
        sandbox.stop();
    }
}

#[test]
fn a_message_of_iso_8583_is_sent_and_shown_without_its_card() {
    let mut sandbox = Sandbox::start("iso8583", &["--shoppers", "1"]);
    let sent = sandbox.standin(&["bank", "send", "--amount", "19"]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let line = sandbox.line();
    assert_eq!(line["authentic"], true, "{line}");
    assert_eq!(line["asked"]["amount"], "19.00", "{line}");
    assert_eq!(line["told"]["reason"], "within_cap", "{line}");
    assert!(!holds_card_number(&line.to_string()), "{line}");
    let send = |more: &[&str]| {
        let output = sandbox.standin(&[&["bank", "send"][..], more].concat());
        let said = shows_no_card(&output);
        println!("{more:?}: {}\n{said}", output.status);
        (output.status.code(), text(&output.stdout))
    };
    let key = ["--transaction-id", "1130101112-000001"];
    let first = send(&[&["--amount", "20"][..], &key].concat());
    assert_eq!(first.0, Some(0));
    assert!(
        first.1.contains("approved: 00 approved, 20.00"),
        "{}",
        first.1
    );
    // The same message is the same payment.
    assert_eq!(send(&[&["--amount", "20"][..], &key].concat()), first);
    assert_eq!(send(&[&["--amount", "21"][..], &key].concat()).0, Some(3));
    assert_eq!(send(&["--merchant-name", "Corner Hardware"]).0, Some(3));
    // Of a shopper who has no card there; and what no message holds.
    assert_eq!(send(&["--shopper", "900", "--amount", "20"]).0, Some(3));
    assert_eq!(send(&["--card", NUMBER, "--amount", "22"]).0, Some(0));
    assert_eq!(send(&["--card", "4111 1111 1111 1111"]).0, Some(2));
    assert_eq!(send(&["--amount", "x"]).0, Some(2));
    assert_eq!(send(&["--terminal-id", "TERMINAL-1"]).0, Some(2));
    let url = sandbox.word("url").replace("iso8583", "http");
    assert_eq!(send(&["--url", &url]).0, Some(2));
    assert_eq!(send(&["--url", "iso8583://127.0.0.1:1"]).0, Some(1));
    let echo = r#"{"t":"0800","7":"1130101112","11":"000002","70":"301"}"#;
    let (code, said) = send(&["--body", echo, "--json"]);
    let told: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(code, Some(0), "{told}");
    assert_eq!(told["got"]["t"], "0810");
    assert_eq!(told["got"]["39"], "00");
    sandbox.stop();
}

#[test]
fn a_bank_without_its_certificate_gets_no_answer() {
    let sandbox = Sandbox::start("iso8583", &["--tls", "--shoppers", "1"]);
    let plain = sandbox.word("url").replace("iso8583s", "iso8583");
    let code = |arguments: &[&str]| {
        let output = sandbox.standin(arguments);
        shows_no_card(&output);
        output.status.code()
    };
    assert_eq!(code(&["bank", "send", "--amount", "20"]), Some(0));
    assert_eq!(code(&["bank", "send", "--url", &plain]), Some(1));
    assert_eq!(
        code(&["bank", "trigger", "approve", "--url", &plain]),
        Some(1)
    );
    sandbox.stop();
}

#[test]
fn a_sandbox_is_over_tls_for_any_format_that_asks() {
    let sandbox = Sandbox::start("native", &["--tls", "--shoppers", "1"]);
    assert!(sandbox.word("url").starts_with("https://"));
    let sent = sandbox.standin(&["bank", "send", "--amount", "20"]);
    assert_eq!(sent.status.code(), Some(0), "{sent:?}");
    let mut command = sandbox.command(PROGRAMS.standin);
    command.args(["bank", "send", "--amount", "21"]);
    command
        .env_remove("STANDIN_CERTIFICATE")
        .env_remove("STANDIN_KEY");
    let nobodys = command.output().unwrap();
    assert_eq!(nobodys.status.code(), Some(1), "{nobodys:?}");
    sandbox.stop();
}

#[test]
fn the_sample_of_iso_8583_is_approved_by_a_real_edge() {
    let (page, file) = (
        banks().join("iso8583.md"),
        banks().join("samples/iso8583-tcp.py"),
    );
    let sample = std::fs::read_to_string(&file).unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.contains(&format!("```python\n{sample}```\n")));
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/clients/bin/python");
    assert!(python.exists(), "tests/run installs it");
    for more in [&[] as &[&str], &["--tls", "--encoding", "ascii-binary"]] {
        let sandbox = Sandbox::start("iso8583", more);
        let run = || {
            let program = python.display().to_string();
            let output = sandbox.command(&program).arg(&file).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            text(&output.stdout)
        };
        let said = run();
        assert!(said.starts_with("0110 00 "), "{said}");
        assert_eq!(run(), said, "the same message, the same answer");
        sandbox.stop();
    }
}

#[test]
fn a_number_from_standard_input_becomes_the_edges_token() {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("deployment.key");
    let key = b"what an edge makes tokens under".to_vec();
    std::fs::write(&key_file, STANDARD.encode(&key)).unwrap();
    let key = DeploymentKey::new(key).unwrap();
    let run = |input: &str, more: &[&str]| {
        let mut child = Command::new(PROGRAMS.standin)
            .args(["bank", "token", "--bank", "acme", "--deployment-key-file"])
            .arg(&key_file)
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        let said = shows_no_card(&output);
        (output.status.code(), said)
    };
    let token = key.card_token(&"acme".parse().unwrap(), NUMBER);
    let plain = run("4111 1111 1111 1111\n", &[]);
    assert_eq!(plain, (Some(0), format!("{token}\n")));
    let (code, json) = run(NUMBER, &["--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(code, Some(0));
    assert_eq!(json["token"], token);
    for wrong in ["", "4111111111111112", "4111111111111111\n4111111111111111"] {
        let (code, said) = run(wrong, &[]);
        assert_eq!(code, Some(2), "{said}");
        assert!(!said.contains("41111"), "{said}");
    }
}
