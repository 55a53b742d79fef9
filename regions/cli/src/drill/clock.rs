//! A clock that a drill steps: the machine's, and as far off as a file says.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use standin_core::clock::{Clock, SystemClock, Timestamp};
use tokio::time::Instant;

/// The file in an edge's folder.
pub(super) const FILE: &str = "clock";
/// How often the file is read, at most: a request asks for the time more than once.
const READ_EVERY: Duration = Duration::from_millis(50);

/// The machine's clock, as many milliseconds off as a file says. Only the wall clock steps: what measures
/// how long something takes is the machine's steady clock.
pub(super) struct SteppedClock {
    file: PathBuf,
    began: Instant,
    /// When it is read again, milliseconds since it began.
    next_ms: AtomicU64,
    /// As it was read last.
    off_ms: AtomicI64,
}

/// Steps the clock of whoever reads this file.
pub(super) fn step(file: &Path, off_ms: i64) -> std::io::Result<()> {
    // Put in its place whole: it is read at any moment.
    let made = file.with_extension("new");
    std::fs::write(&made, off_ms.to_string())?;
    std::fs::rename(made, file)
}

// === impl SteppedClock ===

impl SteppedClock {
    pub(super) fn new(file: PathBuf) -> Self {
        Self {
            file,
            began: Instant::now(),
            next_ms: AtomicU64::new(0),
            off_ms: AtomicI64::new(0),
        }
    }

    /// A file that does not read leaves the clock as it is.
    fn look(&self) {
        let since = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let (now, order) = (since(self.began.elapsed()), Ordering::Relaxed);
        let due = self.next_ms.load(order);
        let next = now.saturating_add(since(READ_EVERY));
        // One of those who come at once reads it.
        let mine = now >= due
            && self
                .next_ms
                .compare_exchange(due, next, order, order)
                .is_ok();
        if !mine {
            return;
        }
        let text = std::fs::read_to_string(&self.file).unwrap_or_default();
        if let Ok(off_ms) = text.trim().parse() {
            self.off_ms.store(off_ms, order);
        }
    }
}

impl Clock for SteppedClock {
    fn now(&self) -> Timestamp {
        self.look();
        let off_ms = self.off_ms.load(Ordering::Relaxed);
        let now_ms = SystemClock.now().as_millis();
        Timestamp::from_millis(now_ms.saturating_add(off_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stepped_clock_is_off_as_its_file_says_and_right_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(FILE);
        let clock = SteppedClock::new(file.clone());
        let off_s = || {
            let off_ms = clock.now().as_millis() - SystemClock.now().as_millis();
            (off_ms + 500).div_euclid(1_000)
        };
        assert_eq!(off_s(), 0);
        step(&file, 3_600_000).unwrap();
        assert_eq!(off_s(), 0, "it was read a moment ago");
        tokio::time::advance(READ_EVERY).await;
        assert_eq!(off_s(), 3_600);
        step(&file, -3_600_000).unwrap();
        tokio::time::advance(READ_EVERY).await;
        assert_eq!(off_s(), -3_600);
        std::fs::write(&file, "nonsense").unwrap();
        tokio::time::advance(READ_EVERY).await;
        assert_eq!(off_s(), -3_600);
        step(&file, 0).unwrap();
        tokio::time::advance(READ_EVERY).await;
        assert_eq!(off_s(), 0);
    }
}
