//! The log of an edge that runs in this process, for who reads logs.

use std::sync::Arc;

use standin_core::BoxFuture;
use standin_edge::log::Log;
use standin_reconcile::log::LogBatch;
use standin_reconcile::log::source::{LogSource, SourceError};
use uuid::Uuid;

/// The log of a running edge.
pub(crate) struct RunningLog(pub(crate) Arc<Log>);

impl LogSource for RunningLog {
    fn read(&self) -> BoxFuture<'_, Result<(Uuid, Vec<LogBatch>), SourceError>> {
        LogSource::read(self.0.group())
    }
}
