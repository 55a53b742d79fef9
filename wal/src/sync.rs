//! Locks, atomics, channels and threads.
//!
//! They are the standard library's. With the feature `shuttle`, which the checks in `tests/threads` alone
//! ask for, they are those of a scheduler that tries one interleaving after the other. What is shared
//! between the threads of a log is made of these, so that those checks see all of it.

#[cfg(feature = "shuttle")]
pub(crate) use shuttle::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic, mpsc},
    thread,
};
#[cfg(not(feature = "shuttle"))]
pub(crate) use std::{
    sync::{Condvar, Mutex, MutexGuard, RwLock, atomic, mpsc},
    thread,
};
