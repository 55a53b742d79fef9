//! The library's own suite for log stores and state machines, on the recording disk.

use std::sync::Arc;

use openraft::StorageError;
use openraft::testing::{StoreBuilder, Suite};

use super::Types;
use super::machine::Machine;
pub(crate) use super::notes::Notes;
use super::store::Store;
use crate::disk::recording::RecordingDisk;
use crate::tests::lab::{Ticking, config, random};

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
