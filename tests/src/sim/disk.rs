//! A simulated disk: what was synced survives a power cut, any part of what was not may; syncs fail and
//! keep or drop what they were to sync; bytes at rest rot, are lost, or land elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use standin_wal::disk::{SegmentDir, SegmentFile};
use tokio_util::sync::CancellationToken;

use super::scene::{Scene, locked};

mod rot;

pub use rot::Rot;

const SECTOR: usize = 512;
/// Every proposal of a simulation holds this, and then [`MARK_BYTES`] that tell it from the others.
pub const MARK: &[u8; 8] = b"~~sim~~:";
/// Bytes behind [`MARK`].
pub const MARK_BYTES: usize = 12;

/// What tells a proposal from the others.
pub type Mark = [u8; MARK_BYTES];

/// A disk; clones are the same one.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<Platter>>);

/// What fails next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// A sync; what was written stays, and is still not synced.
    SyncKeeping,
    /// A sync; what was written never gets to the disk, though it is read back until the next start.
    SyncDropping,
    /// Creating a file: no space is left.
    Full,
    /// A write, in the middle.
    Write,
}

struct Platter {
    scene: Arc<Scene>,
    node: u64,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    dir_changes: Vec<(Option<String>, Option<String>, usize)>,
    files: BTreeMap<usize, File>,
    next_file: usize,
    /// Whoever has it mounted; nobody else is served.
    holder: u64,
    locked: bool,
    failing: Option<(Failing, u64)>,
    /// Operations until the power goes.
    power_left: Option<u64>,
    /// What a task takes, in milliseconds.
    pace: (u64, u64),
    marks: BTreeSet<Mark>,
    /// Told when the power went.
    out: CancellationToken,
}

#[derive(Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Sector>,
    /// Where finished writes began and ended, in order: what rot must not touch is the last of them.
    written: Vec<(usize, usize)>,
    /// A sync or a write of it failed: nothing may be written any more.
    failed: bool,
}

struct Sector {
    offset: usize,
    bytes: Vec<u8>,
}

/// The disk as one run of a node has it.
pub struct Mount {
    disk: SimDisk,
    holder: u64,
}

struct Lock {
    disk: SimDisk,
    holder: u64,
}

struct Handle {
    disk: SimDisk,
    holder: u64,
    file: usize,
    name: String,
}

// === impl SimDisk ===

impl SimDisk {
    /// An empty disk.
    pub fn new(scene: Arc<Scene>, node: u64) -> Self {
        Self(Arc::new(Mutex::new(Platter {
            scene,
            node,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            dir_changes: Vec::new(),
            files: BTreeMap::new(),
            next_file: 0,
            holder: 0,
            locked: false,
            failing: None,
            power_left: None,
            pace: (0, 2),
            marks: BTreeSet::new(),
            out: CancellationToken::new(),
        })))
    }

    /// Gives the disk to a run; whoever had it before is served no more.
    pub fn mount(&self, holder: u64) -> Mount {
        let mut platter = locked(&self.0);
        platter.holder = holder;
        platter.locked = false;
        platter.power_left = None;
        platter.failing = None;
        platter.out = CancellationToken::new();
        platter.find_marks();
        drop(platter);
        Mount {
            disk: self.clone(),
            holder,
        }
    }

    /// The process ends; what it wrote stays where it is.
    pub fn sever(&self) {
        let mut platter = locked(&self.0);
        platter.holder = 0;
        platter.locked = false;
    }

    /// The power goes now.
    pub fn cut_power(&self) {
        locked(&self.0).cut();
    }

    /// The power goes after so many operations.
    pub fn cut_power_after(&self, operations: u64) {
        locked(&self.0).power_left = Some(operations);
    }

    /// Told when the power has gone.
    pub fn out(&self) -> CancellationToken {
        locked(&self.0).out.clone()
    }

    /// Lets `after` operations of that kind pass, then fails one.
    pub fn fail(&self, failing: Failing, after: u64) {
        locked(&self.0).failing = Some((failing, after));
    }

    /// Nothing fails and nothing is slow any more.
    pub fn heal(&self) {
        let mut platter = locked(&self.0);
        platter.failing = None;
        platter.power_left = None;
        platter.pace = (0, 2);
    }

    /// What every task takes from now on, in milliseconds.
    pub fn set_pace(&self, low: u64, high: u64) {
        locked(&self.0).pace = (low, high);
    }

    /// Whether the durable image holds a proposal.
    pub fn holds(&self, mark: &Mark) -> bool {
        locked(&self.0).marks.contains(mark)
    }

    /// Bytes of all segments.
    pub fn segment_bytes(&self) -> u64 {
        let platter = locked(&self.0);
        let bytes = |file: &usize| platter.files.get(file).map_or(0, |file| file.seen.len());
        let segments = platter.names.iter().filter(|(name, _)| is_segment(name));
        let sum: usize = segments.map(|(_, file)| bytes(file)).sum();
        u64::try_from(sum).unwrap_or(u64::MAX)
    }

    /// Everything that was written and not lost gets to the disk, and memory forgets the rest.
    pub fn settle(&self) {
        for file in locked(&self.0).files.values_mut() {
            drop(file.sync());
            file.seen.clone_from(&file.durable);
            file.failed = false;
        }
    }

    /// Spoils bytes at rest; `None` when nothing is there that may be spoilt.
    pub fn rot(&self, rot: Rot) -> Option<String> {
        locked(&self.0).rot(rot)
    }
}

// === impl Platter ===

impl Platter {
    /// Every operation that changes something; the power may go at it.
    fn tick(&mut self, holder: u64) -> io::Result<bool> {
        self.serve(holder)?;
        let Some(left) = self.power_left else {
            return Ok(false);
        };
        self.power_left = left.checked_sub(1);
        Ok(self.power_left.is_none())
    }

    fn serve(&self, holder: u64) -> io::Result<()> {
        if self.holder == holder {
            Ok(())
        } else {
            Err(io::Error::other("the machine is gone"))
        }
    }

    fn fails(&mut self, kinds: &[Failing]) -> Option<Failing> {
        let (failing, after) = self
            .failing
            .filter(|(failing, _)| kinds.contains(failing))?;
        if let Some(left) = after.checked_sub(1) {
            self.failing = Some((failing, left));
            return None;
        }
        self.failing = None;
        self.scene.note("disk fails", &[self.node]);
        Some(failing)
    }

    fn cut(&mut self) {
        self.holder = 0;
        self.locked = false;
        self.power_left = None;
        let mut dice = self.scene.fork();
        let mode = dice.below(4);
        let changes = std::mem::take(&mut self.dir_changes);
        let count = u64::try_from(changes.len()).unwrap_or(0);
        let kept = usize::try_from(dice.below(count.saturating_add(1))).unwrap_or(0);
        for change in changes.iter().take(kept) {
            apply(&mut self.durable_names, change);
        }
        self.names = self.durable_names.clone();
        let named: BTreeSet<usize> = self.names.values().copied().collect();
        self.files.retain(|file, _| named.contains(file));
        for file in self.files.values_mut() {
            let pending = file.take_pending();
            let count = u64::try_from(pending.len()).unwrap_or(0);
            let prefix = dice.below(count.saturating_add(1));
            for (at, sector) in (0_u64..).zip(pending) {
                let keep = match mode {
                    0 => false,
                    1 => at < prefix,
                    2 => at >= prefix,
                    _ => dice.below(2) == 0,
                };
                if keep {
                    put(&mut file.durable, sector.offset, &sector.bytes);
                }
            }
            file.seen.clone_from(&file.durable);
            file.failed = false;
        }
        self.scene.note("power cut", &[self.node, mode]);
        self.out.cancel();
    }

    fn find_marks(&mut self) {
        self.marks.clear();
        let named = self.names.iter().filter(|(name, _)| is_segment(name));
        for (_, file) in named {
            if let Some(file) = self.files.get(file) {
                self.marks.extend(marks(&file.durable));
            }
        }
    }
}

impl File {
    /// What is not durable yet. It may be lost, and the last write before it is the last one then.
    fn take_pending(&mut self) -> Vec<Sector> {
        let pending = std::mem::take(&mut self.pending);
        if let Some(first) = pending.iter().map(|sector| sector.offset).min() {
            self.written.retain(|(_, end)| *end <= first);
        }
        pending
    }

    fn sync(&mut self) -> Vec<Mark> {
        let mut found = Vec::new();
        let mut run: Vec<u8> = Vec::new();
        let mut end = usize::MAX;
        for sector in std::mem::take(&mut self.pending) {
            put(&mut self.durable, sector.offset, &sector.bytes);
            if sector.offset != end {
                found.extend(marks(&run));
                run.clear();
            }
            end = sector.offset.saturating_add(sector.bytes.len());
            run.extend_from_slice(&sector.bytes);
        }
        found.extend(marks(&run));
        found
    }
}

// === impl Mount ===

impl Mount {
    fn handle(&self, file: usize, name: &str) -> Arc<dyn SegmentFile> {
        Arc::new(Handle {
            disk: self.disk.clone(),
            holder: self.holder,
            file,
            name: name.to_owned(),
        })
    }

    fn change(&self, from: Option<&str>, to: Option<&str>, file: usize) -> io::Result<()> {
        let mut platter = locked(&self.disk.0);
        let last = platter.tick(self.holder)?;
        let change = (from.map(str::to_owned), to.map(str::to_owned), file);
        apply(&mut platter.names, &change);
        platter.dir_changes.push(change);
        if last {
            platter.cut();
            return Err(io::Error::other("the power went"));
        }
        Ok(())
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        let platter = locked(&self.disk.0);
        platter.serve(self.holder)?;
        let found = platter.names.get(name).copied();
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl SegmentDir for Mount {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        let mut platter = locked(&self.disk.0);
        platter.serve(self.holder)?;
        if std::mem::replace(&mut platter.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(Lock {
            disk: self.disk.clone(),
            holder: self.holder,
        }))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let platter = locked(&self.disk.0);
        platter.serve(self.holder)?;
        Ok(platter.names.keys().cloned().collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = {
            let mut platter = locked(&self.disk.0);
            platter.serve(self.holder)?;
            if platter.fails(&[Failing::Full]).is_some() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let zeros = vec![0; usize::try_from(bytes).map_err(io::Error::other)?];
            let file = platter.next_file;
            platter.next_file = file.saturating_add(1);
            platter.files.insert(
                file,
                File {
                    seen: zeros.clone(),
                    durable: zeros,
                    ..File::default()
                },
            );
            file
        };
        self.change(None, Some(name), file)?;
        Ok(self.handle(file, name))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        Ok(self.handle(self.find(name)?, name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let file = self.find(from)?;
        self.change(Some(from), Some(to), file)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let file = self.find(name)?;
        self.change(Some(name), None, file)
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut platter = locked(&self.disk.0);
        if platter.tick(self.holder)? {
            platter.cut();
            return Err(io::Error::other("the power went"));
        }
        platter.dir_changes.clear();
        platter.durable_names = platter.names.clone();
        Ok(())
    }

    fn pace(&self) -> Option<Duration> {
        let platter = locked(&self.disk.0);
        let (low, high) = platter.pace;
        Some(platter.scene.millis(low, high))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut platter = locked(&self.disk.0);
        if platter.holder == self.holder {
            platter.locked = false;
        }
    }
}

// === impl Handle ===

impl Handle {
    /// Nothing may be written to a file of the log after a write or a sync of it failed.
    fn judge(&self, platter: &Platter, failed: bool) {
        if failed && (is_segment(&self.name) || self.name == "state") {
            let name = self.name.clone();
            let node = platter.node;
            platter
                .scene
                .wrong(|| format!("node {node} wrote {name} after a write or sync of it failed"));
        }
    }
}

impl SegmentFile for Handle {
    fn bytes(&self) -> io::Result<u64> {
        let platter = locked(&self.disk.0);
        platter.serve(self.holder)?;
        let file = platter
            .files
            .get(&self.file)
            .ok_or(io::ErrorKind::NotFound)?;
        u64::try_from(file.seen.len()).map_err(io::Error::other)
    }

    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let platter = locked(&self.disk.0);
        platter.serve(self.holder)?;
        let file = platter
            .files
            .get(&self.file)
            .ok_or(io::ErrorKind::NotFound)?;
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = file
            .seen
            .get(from..)
            .and_then(|rest| rest.get(..into.len()));
        into.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut platter = locked(&self.disk.0);
        let last = platter.tick(self.holder)?;
        let fails = platter.fails(&[Failing::Write]).is_some();
        let failed = platter
            .files
            .get(&self.file)
            .is_some_and(|file| file.failed);
        self.judge(&platter, failed);
        let file = platter.files.get_mut(&self.file);
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        let whole = if fails || last {
            bytes.split_at(bytes.len().div_euclid(2)).0
        } else {
            bytes
        };
        let from = usize::try_from(offset).map_err(io::Error::other)?;
        if !put(&mut file.seen, from, whole) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        if whole.iter().all(|byte| *byte == 0) {
            // A torn write is taken away; the one before it is the last again.
            file.written.retain(|(_, end)| *end <= from);
        } else if !fails {
            let end = from.saturating_add(whole.len());
            file.written.push((from, end));
        }
        let mut at = from;
        for chunk in whole.chunks(SECTOR) {
            file.pending.push(Sector {
                offset: at,
                bytes: chunk.to_vec(),
            });
            at = at.saturating_add(SECTOR);
        }
        if last {
            platter.cut();
            return Err(io::Error::other("the power went"));
        }
        if fails {
            file.failed = true;
            return Err(io::Error::other("input/output error"));
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = locked(&self.disk.0);
        if platter.tick(self.holder)? {
            platter.cut();
            return Err(io::Error::other("the power went"));
        }
        let fails = platter.fails(&[Failing::SyncKeeping, Failing::SyncDropping]);
        let file = platter.files.get_mut(&self.file);
        let file = file.ok_or(io::ErrorKind::NotFound)?;
        if let Some(failing) = fails {
            file.failed = true;
            if failing == Failing::SyncDropping {
                drop(file.take_pending());
            }
            return Err(io::Error::other("input/output error"));
        }
        let marks = file.sync();
        if is_segment(&self.name) || self.name.ends_with(".new") {
            platter.marks.extend(marks);
        }
        Ok(())
    }

    fn settle(&self) -> io::Result<()> {
        self.sync_data()?;
        let mut platter = locked(&self.disk.0);
        if let Some(file) = platter.files.get_mut(&self.file) {
            file.seen.clone_from(&file.durable);
            file.failed = false;
        }
        Ok(())
    }
}

fn is_segment(name: &str) -> bool {
    name.ends_with(".wal")
}

fn apply(
    names: &mut BTreeMap<String, usize>,
    (from, to, file): &(Option<String>, Option<String>, usize),
) {
    if let Some(from) = from {
        names.remove(from);
    }
    if let Some(to) = to {
        names.insert(to.clone(), *file);
    }
}

fn put(content: &mut [u8], offset: usize, bytes: &[u8]) -> bool {
    let end = offset.saturating_add(bytes.len());
    match content.get_mut(offset..end) {
        Some(place) => {
            place.copy_from_slice(bytes);
            true
        }
        None => false,
    }
}

/// The proposals that bytes hold.
pub fn marks(bytes: &[u8]) -> Vec<Mark> {
    let found = memchr::memmem::find_iter(bytes, MARK);
    let mark = |at: usize| {
        let rest = bytes.get(at.checked_add(MARK.len())?..)?;
        rest.first_chunk::<MARK_BYTES>().copied()
    };
    found.filter_map(mark).collect()
}
