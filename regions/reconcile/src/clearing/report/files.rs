//! The files of a settlement report. Each is written beside its name and moved there when it is
//! whole, so that a run that is killed leaves no half of one.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use standin_core::ledger::clearing::CaseState;

use super::super::file::BadLine;
use super::{FindingLine, SettlementReport, html};

/// Where discrepancies and bad lines go as they are found.
pub trait Sink: Send {
    /// Takes a discrepancy.
    ///
    /// # Errors
    /// When it cannot be written.
    fn finding(&mut self, finding: &FindingLine) -> io::Result<()>;

    /// Takes a bad line.
    ///
    /// # Errors
    /// When it cannot be written.
    fn bad_line(&mut self, bad: &BadLine) -> io::Result<()>;
}

/// A folder of report files.
pub struct ReportFiles {
    folder: PathBuf,
    findings: Part,
    bad_lines: Part,
}

/// A file that is not there yet.
struct Part {
    csv: csv::Writer<BufWriter<File>>,
    part: PathBuf,
    name: PathBuf,
}

const FINDING_COLUMNS: [&str; 24] = [
    "id",
    "kind",
    "state",
    "owner",
    "age",
    "at",
    "transaction_id",
    "line",
    "shopper",
    "trip",
    "store",
    "rung",
    "why",
    "log",
    "log_index",
    "log_slot",
    "currency",
    "picked",
    "cap",
    "authorized",
    "cleared",
    "receipt",
    "at_stake",
    "detail",
];

// === impl ReportFiles ===

impl ReportFiles {
    /// Begins the files of a report in a folder, which is made if it is not there.
    ///
    /// # Errors
    /// When the folder or a file cannot be made.
    pub fn create(folder: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            findings: Part::create(folder, "findings.csv", &FINDING_COLUMNS)?,
            bad_lines: Part::create(folder, "bad-lines.csv", &["line", "column", "reason"])?,
        })
    }

    /// Ends the files, and writes `settlement.json` and `settlement.html` beside them.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn finish(self, report: &SettlementReport) -> io::Result<()> {
        self.findings.finish()?;
        self.bad_lines.finish()?;
        let json = serde_json::to_vec_pretty(report).map_err(io::Error::other)?;
        whole(&self.folder, "settlement.json", &json)?;
        let page = html::settlement(report).map_err(io::Error::other)?;
        whole(&self.folder, "settlement.html", page.as_bytes())
    }

    /// Takes away what was begun.
    pub fn abandon(self) {
        for part in [&self.findings, &self.bad_lines] {
            // It is in nobody's way if it stays.
            drop(std::fs::remove_file(&part.part));
        }
    }
}

impl Sink for ReportFiles {
    fn finding(&mut self, finding: &FindingLine) -> io::Result<()> {
        fn text<T: ToString>(value: Option<T>) -> String {
            value.map(|value| value.to_string()).unwrap_or_default()
        }
        let row = [
            finding.id.to_string(),
            finding.kind.as_str().to_owned(),
            CaseState::as_str(finding.state).to_owned(),
            finding.owner.clone().unwrap_or_default(),
            finding.age.as_str().to_owned(),
            finding.at.clone(),
            text(finding.transaction_id),
            text(finding.line),
            text(finding.shopper),
            text(finding.trip),
            text(finding.store),
            text(finding.rung),
            text(finding.why),
            text(finding.log),
            text(finding.log_index),
            text(finding.log_slot),
            finding.currency.to_string(),
            text(finding.picked),
            text(finding.cap),
            text(finding.authorized),
            text(finding.cleared),
            text(finding.receipt),
            finding.at_stake.to_string(),
            finding.detail.clone(),
        ];
        self.findings.csv.write_record(row).map_err(io::Error::from)
    }

    fn bad_line(&mut self, bad: &BadLine) -> io::Result<()> {
        let row = [bad.line.to_string(), bad.column.clone(), bad.reason.clone()];
        self.bad_lines
            .csv
            .write_record(row)
            .map_err(io::Error::from)
    }
}

// === impl Part ===

impl Part {
    fn create(folder: &Path, name: &str, columns: &[&str]) -> io::Result<Self> {
        let part = part_of(folder, name);
        let file = File::create(&part)?;
        let mut csv = csv::Writer::from_writer(BufWriter::new(file));
        csv.write_record(columns).map_err(io::Error::from)?;
        Ok(Self {
            csv,
            part,
            name: folder.join(name),
        })
    }

    fn finish(self) -> io::Result<()> {
        let buffered = self.csv.into_inner().map_err(|error| error.into_error())?;
        let file = buffered.into_inner().map_err(|error| error.into_error())?;
        file.sync_all()?;
        std::fs::rename(&self.part, &self.name)
    }
}

fn whole(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let part = part_of(folder, name);
    let mut file = File::create(&part)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&part, folder.join(name))
}

/// Two runs into one folder do not write into one file.
fn part_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!(".{name}.{}.part", std::process::id()))
}
