//! A value and news of it.
//!
//! Whoever waits is woken in the order in which the waits began (tokio's own `watch` wakes in a random
//! order): what a node does follows from what happened to it alone, which is what a simulation
//! replays.

use std::sync::{Arc, PoisonError};

use tokio::sync::Notify;

use crate::sync::Mutex;

/// The value; clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct News<T>(Arc<Inner<T>>);

#[derive(Debug, Default)]
struct Inner<T> {
    value: Mutex<T>,
    changed: Notify,
}

// === impl News ===

impl<T: Copy> News<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Inner {
            value: Mutex::new(value),
            changed: Notify::new(),
        }))
    }

    pub(crate) fn get(&self) -> T {
        *self.0.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the value and wakes whoever waits.
    pub(crate) fn set(&self, value: T) {
        *self.0.value.lock().unwrap_or_else(PoisonError::into_inner) = value;
        self.0.changed.notify_waiters();
    }

    /// Changes the value and wakes whoever waits.
    pub(crate) fn update(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.value.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.changed.notify_waiters();
    }

    /// Resolves once the value is as wanted.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&T) -> bool) {
        loop {
            // Waits from here on, so that no change after the look below is missed.
            let changed = self.0.changed.notified();
            if wanted(&self.get()) {
                return;
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_in_order_and_hears_of_every_end() {
        let news = News::new(0);
        let order = Arc::new(Mutex::new(Vec::new()));
        let mut waiting = Vec::new();
        for number in 0..20 {
            let (news, order) = (news.clone(), Arc::clone(&order));
            waiting.push(tokio::spawn(async move {
                news.wait_for(|value| *value == 7).await;
                order.lock().unwrap().push(number);
            }));
        }
        tokio::task::yield_now().await;
        for value in [3, 7, 7] {
            news.set(value);
            tokio::task::yield_now().await;
        }
        for one in waiting {
            one.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..20).collect::<Vec<_>>());
        news.wait_for(|value| *value == 7).await;
    }
}
