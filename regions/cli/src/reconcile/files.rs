//! Where reports of runs go: one folder, or a shelf of folders that keeps the last ones.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use standin_reconcile::report::reconciliation::Reconciliation;
use standin_reconcile::report::{csv, html};
use uuid::Uuid;

/// The page of a report's folder.
pub(crate) const PAGE: &str = "report.html";
/// A time, to the millisecond: `20261201T001048.123Z`.
const TIME_CHARS: usize = 20;
/// What tells two runs of one millisecond apart.
const TAIL_CHARS: usize = 8;

/// A folder with a folder for each of the last runs, under names that sort by time.
#[derive(Clone, Debug)]
pub(crate) struct Shelf {
    /// Where.
    pub(crate) dir: PathBuf,
    /// How many are kept.
    pub(crate) keep: usize,
}

// === impl Shelf ===

impl Shelf {
    /// Puts a report there, whole or not at all, and takes the oldest away. Others may use the same
    /// shelf meanwhile.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn put(&self, report: &Reconciliation) -> anyhow::Result<PathBuf> {
        let place = || format!("cannot write to {}", self.dir.display());
        let name = name_of(report);
        let (part, folder) = (self.dir.join(format!(".{name}.part")), self.dir.join(&name));
        write(&part, report)?;
        std::fs::rename(&part, &folder).with_context(place)?;
        self.prune().with_context(place)?;
        Ok(folder)
    }

    /// Only what has a name of ours is taken away.
    fn prune(&self) -> std::io::Result<()> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            let name = entry?.file_name();
            names.extend(
                name.to_str()
                    .filter(|name| is_ours(name))
                    .map(str::to_owned),
            );
        }
        names.sort_unstable();
        let surplus = names.len().saturating_sub(self.keep);
        for name in names.iter().take(surplus) {
            match std::fs::remove_dir_all(self.dir.join(name)) {
                // Another one that keeps this shelf took it away.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                removed => removed?,
            }
        }
        Ok(())
    }
}

/// Writes a report into a folder, which is made if it is not there.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write(dir: &Path, report: &Reconciliation) -> anyhow::Result<()> {
    let place = || format!("cannot write to {}", dir.display());
    std::fs::create_dir_all(dir).with_context(place)?;
    let json = serde_json::to_vec_pretty(report)?;
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.join(name), bytes).with_context(place);
    put("report.json", &json)?;
    put("findings.csv", csv::findings(report)?.as_bytes())?;
    put(PAGE, html::reconciliation(report)?.as_bytes())
}

fn name_of(report: &Reconciliation) -> String {
    let time: String = report
        .ended_at
        .chars()
        .filter(|letter| !matches!(letter, '-' | ':'))
        .collect();
    let tail = Uuid::new_v4().simple().to_string();
    format!("{time}-{}", tail.get(..TAIL_CHARS).unwrap_or_default())
}

fn is_ours(name: &str) -> bool {
    let Some((time, tail)) = name.split_once('-') else {
        return false;
    };
    let fits = |letter: char| letter.is_ascii_digit() || matches!(letter, 'T' | '.' | 'Z');
    time.len() == TIME_CHARS
        && time.chars().all(fits)
        && tail.len() == TAIL_CHARS
        && tail.chars().all(|letter| letter.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use standin_core::clock::Timestamp;

    fn report(ended_at: i64) -> Reconciliation {
        let at = Timestamp::from_millis(ended_at).to_string();
        let report = serde_json::json!({
            "started_at": at, "ended_at": at, "logs": [], "outages": [], "elsewhere": 0,
            "totals": standin_reconcile::totals::Totals::default(),
            "late": standin_reconcile::totals::Line::default(),
            "holds": standin_reconcile::report::reconciliation::HoldFigures::default(),
            "variance": standin_reconcile::report::reconciliation::Variance::default(),
            "exposure": standin_reconcile::report::reconciliation::Exposure::default(),
            "findings": [], "findings_unlisted": 0,
        });
        serde_json::from_value(report).unwrap()
    }

    #[test]
    fn a_shelf_keeps_the_last_and_touches_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = Shelf {
            dir: folder.path().join("runs"),
            keep: 2,
        };
        let others = [
            "notes",
            "20261201T001048.123Z",
            "20261201T001048.123Z-notours",
        ];
        for other in others {
            std::fs::create_dir_all(shelf.dir.join(other)).unwrap();
        }
        // On a second, too: the names are as long as each other.
        let times = [
            1_796_083_848_123,
            1_796_083_849_000,
            1_796_083_849_000,
            1_796_083_850_001,
        ];
        let put = times.map(|at| shelf.put(&report(at)).unwrap());
        let names = || {
            let entries = std::fs::read_dir(&shelf.dir).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort_unstable();
            names
        };
        let left: Vec<String> = names().into_iter().filter(|name| is_ours(name)).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        let last = put.last().unwrap();
        assert_eq!(shelf.dir.join(left.last().unwrap()), *last);
        for name in ["report.json", "report.html", "findings.csv"] {
            assert!(last.join(name).is_file(), "{name}");
        }
        assert_eq!(names().len(), left.len() + others.len());
    }
}
