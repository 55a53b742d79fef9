//! Looking for rot on this node's disk, while the others still have the bytes.

use super::{Group, Phase, Stopped};
use crate::hands::off_runtime;
use crate::raft::Replicable;
use crate::raft::snapshot::{SNAPSHOT_FILE, Snapshot};
use crate::scrub::{Damage, ScrubReport, scrub};

impl<M: Replicable> Group<M> {
    /// Reads the closed segments and the snapshot of this node again, so many bytes a second, and says
    /// what does not verify. What is found stays in [`super::GroupStatus::damage`]: this node has to
    /// leave the group and be rebuilt. Nothing is cut.
    ///
    /// # Errors
    /// When the node has stopped.
    pub async fn scrub(&self, bytes_per_second: u64) -> Result<ScrubReport, Stopped> {
        if self.inner.store.phase().get() == Phase::Stopped {
            return Err(Stopped);
        }
        let files = self.inner.store.files();
        let mut report = scrub(files, bytes_per_second).await;
        let dir = std::sync::Arc::clone(&files.dir);
        let reading = move || Snapshot::read(dir.as_ref());
        match off_runtime(files.dir.as_ref(), reading).await {
            Ok(Ok(None)) => {}
            Ok(Ok(Some(snapshot))) => {
                let bytes = u64::try_from(snapshot.state.len()).unwrap_or(u64::MAX);
                report.bytes = report.bytes.saturating_add(bytes);
            }
            Ok(Err(error)) | Err(error) => report.note(
                files,
                Damage {
                    file: SNAPSHOT_FILE.to_owned(),
                    offset: 0,
                    what: error.to_string(),
                },
            ),
        }
        Ok(report)
    }

    /// Resolves when durable bytes of this node were found damaged; never resolves otherwise.
    pub async fn damaged(&self) {
        let files = self.inner.store.files();
        files.is_damaged.wait_for(|damaged| *damaged).await;
    }
}
