//! Batching by the caller: one thread commits all that waits, for stores that do not batch.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::load::{BODY_BYTES, BlockingWriter, in_threads};
use crate::recorder::{Found, Recorder};

/// A store that takes many bodies at once.
pub trait Sink: Send + 'static {
    /// Makes all of them durable, in one commit.
    fn commit(&mut self, bodies: &[[u8; BODY_BYTES]]) -> anyhow::Result<()>;
}

#[derive(Default)]
struct Waiting {
    bodies: Vec<([u8; BODY_BYTES], Arc<Told>)>,
    closed: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    ready: Condvar,
}

/// What a writer waits for.
#[derive(Default)]
struct Told {
    done: Mutex<Option<bool>>,
    news: Condvar,
}

struct Waiter {
    queue: Arc<Queue>,
    told: Arc<Told>,
}

impl BlockingWriter for Waiter {
    fn append(&mut self, body: &[u8]) -> anyhow::Result<()> {
        let mut waiting = locked(&self.queue.waiting);
        anyhow::ensure!(!waiting.closed, "the committing thread has failed");
        waiting
            .bodies
            .push((body.try_into()?, Arc::clone(&self.told)));
        drop(waiting);
        self.queue.ready.notify_one();
        let done = locked(&self.told.done);
        let news = &self.told.news;
        let mut done = news
            .wait_while(done, |done| done.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        anyhow::ensure!(done.take() == Some(true), "a commit failed");
        Ok(())
    }
}

/// Measures writers in front of one committing thread.
pub fn measure(
    sink: impl Sink,
    count: usize,
    recorder: impl Fn() -> Arc<Recorder>,
) -> anyhow::Result<Found> {
    let queue = Arc::new(Queue::default());
    let writers = (0..count)
        .map(|_| Waiter {
            queue: Arc::clone(&queue),
            told: Arc::default(),
        })
        .collect();
    let for_thread = Arc::clone(&queue);
    let committing = std::thread::spawn(move || commit(&for_thread, sink));
    let recorder = recorder();
    let done = in_threads(&recorder, writers);
    locked(&queue.waiting).closed = true;
    queue.ready.notify_one();
    let committed = committing.join();
    done?;
    committed.map_err(|_panic| anyhow::anyhow!("the committing thread panicked"))??;
    Ok(recorder.found(Default::default()))
}

fn commit(queue: &Queue, mut sink: impl Sink) -> anyhow::Result<()> {
    loop {
        let taken = {
            let waiting = locked(&queue.waiting);
            let idle = |waiting: &mut Waiting| waiting.bodies.is_empty() && !waiting.closed;
            let mut waiting = queue
                .ready
                .wait_while(waiting, idle)
                .unwrap_or_else(PoisonError::into_inner);
            if waiting.bodies.is_empty() {
                return Ok(());
            }
            std::mem::take(&mut waiting.bodies)
        };
        let (bodies, told): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
        let done = sink.commit(&bodies);
        if done.is_err() {
            locked(&queue.waiting).closed = true;
        }
        for one in told {
            *locked(&one.done) = Some(done.is_ok());
            one.news.notify_one();
        }
        done?;
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
