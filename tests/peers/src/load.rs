//! Writers that append as fast as they are answered, in threads or in tasks, as the log's own
//! interface asks for.

use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;

use crate::recorder::Recorder;

/// Bytes of one append.
pub const BODY_BYTES: usize = 256;

/// Appends by a call that returns when it is durable.
pub trait BlockingWriter: Send {
    /// Makes one body durable.
    fn append(&mut self, body: &[u8]) -> anyhow::Result<()>;
}

/// Appends by a future that resolves when it is durable.
pub trait Writer: Send + 'static {
    /// Makes one body durable.
    fn append(&mut self, body: &[u8]) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// What a writer appends: bytes that do not compress, with its number and a count in front.
pub struct Bodies {
    bytes: [u8; BODY_BYTES],
    count: u64,
}

// === impl Bodies ===

impl Bodies {
    /// Of the writer of that number.
    pub fn new(writer: usize) -> Self {
        let mut bytes = [0; BODY_BYTES];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64 ^ (writer as u64).rotate_left(17);
        for chunk in bytes.chunks_mut(8) {
            // splitmix64
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(word ^ (word >> 31)).to_le_bytes()[..chunk.len()]);
        }
        bytes[8..16].copy_from_slice(&(writer as u64).to_le_bytes());
        Self { bytes, count: 0 }
    }

    /// The next one.
    pub fn next(&mut self) -> &[u8; BODY_BYTES] {
        self.count += 1;
        self.bytes[..8].copy_from_slice(&self.count.to_le_bytes());
        &self.bytes
    }
}

/// One thread a writer, until the window is over.
pub fn in_threads<W: BlockingWriter>(recorder: &Recorder, writers: Vec<W>) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .into_iter()
            .enumerate()
            .map(|(number, mut writer)| {
                scope.spawn(move || {
                    let (mut bodies, mut notes) = (Bodies::new(number), recorder.notes());
                    while !recorder.is_over() {
                        let body = bodies.next();
                        let begun = Instant::now();
                        writer.append(body)?;
                        notes.note(begun);
                    }
                    anyhow::Ok(())
                })
            })
            .collect();
        scope.spawn(|| recorder.call_out());
        for thread in threads {
            let done = thread.join().ok().context("a writer panicked")?;
            done.context("an append failed")?;
        }
        Ok(())
    })
}

/// One task a writer, until the window is over.
pub async fn in_tasks<W: Writer>(recorder: &Arc<Recorder>, writers: Vec<W>) -> anyhow::Result<()> {
    let mut tasks = tokio::task::JoinSet::new();
    for (number, mut writer) in writers.into_iter().enumerate() {
        let recorder = Arc::clone(recorder);
        tasks.spawn(async move {
            let (mut bodies, mut notes) = (Bodies::new(number), recorder.notes());
            while !recorder.is_over() {
                let body = bodies.next();
                let begun = Instant::now();
                writer.append(body).await?;
                notes.note(begun);
            }
            anyhow::Ok(())
        });
    }
    let caller = Arc::clone(recorder);
    let calling = std::thread::spawn(move || caller.call_out());
    while let Some(done) = tasks.join_next().await {
        done?.context("an append failed")?;
    }
    let called = tokio::task::spawn_blocking(move || calling.join()).await?;
    called.ok().context("the caller panicked")
}
