//! A server that refuses is dialled by one caller at a time, and not at once again.
//!
//! Each connection costs a server a process, also where all that it says is that it takes no writes.
//! When a primary goes away every payment under way would dial every host, those that answer would
//! do little else, and so would the machine.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::super::LedgerError;
use crate::answer::Why;

/// How long nobody dials after a refusal. A promotion is noticed so much later.
const REST: Duration = Duration::from_millis(100);

/// What the last to dial were told.
#[derive(Debug)]
pub(super) struct Refusals {
    last: Mutex<Last>,
    /// Held by whoever dials a server that is not known to let us in.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
enum Last {
    /// It let us in, or was never asked.
    LetIn,
    /// What it had let in broke.
    Broke,
    Refused {
        at: Instant,
        said: LedgerError,
    },
}

// === impl Refusals ===

impl Refusals {
    pub(super) fn new() -> Self {
        Self {
            last: Mutex::new(Last::LetIn),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// Dials. After a refusal, for a while, this gives what was said then; later one caller dials, and
    /// the others wait, for `wait` at most, for what it is told.
    pub(super) async fn dial<T>(
        &self,
        wait: Duration,
        dialled: impl Future<Output = Result<T, LedgerError>>,
    ) -> Result<T, LedgerError> {
        if self.lets_in()? {
            return self.told(dialled.await);
        }
        let turn = timeout(wait, self.turn.lock()).await.map_err(|_elapsed| {
            LedgerError::unreachable("the server has not said yet whether it lets us in")
        })?;
        if self.lets_in()? {
            drop(turn);
        }
        self.told(dialled.await)
    }

    /// Connections to it broke: it is as likely as not to refuse.
    pub(super) fn broke(&self) {
        let mut last = self.last();
        if matches!(*last, Last::LetIn) {
            *last = Last::Broke;
        }
    }

    /// Something has changed there: a refusal of before says nothing any more.
    pub(super) fn forget(&self) {
        *self.last() = Last::Broke;
    }

    /// Whether all may dial; an error when nobody may.
    fn lets_in(&self) -> Result<bool, LedgerError> {
        match &*self.last() {
            Last::LetIn => Ok(true),
            Last::Refused { at, said } if at.elapsed() < REST => Err(said.clone()),
            Last::Broke | Last::Refused { .. } => Ok(false),
        }
    }

    fn told<T>(&self, dialled: Result<T, LedgerError>) -> Result<T, LedgerError> {
        match &dialled {
            Ok(_) => *self.last() = Last::LetIn,
            // No connection of the pool came free: nobody dialled.
            Err(said) if said.why == Why::Timeout => {}
            Err(said) => {
                *self.last() = Last::Refused {
                    at: Instant::now(),
                    said: said.clone(),
                }
            }
        }
        dialled
    }

    fn last(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const WAIT: Duration = Duration::from_secs(1);

    fn refused() -> LedgerError {
        LedgerError::unreachable("go away")
    }

    /// Dials `number` times at once; each takes 10 ms. Gives how often the server was dialled, and
    /// how many were let in.
    async fn at_once(refusals: &Refusals, number: usize, lets_in: bool) -> (usize, usize) {
        let dials = AtomicUsize::new(0);
        let dial = || {
            refusals.dial(WAIT, async {
                dials.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                lets_in.then_some(()).ok_or_else(refused)
            })
        };
        let all = futures_util::future::join_all((0..number).map(|_| dial())).await;
        let let_in = all.iter().filter(|dialled| dialled.is_ok()).count();
        (dials.into_inner(), let_in)
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_refuses_is_dialled_by_one_after_a_rest() {
        let refusals = Refusals::new();
        refusals.broke();
        assert_eq!(at_once(&refusals, 20, false).await, (1, 0));
        assert_eq!(at_once(&refusals, 20, true).await, (0, 0), "it rests");
        tokio::time::advance(REST).await;
        assert_eq!(at_once(&refusals, 20, false).await, (1, 0));
        tokio::time::advance(REST).await;
        assert_eq!(at_once(&refusals, 20, true).await, (20, 20));
        assert_eq!(at_once(&refusals, 20, true).await, (20, 20));
    }

    #[tokio::test(start_paused = true)]
    async fn where_something_changed_the_next_dials_at_once() {
        let refusals = Refusals::new();
        refusals.broke();
        assert_eq!(at_once(&refusals, 3, false).await, (1, 0));
        refusals.broke();
        assert_eq!(at_once(&refusals, 3, true).await, (0, 0), "it rests");
        refusals.forget();
        assert_eq!(at_once(&refusals, 3, true).await, (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_leaves_the_turn_to_the_next() {
        let refusals = Refusals::new();
        refusals.broke();
        let silent = refusals.dial(WAIT, std::future::pending::<Result<(), _>>());
        let given_up = timeout(Duration::from_millis(5), silent).await;
        assert!(given_up.is_err());
        assert_eq!(at_once(&refusals, 3, true).await, (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_so_long_and_no_longer() {
        let refusals = Refusals::new();
        refusals.broke();
        let silent = refusals.dial(WAIT, std::future::pending::<Result<(), _>>());
        let next = refusals.dial(WAIT, async { Ok(()) });
        tokio::select! {
            biased;
            _ = silent => unreachable!("nobody answers"),
            next = next => assert!(next.is_err()),
        }
    }
}
