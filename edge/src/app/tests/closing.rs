//! Closing the log while its disk works, hangs, or fails.

use std::io;
use std::sync::{Condvar, Mutex};

use bytes::Bytes;
use standin_wal::disk::real::RealDir;
use standin_wal::disk::{SegmentDir, SegmentFile};
use standin_wal::{Applied, Config, NodeId};

use super::*;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Disk {
    Works,
    Hangs,
    Fails,
}

/// What all files of one disk go through before they write.
struct Gate {
    disk: Mutex<Disk>,
    changed: Condvar,
}

struct GatedDir(RealDir, Arc<Gate>);
struct GatedFile(Arc<dyn SegmentFile>, Arc<Gate>);

/// Keeps nothing.
struct Deaf;

impl Gate {
    fn set(&self, now: Disk) {
        *self.disk.lock().unwrap() = now;
        self.changed.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let disk = self.disk.lock().unwrap();
        let disk = self.changed.wait_while(disk, |disk| *disk == Disk::Hangs);
        match *disk.unwrap() {
            Disk::Fails => Err(io::Error::other("planted")),
            Disk::Works | Disk::Hangs => Ok(()),
        }
    }
}

impl SegmentDir for GatedDir {
    fn lock(&self) -> io::Result<Box<dyn Send>> {
        self.0.lock()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.0.list()
    }
    fn create(&self, name: &str, bytes: u64) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self.0.create(name, bytes)?;
        Ok(Arc::new(GatedFile(file, Arc::clone(&self.1))))
    }
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentFile>> {
        let file = self.0.open(name)?;
        Ok(Arc::new(GatedFile(file, Arc::clone(&self.1))))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.0.sync_dir()
    }
}

impl SegmentFile for GatedFile {
    fn bytes(&self) -> io::Result<u64> {
        self.0.bytes()
    }
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        self.0.read_at(into, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.1.pass()?;
        self.0.write_at(bytes, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn settle(&self) -> io::Result<()> {
        self.0.settle()
    }
}

impl StateMachine for Deaf {
    type Outcome = ();
    fn apply(&mut self, _at: Applied, _proposal: &[u8]) {}
}

/// A log that holds one entry, and what its disk goes through.
async fn log(dir: &std::path::Path) -> (Arc<Wal<Deaf>>, Arc<Gate>) {
    let gate = Arc::new(Gate {
        disk: Mutex::new(Disk::Works),
        changed: Condvar::new(),
    });
    let gated = GatedDir(RealDir::create(dir).unwrap(), Arc::clone(&gate));
    let config = Config {
        segment_bytes: 4 << 20,
        budget_bytes: 64 << 20,
        ..Config::new(dir, NodeId(1), "test")
    };
    let time = Box::new(SystemTimeSource::default());
    let log = Wal::open_on(Arc::new(gated), config, time, Deaf).unwrap();
    assert!(propose(&log, Duration::from_secs(30)).await);
    (Arc::new(log), gate)
}

async fn propose(log: &Wal<Deaf>, within: Duration) -> bool {
    let deadline = tokio::time::Instant::now() + within;
    log.propose(Bytes::from_static(b"x"), deadline)
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_good_disk_closes_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let (log, _gate) = log(dir.path()).await;
    let ended = close_log(log, Duration::from_secs(30)).await;
    assert_eq!(ended, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_does_not_hold_the_exit() {
    let dir = tempfile::tempdir().unwrap();
    let (log, gate) = log(dir.path()).await;
    gate.set(Disk::Hangs);
    assert!(!propose(&log, Duration::from_millis(20)).await);
    let ended = close_log(Arc::clone(&log), Duration::from_millis(50)).await;
    assert_eq!(ended, Stopped::TimedOut);
    // It would wait for the disk for ever, were it the last handle.
    drop(log);
    gate.set(Disk::Works);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fails_while_it_closes_is_not_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (log, gate) = log(dir.path()).await;
    gate.set(Disk::Fails);
    let ended = close_log(log, Duration::from_secs(30)).await;
    assert_eq!(ended, Stopped::Poisoned);
}
