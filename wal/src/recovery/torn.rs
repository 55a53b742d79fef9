//! Cutting a torn write: zeroed in place, after a copy of it was put aside.

use std::io;

use super::{OpenError, Walk, during};
use crate::disk::SegmentDir;
use crate::state::create_durably;

/// So many copies of torn tails are kept; past it the oldest goes.
const TORN_COPIES_MAX: usize = 8;
const TORN_PREFIX: &str = "torn-";

/// Zeroes a torn write, durably, after keeping a copy of it if there is room for one.
pub(super) fn cut(dir: &dyn SegmentDir, walk: &Walk, until: u64) -> Result<(), OpenError> {
    let Some(segment) = walk.segments.last() else {
        return Ok(());
    };
    let offset = walk.end.offset;
    let bytes = usize::try_from(until.saturating_sub(offset)).unwrap_or(0);
    let mut torn = vec![0; bytes];
    segment
        .file
        .read_at(&mut torn, offset)
        .map_err(during("reading a torn write"))?;
    let number = segment.header.number;
    if let Err(error) = keep_copy(dir, number, offset, &torn) {
        tracing::warn!(segment = number, offset, %error, "no copy of the torn write was kept");
    }
    torn.fill(0);
    segment
        .file
        .write_at(&torn, offset)
        .map_err(during("cutting a torn write"))?;
    segment
        .file
        .sync_data()
        .map_err(during("syncing the cut of a torn write"))?;
    tracing::info!(
        segment = number,
        offset,
        bytes,
        "cut a torn write that nobody was told of"
    );
    Ok(())
}

fn keep_copy(dir: &dyn SegmentDir, number: u64, offset: u64, torn: &[u8]) -> io::Result<()> {
    let mut kept: Vec<String> = dir
        .list()?
        .into_iter()
        .filter(|name| name.starts_with(TORN_PREFIX))
        .collect();
    kept.sort_unstable();
    let surplus = kept.len().saturating_add(1).saturating_sub(TORN_COPIES_MAX);
    for name in kept.iter().take(surplus) {
        dir.remove(name)?;
    }
    let name = format!("{TORN_PREFIX}{number:010}-{offset:012}.bin");
    create_durably(dir, &name, u64::try_from(torn.len()).unwrap_or(0), torn)?;
    Ok(())
}
