//! A file and fdatasync: what durable costs without any log.

use std::fs::File;
use std::io::{BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::ensure;

use crate::load::{BODY_BYTES, BlockingWriter, Bodies};
use crate::recorder::say;
use crate::reopen::Reopened;

/// The file of zeros: larger than what one sync an append can fill in any window.
const ZEROS_BYTES: u64 = 256 << 20;
/// Length and checksum before each body.
const HEAD_BYTES: usize = 8;

/// Whether the file grows with each append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Grows,
    Zeros,
}

pub struct Writer(Arc<Mutex<End>>);

struct End {
    file: File,
    offset: u64,
    bytes: u64,
}

impl BlockingWriter for Writer {
    fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let mut end = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        end.append(&framed(body))
    }
}

impl End {
    fn create(dir: &Path, zeros: u64) -> anyhow::Result<Self> {
        let file = File::create(dir.join("log"))?;
        let block = vec![0; 1 << 20];
        for at in (0..zeros).step_by(block.len()) {
            file.write_all_at(&block, at)?;
        }
        file.sync_all()?;
        File::open(dir)?.sync_all()?;
        Ok(Self {
            file,
            offset: 0,
            bytes: zeros,
        })
    }

    fn append(&mut self, frames: &[u8]) -> anyhow::Result<()> {
        // Over and over, where there is a length to keep to.
        if self.bytes > 0 && self.offset + frames.len() as u64 > self.bytes {
            self.offset = 0;
        }
        self.file.write_all_at(frames, self.offset)?;
        self.file.sync_data()?;
        self.offset += frames.len() as u64;
        Ok(())
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD_BYTES + body.len());
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    frame.extend_from_slice(body);
    frame
}

/// One writer a thread, all on one file, one at a time.
pub fn writers(dir: &Path, count: usize, kind: Kind) -> anyhow::Result<Vec<Writer>> {
    let zeros = match kind {
        Kind::Grows => 0,
        Kind::Zeros => ZEROS_BYTES,
    };
    let end = Arc::new(Mutex::new(End::create(dir, zeros)?));
    Ok((0..count).map(|_| Writer(Arc::clone(&end))).collect())
}

/// Fills a file until it is killed; says `full` once `records` are durable.
pub fn fill(dir: &Path, records: u64, at_once: usize) -> anyhow::Result<()> {
    let mut end = End::create(dir, 0)?;
    let mut bodies = Bodies::new(0);
    let (mut written, mut said) = (0, false);
    loop {
        let mut frames = Vec::new();
        for _ in 0..at_once {
            frames.extend_from_slice(&framed(bodies.next()));
        }
        end.append(&frames)?;
        written += at_once as u64;
        if written >= records && !said {
            said = true;
            say("full");
        }
    }
}

/// Reads it from the beginning and verifies each body, until one does not: the floor of any scan.
pub fn reopen(dir: &Path) -> anyhow::Result<Reopened> {
    let begun = Instant::now();
    let mut file = BufReader::with_capacity(1 << 20, File::open(dir.join("log"))?);
    let (mut records, mut frame) = (0, [0; HEAD_BYTES + BODY_BYTES]);
    while file.read_exact(&mut frame).is_ok() {
        let (head, body) = frame.split_at(HEAD_BYTES);
        if head[4..] != crc32c::crc32c(body).to_le_bytes() {
            break;
        }
        records += 1;
    }
    let open_ms = begun.elapsed().as_secs_f64() * 1_000.0;
    ensure!(records > 0, "the log is empty");
    Ok(Reopened {
        open_ms,
        verified_ms: open_ms,
        records,
    })
}
