#![allow(clippy::too_many_lines, reason = "tables of cases")]

use super::*;

fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect()
}

fn fault(file: &str, pairs: &[(&str, &str)]) -> String {
    match Config::load(Some(file), env(pairs)) {
        Ok(_) => panic!("accepted"),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn the_example_is_accepted_and_says_where_each_value_came_from() {
    let (config, settings) = Config::load(
        Some(EXAMPLE),
        env(&[
            ("STANDIN_EDGE__WAL__DIR", "/var/lib/standin"),
            ("STANDIN_EDGE__BANKS__1__SLUG", "second"),
            (
                "STANDIN_EDGE__BANKS__1__SECRETS",
                "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX",
            ),
            ("STANDIN_EDGE__LIMITS__CONNECTIONS", "9"),
            ("STANDIN_EDGE__LIMITS__QUEUE_TARGET_MS", "20"),
            ("STANDIN_EDGE_PORT", "tcp://10.0.0.1:1"),
        ]),
    )
    .unwrap();
    assert_eq!(config.wal.dir, PathBuf::from("/var/lib/standin"));
    assert_eq!(config.server.connections, 9);
    assert_eq!(config.admission.target, Duration::from_millis(20));
    assert_eq!(config.admission.wait_max, Duration::from_millis(150));
    assert_eq!(config.admission.in_flight, 1_024);
    assert_eq!(config.admission.bank_percent, 50);
    assert_eq!(config.banks.len(), 2);
    assert_eq!(
        config.bank("second").unwrap().deadline,
        Duration::from_secs(1)
    );
    assert!(!config.drills.consent, "nobody consents by saying nothing");
    assert!(config.ledger.postgres.is_none() && config.trip_cache.redis.is_empty());
    let origin = |key: &str| {
        let shown = settings.shown();
        shown
            .iter()
            .find(|setting| setting.key == key)
            .map(|setting| setting.origin)
    };
    assert_eq!(origin("listen"), Some(Origin::File));
    assert_eq!(origin("wal.dir"), Some(Origin::Env));
    assert_eq!(origin("drain.batch"), Some(Origin::Default));
    assert_eq!(origin("banks.1.deadline_ms"), Some(Origin::Default));
}

#[test]
fn no_secret_is_shown() {
    let pairs = [
        ("STANDIN_EDGE__LEDGER__POSTGRES", "host=db password=hunter2"),
        (
            "STANDIN_EDGE__TRIP_CACHE__REDIS",
            "redis://:hunter2@a:1, redis://:hunter2@b:1",
        ),
    ];
    let (config, settings) = Config::load(Some(EXAMPLE), env(&pairs)).unwrap();
    assert_eq!(config.trip_cache.redis.len(), 2);
    let shown = format!("{config:?}\n{settings:?}\n{:?}", settings.shown());
    for secret in ["hunter2", "MfKQ9r8G", "c3RhbmRpb"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn a_fault_names_its_key_and_what_is_right() {
    let with = |line: &str| format!("{line}\n{EXAMPLE}");
    for (file, pairs, says) in [
        (with("listem = \"x\""), vec![], "listem (file): no such key"),
        (
            EXAMPLE.replace("deadline_ms =", "deadline ="),
            vec![],
            "banks.0.deadline (file): no such key",
        ),
        (
            EXAMPLE.replace("= 1000 ", "= \"1 s\" "),
            vec![],
            "banks.0.deadline_ms (file): must be a whole number",
        ),
        (
            EXAMPLE.replace("= 1000 ", "= 819 "),
            vec![],
            "banks.0.deadline_ms: must be at least trip_cache_ms",
        ),
        (
            EXAMPLE.replace("slug = \"first\"", "slug = \"First\""),
            vec![],
            "banks.0.slug: must be 1 to 32",
        ),
        (
            EXAMPLE.replace("\"USD\"", "\"XXX\""),
            vec![],
            "banks.0.currency: must be an ISO 4217 code",
        ),
        (
            EXAMPLE.replace("127.0.0.1:8481", "0.0.0.0:8481"),
            vec![],
            "admin_listen: must be a loopback",
        ),
        (
            EXAMPLE.replace("127.0.0.1:8480", "localhost"),
            vec![],
            "listen: must be an address",
        ),
        (
            EXAMPLE.replace("whsec_", ""),
            vec![],
            "banks.0.secrets: line 1: a secret begins with whsec_",
        ),
        (
            EXAMPLE.replace("c3Rhb", "c3R*b"),
            vec![],
            "deployment_key: must be 16 bytes",
        ),
        (
            EXAMPLE.replace("67108864", "67108865"),
            vec![],
            "wal.segment_bytes: must be a multiple of 4096",
        ),
        (
            EXAMPLE.replace("4294967296", "67108864"),
            vec![],
            "wal.budget_bytes: must hold four segments",
        ),
        (
            EXAMPLE.replace("\"auto\"", "\"on\""),
            vec![],
            "stand_in: must be auto, force or forbid",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__DRILLS__CONSENT", "true")],
            "drills.consent: must be yes or no",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__LIMITS__HEADERS", "7")],
            "limits.headers: must be from 8 to 1000",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__LIMITS__QUEUED", "0")],
            "limits.queued: must be from 1 to",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__LIMITS__HEADERS", "many")],
            "limits.headers (environment): must be a whole number",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__LIMIT__HEADERS", "8")],
            "limit.headers (environment): no such key; did you mean limits.headers?",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__BANKS__1__SLUG", "first")],
            "banks.1.secrets: one secret",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__DEPLOYMENT_KEY_FILE", "/nowhere/key")],
            "deployment_key_file: cannot read /nowhere/key",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__TELEMETRY__OTLP_ENDPOINT", "https://x")],
            "telemetry.otlp_endpoint: must be an http:// URL",
        ),
        (
            EXAMPLE.to_owned(),
            vec![("STANDIN_EDGE__TRIP_CACHE__REDIS", "a:1")],
            "trip_cache.redis: a Redis URL begins with",
        ),
        (
            "listen = ".to_owned(),
            vec![],
            "the file is not valid TOML at line 1",
        ),
        (String::new(), vec![], "deployment_key: must be 16 bytes"),
    ] {
        let said = fault(&file, &pairs);
        assert!(said.contains(says), "{said:?} does not say {says:?}");
    }
}

#[test]
fn a_lithic_bank_signs_what_names_its_payments() {
    let says = |scheme: &str| {
        let pairs = [
            ("STANDIN_EDGE__BANKS__0__ADAPTER", "lithic"),
            ("STANDIN_EDGE__BANKS__0__SIGNATURE", scheme),
        ];
        fault(EXAMPLE, &pairs)
    };
    for scheme in ["stripe", "basic"] {
        let said = says(scheme);
        let expected = "banks.0.signature: must be standard-webhooks or http-message";
        assert!(said.contains(expected), "{said}");
    }
    // It comes as far as the key, which wants an id.
    assert!(says("http-message").contains("banks.0.secrets: line 1"));
}

#[test]
fn a_syntax_error_does_not_quote_the_file() {
    let file = EXAMPLE.replace(
        "secrets = [\"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\"]",
        "secrets = [\"whsec_MfKQ9r8G",
    );
    let broken = file.lines().position(|line| line.contains("MfKQ")).unwrap() + 1;
    let said = fault(&file, &[]);
    // The array goes on, and its comma is missed on the line behind.
    let place = format!("line {}", broken + 1);
    assert!(said.contains(&place) && !said.contains("MfKQ"), "{said}");
}

#[test]
fn secrets_may_be_in_a_file_beside_those_given() {
    let path = std::path::Path::new("/run/secrets/first");
    let pairs = [(
        "STANDIN_EDGE__BANKS__0__SECRETS_FILE",
        path.to_str().unwrap(),
    )];
    let (config, _) = Config::load(Some(EXAMPLE), env(&pairs)).unwrap();
    let secrets = &config.bank("first").unwrap().secrets;
    assert_eq!(
        (secrets.given.len(), secrets.file.as_deref()),
        (1, Some(path))
    );
}

#[test]
fn a_listener_leaves_loopback_with_certificates_only_unless_it_is_told_to() {
    let door = [
        ("STANDIN_EDGE__TLS__CERTIFICATE", "door.pem"),
        ("STANDIN_EDGE__TLS__KEY", "door.key"),
    ];
    let admin = [
        ("STANDIN_EDGE__ADMIN_TLS__CERTIFICATE", "admin.pem"),
        ("STANDIN_EDGE__ADMIN_TLS__KEY", "admin.key"),
    ];
    let anywhere = ("STANDIN_EDGE__LISTEN", "0.0.0.0:8480");
    let admin_anywhere = ("STANDIN_EDGE__ADMIN_LISTEN", "0.0.0.0:8481");
    let operators = ("STANDIN_EDGE__ADMIN_TLS__OPERATORS_CA", "operators-ca.pem");
    let required = ("STANDIN_EDGE__BANKS__0__CLIENT_CERTIFICATE", "required");
    let banks_ca = ("STANDIN_EDGE__TLS__BANKS_CA", "banks-ca.pem");
    let load = |pairs: &[&[(&str, &str)]]| {
        Config::load(Some(EXAMPLE), env(&pairs.concat())).map(|(config, _)| config)
    };
    for (pairs, says) in [
        (
            vec![[anywhere].as_slice()],
            "listen: must be a loopback address without [tls]",
        ),
        (
            vec![&[("STANDIN_EDGE__LISTEN_PLAIN", "no")]],
            "listen_plain: must be loopback or anywhere",
        ),
        (
            vec![&door[..1]],
            "tls.certificate: certificate and key are given together",
        ),
        (
            vec![&[banks_ca]],
            "tls.certificate: certificate and key are given together",
        ),
        (
            vec![&[required]],
            "tls.certificate: is needed where a bank must show",
        ),
        (
            vec![&door, &[required]],
            "tls.banks_ca: is needed where a bank must show",
        ),
        (
            vec![&door, &[("STANDIN_EDGE__TLS__BANKS_CRL", "crl.pem")]],
            "tls.banks_crl: has no meaning without their authority",
        ),
        (
            vec![&door, &[("STANDIN_EDGE__TLS__VERSIONS", "1.1")]],
            "tls.versions: must be 1.3, or 1.2",
        ),
        (
            vec![&[admin_anywhere]],
            "admin_listen: must be a loopback address",
        ),
        (vec![&admin], "admin_tls.operators_ca: is needed"),
        (
            vec![&[("STANDIN_EDGE__BANKS__0__SIGNATURE", "none")]],
            "banks.0.signature: must be standard-webhooks, stripe",
        ),
        (
            vec![&[
                ("STANDIN_EDGE__BANKS__0__SIGNATURE", "basic"),
                ("STANDIN_EDGE__BANKS__0__SECRETS", "marqeta:0123456789"),
            ]],
            "banks.0.signature: basic signs nothing",
        ),
    ] {
        let said = load(&pairs).unwrap_err().to_string();
        assert!(said.contains(says), "{said:?} does not say {says:?}");
    }
    for pairs in [
        vec![[anywhere, ("STANDIN_EDGE__LISTEN_PLAIN", "anywhere")].as_slice()],
        vec![&door, &[anywhere]],
        vec![&door, &[banks_ca, required, anywhere]],
        vec![&admin, &[operators, admin_anywhere]],
    ] {
        load(&pairs).unwrap();
    }
    let one_of_all = load(&[&door, &[banks_ca, required]]).unwrap().tls.unwrap();
    assert_eq!(one_of_all.clients, crate::server::tls::Clients::Certified);
}
