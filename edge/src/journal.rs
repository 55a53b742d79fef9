//! Embedded mode: the log is the ledger's journal too. What the platform changes is an entry, and
//! at start the in-memory ledger is rebuilt from the log.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use standin_core::BoxFuture;
use standin_core::answer::Why;
use standin_core::entry::{Entry, PlatformEvent};
use standin_core::ledger::memory::Journal;
use standin_core::ledger::{Fate, LedgerError, Retry};

use crate::log::{Log, soon};

/// How long a platform change may wait for the log.
const RECORD_WITHIN: Duration = Duration::from_millis(700);

/// Writes platform events to the log. The log is opened after the ledger that is rebuilt from it,
/// so it is given later; until then nothing can be recorded.
#[derive(Clone, Default)]
pub struct LogJournal(Arc<OnceLock<Arc<Log>>>);

// === impl LogJournal ===

impl LogJournal {
    /// Connects the journal to its log. A second call changes nothing.
    pub fn connect(&self, log: Arc<Log>) {
        self.0.get_or_init(|| log);
    }

    /// Makes one event durable.
    pub async fn write(&self, event: PlatformEvent) -> Result<(), LedgerError> {
        let not_done = |detail: String| LedgerError {
            fate: Fate::NotDone,
            retry: Retry::Later,
            why: Why::ApplicationError,
            detail,
        };
        let log = self
            .0
            .get()
            .ok_or_else(|| not_done("the log is not open yet".to_owned()))?;
        match log
            .propose(&Entry::Platform(event), soon(RECORD_WITHIN))
            .await
        {
            Ok(_applied) => Ok(()),
            Err(error) => match error.fate() {
                standin_wal::Fate::NotBegun => Err(not_done(error.to_string())),
                standin_wal::Fate::Unknown => Err(LedgerError::lost(error.to_string())),
            },
        }
    }
}

impl Journal for LogJournal {
    fn record(&self, event: PlatformEvent) -> BoxFuture<'_, Result<(), LedgerError>> {
        Box::pin(self.write(event))
    }
}
