use super::*;

fn check(code: &str, phase: Phase, fate: Fate, retry: Retry, why: Why) {
    let ruling = ruling(code, phase);
    assert_eq!(
        (ruling.fate, ruling.retry, ruling.why),
        (fate, retry, why),
        "{code} {phase:?}"
    );
}

#[test]
fn each_failure_of_a_primary_is_ruled() {
    use Phase::{Before, Commit};
    // Surely not done, whatever the phase: the server refused or rolled back.
    for (code, retry, why) in [
        ("25006", Later, ApplicationError),
        ("22012", Later, ApplicationError),
        ("53100", Later, ApplicationError),
        ("53200", Later, ApplicationError),
        ("53300", Later, Connection),
        ("55P03", Now, Timeout),
        ("57014", Later, Timeout),
        ("57P03", Later, Connection),
        ("40001", Now, ApplicationError),
        ("40P01", Now, ApplicationError),
        ("23505", Now, ApplicationError),
        ("23514", Never, ApplicationError),
        ("22021", Never, ApplicationError),
        ("22P05", Never, ApplicationError),
        ("22003", Never, ApplicationError),
        ("0A000", Now, ApplicationError),
        ("26000", Now, ApplicationError),
        ("42P01", Later, ApplicationError),
        ("42601", Never, ApplicationError),
        ("28P01", Later, Connection),
        ("3D000", Later, Connection),
    ] {
        check(code, Before, NotDone, retry, why);
        check(code, Commit, NotDone, retry, why);
    }
    // A COMMIT in flight may have taken effect.
    for (code, why) in [
        ("57P01", Connection),
        ("57P02", Connection),
        ("08000", Connection),
        ("08006", Connection),
        ("58030", ApplicationError),
        ("XX000", ApplicationError),
        ("XX001", ApplicationError),
        ("ZZ999", ApplicationError),
    ] {
        check(code, Before, NotDone, Later, why);
        check(code, Commit, Unknown, Later, why);
    }
    assert_eq!(broken(Before).fate, NotDone);
    assert_eq!(broken(Commit).fate, Unknown);
}

#[test]
fn every_row_can_be_reached_and_rules_before_commit_as_not_done() {
    for (at, row) in TABLE.iter().enumerate() {
        let first = TABLE
            .iter()
            .position(|other| row.code.starts_with(other.code));
        assert_eq!(first, Some(at), "{} is shadowed", row.code);
        assert!(row.code.len() == 2 || row.code.len() == 5, "{}", row.code);
        assert_eq!(
            ruling(row.code, Phase::Before).fate,
            NotDone,
            "{}",
            row.code
        );
        assert_eq!(
            ruling(row.code, Phase::Commit).fate,
            row.commit,
            "{}",
            row.code
        );
    }
}

#[test]
fn a_connection_to_a_server_that_is_no_primary_is_not_kept() {
    for code in ["25006", "22012"] {
        let connection = ruling(code, Phase::Before).connection;
        assert_eq!(connection, Keep::DropAll, "{code}");
    }
    for code in ["57P01", "57P02", "57P03", "08006", "53300", "XX000"] {
        assert_eq!(ruling(code, Phase::Before).connection, Keep::Drop, "{code}");
    }
    for code in ["55P03", "40001", "40P01", "57014", "23505", "22021"] {
        assert_eq!(ruling(code, Phase::Before).connection, Keep::Keep, "{code}");
    }
    assert_eq!(ruling("0A000", Phase::Before).connection, Keep::ForgetPlans);
}
