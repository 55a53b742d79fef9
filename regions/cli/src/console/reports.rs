//! What lies in the folder of reports: the last reconciliation, the last drill.
//!
//! Read tolerantly: a report of another build, or one that is being written, is no reason for the
//! console to fail. What was read before stays until something else reads.

use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;
use standin_core::money::{Currency, Money};

use super::edge_page::cut;

/// Things in the folder that are looked at.
const ENTRIES_MAX: usize = 500;
/// A longer file is not read.
const BYTES_MAX: u64 = 32 << 20;
/// Findings that are shown; all are counted.
const FINDINGS_SHOWN: usize = 20;

/// What the folder holds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Reports {
    /// The newest reconciliation.
    pub reconciliation: Option<LastRun>,
    /// The newest drill.
    pub drill: Option<Drill>,
    /// What could not be read.
    pub trouble: Option<String>,
}

/// A reconciliation that ran.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct LastRun {
    /// Its report.
    pub file: String,
    /// When it ended, as it says itself.
    pub ended_at: String,
    /// Final answers that it matched.
    pub answers: Option<u64>,
    /// Outages that it proved.
    pub outages: Option<u64>,
    /// What does not fit, as far as it is shown here.
    pub findings: Vec<FindingLine>,
    /// All of it.
    pub findings_all: u64,
}

/// A finding, as it is shown.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct FindingLine {
    /// What sort.
    pub kind: String,
    /// The payment it is about.
    pub payment: String,
    /// What was found.
    pub detail: String,
    /// Money at stake.
    pub at_stake: String,
}

/// A drill, or several in a row.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Drill {
    /// Its report.
    pub file: String,
    /// Which.
    pub name: String,
    /// When it began, as it says itself.
    pub started_at: String,
    /// What it is doing; of one that ended, nothing.
    pub doing: String,
    /// What came of it; absent while it runs.
    pub verdict: Option<String>,
    /// Whether it went as expected; absent while it runs.
    pub ok: Option<bool>,
}

/// Reads the folder again and again, and only what changed.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    read: [Option<(PathBuf, SystemTime, u64)>; 2],
    found: Reports,
}

// === impl Folder ===

impl Folder {
    /// Reports lie here, or in folders in it.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            read: [None, None],
            found: Reports::default(),
        }
    }

    /// What lies in it now.
    pub fn look(&mut self) -> Reports {
        self.found.trouble = None;
        let looked = self.look_for("report.json", 0).and_then(|found| {
            if let Some((file, value)) = found {
                match LastRun::of(&file, &value) {
                    Some(run) => self.found.reconciliation = Some(run),
                    None => return Err(unreadable(&file, "not a reconciliation's report")),
                }
            }
            Ok(())
        });
        let drill = self.look_for("drill.json", 1).map(|found| {
            if let Some((file, value)) = found {
                self.found.drill = Some(Drill::of(&file, &value));
            }
        });
        if let Err(error) = looked.and(drill) {
            self.found.trouble = Some(cut(&error.to_string()));
        }
        self.found.clone()
    }

    /// The newest file of a name, if it is another than before.
    fn look_for(&mut self, name: &str, slot: usize) -> io::Result<Option<(PathBuf, Value)>> {
        let Some((file, metadata)) = newest(&self.dir, name)? else {
            return Ok(None);
        };
        let seen = (file.clone(), metadata.modified()?, metadata.len());
        let Some(read) = self
            .read
            .get_mut(slot)
            .filter(|read| **read != Some(seen.clone()))
        else {
            return Ok(None);
        };
        if metadata.len() > BYTES_MAX {
            return Err(unreadable(&file, "too long"));
        }
        let bytes = fs::read(&file)?;
        let value = serde_json::from_slice(&bytes)
            .map_err(|_| unreadable(&file, "not JSON, or still being written"))?;
        *read = Some(seen);
        Ok(Some((file, value)))
    }
}

// === impl LastRun ===

impl LastRun {
    /// Of a reconciliation's report, or one that has such a report in it.
    fn of(file: &Path, report: &Value) -> Option<Self> {
        let run = report.get("reconciliation").unwrap_or(report);
        let listed = run.get("findings")?.as_array()?;
        let unlisted = run.get("findings_unlisted").and_then(Value::as_u64);
        let counted = u64::try_from(listed.len()).unwrap_or(u64::MAX);
        let count = |name: &str| run.pointer(name).and_then(Value::as_u64);
        let answers = count("/totals/all/approved").zip(count("/totals/all/declined"));
        let outages = run.get("outages").and_then(Value::as_array);
        Some(Self {
            file: file.display().to_string(),
            ended_at: text(run, "ended_at"),
            answers: answers.map(|(approved, declined)| approved.saturating_add(declined)),
            outages: outages.and_then(|outages| u64::try_from(outages.len()).ok()),
            findings: listed
                .iter()
                .take(FINDINGS_SHOWN)
                .map(FindingLine::of)
                .collect(),
            findings_all: counted.saturating_add(unlisted.unwrap_or(0)),
        })
    }
}

// === impl FindingLine ===

impl FindingLine {
    fn of(finding: &Value) -> Self {
        let minor = finding.get("amount_minor").and_then(Value::as_i64);
        let currency: Option<Currency> = text(finding, "currency").parse().ok();
        Self {
            kind: text(finding, "kind"),
            payment: text(finding, "transaction_id"),
            detail: text(finding, "detail"),
            at_stake: minor
                .zip(currency)
                .map_or_else(String::new, |(minor, currency)| {
                    Money::from_minor(minor, currency).to_string()
                }),
        }
    }
}

// === impl Drill ===

impl Drill {
    fn of(file: &Path, report: &Value) -> Self {
        let first = |names: &[&str]| {
            let texts = names.iter().map(|name| text(report, name));
            texts
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default()
        };
        let broken = broken(report);
        let ok = report.get("ok").and_then(Value::as_bool);
        let ok = ok.or_else(|| broken.as_ref().map(Vec::is_empty));
        let ended = !first(&["ended_at", "finished_at"]).is_empty();
        let told = Some(first(&["verdict"])).filter(|verdict| !verdict.is_empty());
        let verdict = told.or_else(|| {
            let words = match (ok, broken) {
                (Some(true), _) => "✓ as expected".to_owned(),
                (Some(false), Some(broken)) if !broken.is_empty() => {
                    cut(&format!("✗ not as expected: {}", broken.join(", ")))
                }
                (Some(false), _) => "✗ not as expected".to_owned(),
                (None, _) => "ended".to_owned(),
            };
            (ended || ok.is_some()).then_some(words)
        });
        Self {
            file: file.display().to_string(),
            name: Some(first(&["name", "drill", "title"]))
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "drill".to_owned()),
            started_at: first(&["started_at"]),
            doing: first(&["phase", "step"]),
            verdict,
            ok,
        }
    }

    /// Whether it is not over.
    pub fn runs(&self) -> bool {
        self.verdict.is_none()
    }
}

/// Which expectations and promises were not kept; `None` of a report that speaks of neither. One that
/// judged none of a sort has shown nothing.
fn broken(report: &Value) -> Option<Vec<String>> {
    let judged = ["verdicts", "checks"].map(|name| report.get(name).and_then(Value::as_array));
    let judged: Vec<&Vec<Value>> = judged.into_iter().flatten().collect();
    if judged.is_empty() {
        return None;
    }
    if judged.iter().any(|checks| checks.is_empty()) {
        return Some(vec!["nothing was judged".to_owned()]);
    }
    let checks = judged.into_iter().flatten();
    let failed = checks.filter(|check| check.get("ok").and_then(Value::as_bool) != Some(true));
    Some(failed.map(|check| text(check, "id")).collect())
}

/// The newest file of this name in a folder, or in the folders in it.
fn newest(dir: &Path, name: &str) -> io::Result<Option<(PathBuf, Metadata)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let inside = entries
        .take(ENTRIES_MAX)
        .filter_map(Result::ok)
        .map(|entry| entry.path().join(name));
    let files = std::iter::once(dir.join(name)).chain(inside);
    let found = files.filter_map(|file| {
        let metadata = fs::metadata(&file).ok().filter(Metadata::is_file)?;
        Some((metadata.modified().ok()?, file, metadata))
    });
    let newest = found.max_by(|(a, a_file, _), (b, b_file, _)| (a, a_file).cmp(&(b, b_file)));
    Ok(newest.map(|(_, file, metadata)| (file, metadata)))
}

fn text(of: &Value, name: &str) -> String {
    of.get(name)
        .and_then(Value::as_str)
        .map_or_else(String::new, cut)
}

fn unreadable(file: &Path, why: &str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, format!("{}: {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn write(dir: &Path, name: &str, value: &Value) {
        fs::create_dir_all(dir.join(name).parent().unwrap()).unwrap();
        fs::write(dir.join(name), value.to_string()).unwrap();
    }

    #[test]
    fn the_newest_report_is_shown_and_one_half_written_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path().join("not-there"));
        assert_eq!(folder.look(), Reports::default());
        let mut folder = Folder::new(dir.path().to_owned());
        assert_eq!(folder.look(), Reports::default());
        let finding = json!({
            "kind": "missing", "transaction_id": "ab", "detail": "no row", "amount_minor": 1_250,
            "currency": "USD", "of_another_build": 1,
        });
        let run = json!({
            "ended_at": "2026-11-30T20:00:00.000Z", "findings": [finding], "findings_unlisted": 4,
            "totals": {"all": {"approved": 7, "declined": 3}}, "outages": [{}],
        });
        write(dir.path(), "nightly/report.json", &run);
        let found = folder.look().reconciliation.unwrap();
        assert_eq!(
            (found.findings_all, found.answers, found.outages),
            (5, Some(10), Some(1))
        );
        assert_eq!(found.findings[0].at_stake, "12.50 USD");
        assert_eq!(found.findings[0].kind, "missing");

        fs::write(dir.path().join("report.json"), "{\"ended_at\":").unwrap();
        let half = folder.look();
        assert_eq!(half.reconciliation, Some(found));
        assert!(half.trouble.unwrap().contains("report.json"));

        let demo = json!({"title": "demo", "reconciliation": {"findings": []}});
        write(dir.path(), "report.json", &demo);
        let now = folder.look();
        assert_eq!(now.trouble, None);
        assert_eq!(now.reconciliation.unwrap().findings_all, 0);
    }

    #[test]
    fn a_drill_runs_until_it_has_a_verdict() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = Folder::new(dir.path().to_owned());
        let began = json!({"name": "primary-kill", "started_at": "t", "phase": "inject"});
        write(dir.path(), "drill.json", &began);
        let drill = folder.look().drill.unwrap();
        assert!(drill.runs());
        assert_eq!(
            (drill.name.as_str(), drill.doing.as_str()),
            ("primary-kill", "inject")
        );
        let over = json!({"name": "primary-kill", "ok": false, "ended_at": "u"});
        write(dir.path(), "drill.json", &over);
        let drill = folder.look().drill.unwrap();
        assert_eq!(drill.verdict.as_deref(), Some("✗ not as expected"));
        let judged = |ok: bool| {
            let check = |id: &str, ok: bool| json!({"id": id, "ok": ok, "detail": "seen"});
            let report = json!({
                "name": "region-lost", "phases": [], "verdicts": [check("injected", true), check("L1", ok)],
                "checks": [check("S1", ok)],
            });
            Drill::of(Path::new("x"), &report)
        };
        assert_eq!(judged(true).verdict.as_deref(), Some("✓ as expected"));
        let failed = judged(false);
        assert_eq!(failed.verdict.as_deref(), Some("✗ not as expected: L1, S1"));
        assert_eq!((failed.runs(), failed.ok), (false, Some(false)));
        let nothing = json!({"verdicts": [], "checks": []});
        assert_eq!(Drill::of(Path::new("x"), &nothing).ok, Some(false));
        assert!(!Drill::of(Path::new("x"), &json!({"verdict": "Held."})).runs());
    }
}
