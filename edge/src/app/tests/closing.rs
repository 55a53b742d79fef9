//! Closing the log while its disk works, hangs, or fails.

use std::io;
use std::sync::{Condvar, Mutex};

use standin_core::entry::Entry;
use standin_core::register::RegisterConfig;
use standin_wal as wal;
use standin_wal::SystemTimeSource;
use standin_wal::disk::real::RealDir;
use standin_wal::disk::{SegmentDir, SegmentFile};

use super::*;
use crate::log::soon;
use crate::machine::Machine;

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

/// A log that holds one entry, and what its disk goes through.
async fn logs(dir: &std::path::Path) -> (Arc<Log>, Arc<Advices>, Arc<Gate>) {
    let gate = Arc::new(Gate {
        disk: Mutex::new(Disk::Works),
        changed: Condvar::new(),
    });
    let gated = GatedDir(RealDir::create(dir).unwrap(), Arc::clone(&gate));
    let config = wal::Config {
        segment_bytes: 4 << 20,
        budget_bytes: 64 << 20,
        ..wal::Config::new(dir, wal::NodeId(1), "test")
    };
    let own = wal::Config {
        dir: dir.join("advices"),
        ..config.clone()
    };
    let group = wal::Group::open_on(
        Arc::new(gated),
        wal::GroupConfig::new(config, Uuid::nil()),
        Box::new(SystemTimeSource::default()),
        Machine::new(RegisterConfig { answers_max: 10 }),
        Arc::new(Nobody),
        Box::new(|| Uuid::new_v4().as_u128()),
    );
    let log = Arc::new(Log::of(group.await.unwrap(), 1));
    log.enroll(None).await.unwrap();
    assert!(propose(&log, Duration::from_secs(30)).await);
    let kept = Wal::open(own, Box::new(SystemTimeSource::default()), Kept::default()).unwrap();
    let advices = Advices::new(kept, Arc::clone(&log), Uuid::nil());
    (log, Arc::new(advices), gate)
}

async fn propose(log: &Log, within: Duration) -> bool {
    let entry = Entry::OutageEnded { edge: 1 };
    log.propose(&entry, soon(within)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_on_a_good_disk_closes_cleanly() {
    let dir = tempfile::tempdir().unwrap();
    let (log, advices, _gate) = logs(dir.path()).await;
    let ended = close_logs(log, advices, Duration::from_secs(30)).await;
    assert_eq!(ended, Stopped::Clean);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_hangs_does_not_hold_the_exit() {
    let dir = tempfile::tempdir().unwrap();
    let (log, advices, gate) = logs(dir.path()).await;
    gate.set(Disk::Hangs);
    assert!(!propose(&log, Duration::from_millis(20)).await);
    let ended = close_logs(Arc::clone(&log), advices, Duration::from_millis(50)).await;
    assert_eq!(ended, Stopped::TimedOut);
    // It would wait for the disk for ever, were it the last handle.
    drop(log);
    gate.set(Disk::Works);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_fails_while_it_closes_is_not_clean() {
    let dir = tempfile::tempdir().unwrap();
    let (log, advices, gate) = logs(dir.path()).await;
    gate.set(Disk::Fails);
    let ended = close_logs(log, advices, Duration::from_secs(30)).await;
    assert_eq!(ended, Stopped::Poisoned);
}
