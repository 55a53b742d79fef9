//! From the file to the ledger: once to see whether it is to be trusted, once more to stage it.

use std::path::Path;

use uuid::Uuid;

use standin_core::identity::record_id;
use standin_core::ledger::clearing::{
    CLEARING_ROWS_MAX, ClearingFile, FileState, StageStep, StagedLine,
};

use super::super::file::{BadLine, FileError, FileSums, ReadLine, Reader};
use super::super::report::LISTED_MAX;
use super::{Job, JobError, Progress};

/// Records read between looks at the clock, and staged in one transaction.
const BATCH: usize = CLEARING_ROWS_MAX;

/// A batch of records in the file's order.
type Batch = Vec<ReadLine>;

impl Job<'_> {
    /// Reads the file to its end: its hash, its sums, whether its trailer confirms them, and what is
    /// bad.
    pub(super) async fn check_file(&mut self) -> Result<(FileSums, Vec<BadLine>), JobError> {
        let mut reader = self.open(Uuid::nil())?;
        let (mut bad_lines, mut records) = (Vec::new(), 0_u64);
        loop {
            let (back, batch) = next(reader).await?;
            reader = back;
            if batch.is_empty() {
                break;
            }
            records = records.saturating_add(u64::try_from(batch.len()).unwrap_or(u64::MAX));
            for read in batch {
                if let ReadLine::Bad(bad) = read {
                    self.sink.bad_line(&bad)?;
                    if bad_lines.len() < LISTED_MAX {
                        bad_lines.push(bad);
                    }
                }
            }
            (self.progress)(Progress::Checked(records));
        }
        Ok((reader.finish()?, bad_lines))
    }

    /// Stages what is not staged yet, and lets the file count.
    pub(super) async fn stage(&mut self, sums: &FileSums) -> Result<ClearingFile, JobError> {
        let books = &self.inputs.books;
        let mut file = self.call(books.open_file(self.file(sums))).await?;
        if file.state == FileState::Staging {
            self.stage_lines(&mut file, sums).await?;
        }
        if file.state != FileState::Complete {
            self.call(books.complete_file(file.id)).await?;
        }
        Ok(file)
    }

    async fn stage_lines(
        &mut self,
        file: &mut ClearingFile,
        sums: &FileSums,
    ) -> Result<(), JobError> {
        let mut reader = self.open(file.id)?;
        loop {
            let (back, batch) = next(reader).await?;
            reader = back;
            let Some(last) = batch.last().map(number) else {
                break;
            };
            if last <= file.staged_to {
                continue;
            }
            let lines = batch.into_iter().filter_map(|read| match read {
                ReadLine::Line(staged) if staged.line.line > file.staged_to => Some(*staged),
                ReadLine::Line(_) | ReadLine::Bad(_) => None,
            });
            let lines: Vec<StagedLine> = lines.collect();
            self.stage_step(file, last, lines).await?;
        }
        if reader.finish()?.sha256 != sums.sha256 {
            return Err(JobError::FileChanged);
        }
        // What comes after the last line (bad ones, ignored ones) is nothing to stage.
        while file.staged_to < sums.last_line {
            self.stage_step(file, sums.last_line, Vec::new()).await?;
        }
        Ok(())
    }

    /// Stages lines up to `to`. When somebody else stages too, `file` is where the two are together.
    async fn stage_step(
        &mut self,
        file: &mut ClearingFile,
        to: u64,
        lines: Vec<StagedLine>,
    ) -> Result<(), JobError> {
        let mut lines = lines;
        while file.staged_to < to {
            let from = file.staged_to;
            lines.retain(|staged| staged.line.line > from);
            let count = u64::try_from(lines.len()).unwrap_or(u64::MAX);
            let step = StageStep {
                file: file.id,
                from,
                to,
                lines: lines.clone(),
            };
            file.staged_to = self.call(self.inputs.books.stage(step)).await?;
            if file.staged_to == to {
                self.did.staged = self.did.staged.saturating_add(count);
            }
        }
        (self.progress)(Progress::Staged(file.staged_to));
        Ok(())
    }

    fn file(&self, sums: &FileSums) -> ClearingFile {
        let bank = &self.inputs.bank;
        let mapping = &self.inputs.mapping.digest;
        let words = [bank.as_str(), &sums.sha256, mapping];
        ClearingFile {
            id: record_id("clearing file", &words.map(str::as_bytes)),
            bank: bank.clone(),
            sha256: sums.sha256.clone(),
            mapping: mapping.clone(),
            name: name_of(&self.inputs.path),
            last_line: sums.last_line,
            staged_to: 0,
            state: FileState::Staging,
            opened_at: self.inputs.clock.now(),
        }
    }

    fn open(&self, id: Uuid) -> Result<Reader, FileError> {
        let inputs = self.inputs;
        Reader::open(&inputs.path, &inputs.mapping, &inputs.bank, id)
    }
}

/// The next batch; empty at the end. Reading waits for the disk, so it is not done on the runtime.
async fn next(mut reader: Reader) -> Result<(Reader, Batch), JobError> {
    let read = tokio::task::spawn_blocking(move || {
        let mut batch = Vec::new();
        while batch.len() < BATCH {
            match reader.next_line()? {
                Some(read) => batch.push(read),
                None => break,
            }
        }
        Ok::<_, FileError>((reader, batch))
    });
    Ok(read.await.map_err(|_| JobError::Stopped)??)
}

fn number(read: &ReadLine) -> u64 {
    match read {
        ReadLine::Line(staged) => staged.line.line,
        ReadLine::Bad(bad) => bad.line,
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
