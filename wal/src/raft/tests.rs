//! The library's own suite for log stores and state machines, on the recording disk.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};

use super::machine::Machine;
use super::store::Store;
use super::{LoadError, Replicable, Types};
use crate::disk::recording::RecordingDisk;
use crate::tests::lab::{Ticking, config, random};
use crate::wal::{Applied, StateMachine};

/// Keeps what it is given.
#[derive(Default)]
pub(crate) struct Notes(pub(crate) Vec<Vec<u8>>);

impl StateMachine for Notes {
    type Outcome = usize;
    fn apply(&mut self, _at: Applied, proposal: &[u8]) -> usize {
        self.0.push(proposal.to_vec());
        self.0.len()
    }
}

impl Replicable for Notes {
    fn outcome_to_bytes(outcome: &usize) -> Vec<u8> {
        outcome.to_le_bytes().to_vec()
    }
    fn outcome_from_bytes(bytes: &[u8]) -> Option<usize> {
        Some(usize::from_le_bytes(bytes.try_into().ok()?))
    }
    fn save(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.0).unwrap()
    }
    fn load(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        self.0 = postcard::from_bytes(bytes).map_err(|error| LoadError(error.to_string()))?;
        Ok(())
    }
}

struct OnRecordingDisk;

impl StoreBuilder<Types<Notes>, Store<Notes>, Machine<Notes>> for OnRecordingDisk {
    async fn build(&self) -> Result<((), Store<Notes>, Machine<Notes>), StorageError<u64>> {
        let dir = Arc::new(RecordingDisk::default());
        let store = Store::open_on(
            dir.clone(),
            config(),
            Box::new(Ticking::default()),
            random(1),
        );
        let machine = Machine::open(dir, Notes::default());
        Ok(((), store.unwrap(), machine.unwrap()))
    }
}

#[test]
fn the_store_and_the_machine_pass_the_suite_of_the_library() {
    Suite::test_all(OnRecordingDisk).unwrap();
}
