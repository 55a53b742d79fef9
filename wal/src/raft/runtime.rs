//! The library's tasks, time and chance: tokio's. Only its chance is ours to choose, so that a
//! simulation draws the same election timeouts from the same seed.

use std::future::Future;
use std::time::Duration;

use openraft::async_runtime::TokioOneShotSender;
use openraft::{AsyncRuntime, OptionalSend, TokioInstant, TokioRuntime};
use rand::RngCore;

#[cfg(feature = "testing")]
use super::chance::Chance;
/// The chance of the machine.
#[cfg(not(feature = "testing"))]
type Chance = <TokioRuntime as AsyncRuntime>::ThreadLocalRng;

/// A tick is late by up to so many milliseconds.
const LATE_MS_MASK: u64 = 15;

/// What the library runs on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Runtime;

impl AsyncRuntime for Runtime {
    type JoinError = tokio::task::JoinError;
    type JoinHandle<T: OptionalSend + 'static> = tokio::task::JoinHandle<T>;
    type Sleep = tokio::time::Sleep;
    type Instant = TokioInstant;
    type TimeoutError = tokio::time::error::Elapsed;
    type Timeout<R, T: Future<Output = R> + OptionalSend> = tokio::time::Timeout<T>;
    type ThreadLocalRng = Chance;
    type OneshotSender<T: OptionalSend> = TokioOneShotSender<T>;
    type OneshotReceiver<T: OptionalSend> = tokio::sync::oneshot::Receiver<T>;
    type OneshotReceiverError = tokio::sync::oneshot::error::RecvError;

    fn spawn<T>(future: T) -> Self::JoinHandle<T::Output>
    where
        T: Future + OptionalSend + 'static,
        T::Output: OptionalSend + 'static,
    {
        TokioRuntime::spawn(future)
    }

    fn sleep(duration: Duration) -> Self::Sleep {
        TokioRuntime::sleep(duration)
    }

    /// The library sleeps so between its ticks, and draws the election timeout once for the life of a
    /// node: two followers whose ticks fell into step would split the vote again and again. So each
    /// tick is late by chance.
    fn sleep_until(deadline: Self::Instant) -> Self::Sleep {
        let late = Self::thread_rng().next_u64() & LATE_MS_MASK;
        let late = deadline.checked_add(Duration::from_millis(late));
        TokioRuntime::sleep_until(late.unwrap_or(deadline))
    }

    fn timeout<R, F: Future<Output = R> + OptionalSend>(
        duration: Duration,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout(duration, future)
    }

    fn timeout_at<R, F: Future<Output = R> + OptionalSend>(
        deadline: Self::Instant,
        future: F,
    ) -> Self::Timeout<R, F> {
        TokioRuntime::timeout_at(deadline, future)
    }

    fn is_panic(join_error: &Self::JoinError) -> bool {
        TokioRuntime::is_panic(join_error)
    }

    fn thread_rng() -> Self::ThreadLocalRng {
        #[cfg(feature = "testing")]
        return Chance::of_this_thread();
        #[cfg(not(feature = "testing"))]
        TokioRuntime::thread_rng()
    }

    fn oneshot<T>() -> (Self::OneshotSender<T>, Self::OneshotReceiver<T>)
    where
        T: OptionalSend,
    {
        TokioRuntime::oneshot()
    }
}
