//! Who does what blocks: threads, or, on a simulated disk whose calls do not block, whoever asks.

use std::io;

use crate::disk::SegmentDir;

/// Does work that calls a disk, off the runtime's own threads.
pub(crate) async fn off_runtime<T: Send + 'static>(
    dir: &dyn SegmentDir,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    match dir.pace() {
        // A thread of the runtime is none of shuttle's: who asks does it, and others may come first.
        #[cfg(feature = "shuttle")]
        None => {
            crate::sync::thread::yield_now();
            Ok(work())
        }
        #[cfg(not(feature = "shuttle"))]
        None => tokio::task::spawn_blocking(work)
            .await
            .map_err(io::Error::other),
        Some(takes) => {
            tokio::time::sleep(takes).await;
            Ok(work())
        }
    }
}
