//! Reading closed segments again, at a bounded rate, to find rot while others still have the bytes.
//!
//! A segment is dropped from memory first, so that what is read is what is on the disk. What is found
//! is reported and stays reported; nothing is cut, and the log goes on: whoever owns it decides (a
//! keeper leaves its group and is rebuilt).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::files::{Files, locked};
use crate::hands::off_runtime;
use crate::recovery::finished;
use crate::segment::{Cursor, Fault, Segment, Step};

/// About so many bytes are read between two rests.
const SLICE_BYTES: u64 = 1 << 20;

/// Bytes that were durable and are not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file's name.
    pub file: String,
    /// Where in it.
    pub offset: u64,
    /// What is wrong there.
    pub what: String,
}

/// What a scrub read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ScrubReport {
    /// Closed segments read whole.
    pub segments: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Everything that does not verify: at most one place a file.
    pub damage: Vec<Damage>,
}

/// Where something is wrong, and what.
type Wrong = (u64, String);

// === impl Damage ===

impl Damage {
    pub(crate) fn of(segment: u64, offset: u64, what: impl ToString) -> Self {
        Self {
            file: Segment::name(segment),
            offset,
            what: what.to_string(),
        }
    }
}

// === impl ScrubReport ===

impl ScrubReport {
    pub(crate) fn note(&mut self, files: &Files, damage: Damage) {
        files.report(damage.clone());
        self.damage.push(damage);
    }
}

/// Reads every segment that is closed now, so many bytes a second.
pub(crate) async fn scrub(files: &Arc<Files>, bytes_per_second: u64) -> ScrubReport {
    let mut report = ScrubReport::default();
    let numbers: Vec<u64> = {
        let segments = locked(&files.segments);
        let numbers = segments.iter().map(|segment| segment.header.number);
        numbers.collect()
    };
    for number in numbers {
        let Some((segment, next)) = closed(files, number) else {
            // It was given up meanwhile, or is the last one.
            continue;
        };
        report.bytes = report.bytes.saturating_add(segment.header.segment_bytes);
        match scrub_one(files, segment, next, bytes_per_second).await {
            Ok(()) => report.segments = report.segments.saturating_add(1),
            Err((offset, what)) => report.note(files, Damage::of(number, offset, what)),
        }
    }
    report
}

fn closed(files: &Files, number: u64) -> Option<(Arc<Segment>, Arc<Segment>)> {
    let segments = locked(&files.segments);
    let at = segments.binary_search_by_key(&number, |segment| segment.header.number);
    let at = at.ok()?;
    let next = segments.get(at.checked_add(1)?)?;
    Some((Arc::clone(segments.get(at)?), Arc::clone(next)))
}

async fn scrub_one(
    files: &Arc<Files>,
    segment: Arc<Segment>,
    next: Arc<Segment>,
    bytes_per_second: u64,
) -> Result<(), Wrong> {
    let gone = |error: io::Error| (0, error.to_string());
    let dir = files.dir.as_ref();
    let opening = move || open(&segment);
    let mut cursor = off_runtime(dir, opening).await.map_err(gone)??;
    loop {
        let (from, next) = (cursor.offset, Arc::clone(&next));
        let reading = move || {
            let ended = slice(&mut cursor, &next);
            (cursor, ended)
        };
        let (further, ended) = off_runtime(dir, reading).await.map_err(gone)?;
        cursor = further;
        let nanos = u128::from(cursor.offset.saturating_sub(from))
            .saturating_mul(1_000_000_000)
            .checked_div(u128::from(bytes_per_second));
        let nanos = nanos.and_then(|nanos| u64::try_from(nanos).ok());
        tokio::time::sleep(Duration::from_nanos(nanos.unwrap_or(u64::MAX))).await;
        if let Some(result) = ended {
            return result;
        }
    }
}

/// A cursor on the segment as it is on the disk.
fn open(segment: &Segment) -> Result<Cursor, Wrong> {
    let failed = |error: io::Error| (0, error.to_string());
    segment.file.settle().map_err(failed)?;
    let again = Segment::open(Arc::clone(&segment.file)).map_err(failed)?;
    match again {
        Ok(again) if again.header == segment.header => Ok(Arc::new(again).cursor()),
        Ok(_) | Err(_) => Err((0, Fault::SegmentHeader.to_string())),
    }
}

/// Reads on; `Some` once the segment is at its end, or something is wrong with it.
fn slice(cursor: &mut Cursor, next: &Segment) -> Option<Result<(), Wrong>> {
    let until = cursor.offset.saturating_add(SLICE_BYTES);
    while cursor.offset < until {
        let at = cursor.offset;
        match cursor.step() {
            Ok(Step::Frame { .. }) => {}
            Ok(Step::Blank) => return Some(end(cursor, None, next)),
            Ok(Step::Unreadable(fault)) => return Some(end(cursor, Some(fault), next)),
            Ok(Step::Wrong(fault)) => return Some(Err((at, fault.to_string()))),
            Err(error) => return Some(Err((at, error.to_string()))),
        }
    }
    None
}

/// What comes behind the last frame that verifies.
fn end(cursor: &mut Cursor, fault: Option<Fault>, next: &Segment) -> Result<(), Wrong> {
    let at = cursor.offset;
    let tail = cursor.tail().map_err(|error| (at, error.to_string()))?;
    match finished(cursor, fault, tail, next, false) {
        Ok(_) => Ok(()),
        Err(what) => Err((at, what.to_string())),
    }
}
