use standin_core::policy::EXAMPLE;

use super::*;

fn edge(name: &str, fingerprint: &str, judged: u64, over_cap: u64) -> (String, Option<Shown>) {
    let difference = Difference {
        bank: "first".to_owned(),
        rules: "primary".to_owned(),
        active: "over_cap".to_owned(),
        proposed: "within_cap".to_owned(),
        loosens: true,
        count: over_cap,
        amount_minor: 100,
    };
    let shown = Shown {
        version: 2,
        fingerprint: fingerprint.to_owned(),
        since: "2026-11-30T00:00:00.000Z".to_owned(),
        judged,
        differences: vec![difference],
    };
    (name.to_owned(), Some(shown))
}

#[test]
fn edges_that_try_something_else_are_named_and_not_counted() {
    let edges = [
        edge("a", "one", 10, 3),
        edge("b", "one", 5, 4),
        edge("c", "other", 100, 50),
        ("d".to_owned(), None),
    ];
    let sum = Shadowed::sum(&edges);
    assert_eq!((sum.judged, sum.version, sum.edges), (15, Some(2), 4));
    assert_eq!(sum.apart, ["c", "d"]);
    assert_eq!(sum.differences.len(), 1);
    let one = &sum.differences[0];
    assert_eq!((one.count, one.amount_minor, one.loosens), (7, 200, true));
    let none = Shadowed::sum(&[("d".to_owned(), None)]);
    assert_eq!((none.version, none.apart.len()), (None, 1));
}

/// A folder with the example as active policy and, proposed, the example with other texts.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("policy.toml"), EXAMPLE).unwrap();
        Self(folder)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> Policy {
        policy(&self.at(name)).unwrap()
    }

    /// The example as version `version` with `from` replaced by `to`.
    fn propose(&self, version: u32, from: &str, to: &str, replace: bool) -> anyhow::Result<u8> {
        assert!(EXAMPLE.contains(from));
        let text = EXAMPLE.replacen("version = 1", &format!("version = {version}"), 1);
        let file = self.at("new.toml");
        std::fs::write(&file, text.replacen(from, to, 1)).unwrap();
        let args = ProposeArgs {
            file,
            active: self.active(),
            replace,
            json: true,
        };
        args.run()
    }

    fn active(&self) -> ActiveArgs {
        ActiveArgs {
            policy: self.at("policy.toml"),
        }
    }

    async fn promote(&self, step: bool) -> anyhow::Result<u8> {
        let args = PromoteArgs {
            active: self.active(),
            signature: crate::admin::Signature {
                operator: "ada".to_owned(),
                reason: "because".to_owned(),
            },
            admin: Vec::new(),
            tls: TlsArgs::default(),
            unseen: true,
            step,
            json: true,
        };
        args.run().await
    }
}

fn refused(done: anyhow::Result<u8>) -> Refused {
    done.unwrap_err().downcast().unwrap()
}

#[tokio::test]
async fn a_proposal_is_promoted_whole_and_the_version_before_is_kept() {
    let folder = Folder::new();
    assert!(matches!(
        refused(folder.promote(false).await),
        Refused::Nothing(_)
    ));
    let (from, to) = (r#"percent = "10""#, r#"percent = "12""#);
    assert_eq!(folder.propose(2, from, to, false).unwrap(), 0);
    assert_eq!(folder.read("policy.toml").version, 1);
    assert_eq!(folder.promote(false).await.unwrap(), 0);
    let active = folder.read("policy.toml");
    let change = active.change.clone().unwrap();
    assert_eq!((active.version, change.replaces), (2, 1));
    assert_eq!(change.operator, "ada");
    assert_eq!(change.reason, "because (no edge has tried it)");
    assert_eq!(active.thresholds.default_threshold().percent_bp, 1_200);
    assert_eq!(
        std::fs::read_to_string(folder.at("policy.v1.toml")).unwrap(),
        EXAMPLE
    );
    assert!(!folder.at("policy.proposed.toml").exists());
}

#[tokio::test]
async fn what_goes_too_far_is_refused_and_goes_in_steps() {
    let folder = Folder::new();
    let (from, to) = (r#"percent = "10""#, r#"percent = "21""#);
    folder.propose(2, from, to, false).unwrap();
    let error = refused(folder.promote(false).await);
    assert!(
        matches!(error, Refused::Promote(PromoteError::Beyond { ref beyond }) if beyond.len() == 1)
    );
    // Nothing has changed.
    assert_eq!(
        std::fs::read_to_string(folder.at("policy.toml")).unwrap(),
        EXAMPLE
    );
    for (version, percent_bp, rest) in [(2, 1_500, Some(3)), (3, 2_000, Some(4)), (4, 2_100, None)]
    {
        assert_eq!(folder.promote(true).await.unwrap(), 0);
        let active = folder.read("policy.toml");
        assert_eq!(active.version, version);
        assert_eq!(active.thresholds.default_threshold().percent_bp, percent_bp);
        let proposed = folder.at("policy.proposed.toml");
        let left = proposed
            .exists()
            .then(|| policy(&proposed).unwrap().version);
        assert_eq!(left, rest);
    }
    assert!(matches!(
        refused(folder.promote(true).await),
        Refused::Nothing(_)
    ));
}

#[tokio::test]
async fn only_a_later_version_with_other_tolerances_is_proposed() {
    let folder = Folder::new();
    let (from, to) = (r#"percent = "10""#, r#"percent = "12""#);
    let error = refused(folder.propose(1, from, to, false));
    assert!(matches!(
        error,
        Refused::Promote(PromoteError::Version { .. })
    ));
    let error = refused(folder.propose(2, r#"floor = "75.00""#, r#"floor = "76.00""#, false));
    assert!(matches!(
        error,
        Refused::Promote(PromoteError::Other("isolated"))
    ));
    let error = refused(folder.propose(2, from, r#"percent = "101""#, false));
    assert!(matches!(error, Refused::Policy { .. }));
    assert!(!folder.at("policy.proposed.toml").exists());
    folder.propose(2, from, to, false).unwrap();
    // The same again changes nothing; another one must say so.
    folder.propose(2, from, to, false).unwrap();
    let other = r#"percent = "13""#;
    assert!(matches!(
        refused(folder.propose(2, from, other, false)),
        Refused::Other(_)
    ));
    folder.propose(2, from, other, true).unwrap();
    let withdraw = || {
        WithdrawArgs {
            active: folder.active(),
        }
        .run()
    };
    assert_eq!(withdraw().unwrap(), 0);
    assert!(matches!(refused(withdraw()), Refused::Nothing(_)));
}
