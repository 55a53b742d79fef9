//! Waiting for a condition, with a deadline that fails the test in words.

use std::time::Duration;

use tokio::time::Instant;

/// How often a condition without an event of its own is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// Polls `look` until it gives something; after `within` the test fails with `what`.
pub async fn until<T, F>(what: &str, within: Duration, mut look: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let deadline = Instant::now().checked_add(within).unwrap();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within {within:?}");
        tokio::time::sleep(POLL).await;
    }
}

/// [`until`] for a condition that needs no await.
pub async fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> bool) {
    until(what, within, || {
        let seen = look().then_some(());
        async move { seen }
    })
    .await;
}
