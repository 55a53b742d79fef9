//! Bugs that a simulator must find. Only with the feature `testing`, and only on a thread that asked
//! for one, is any of them there; otherwise [`planted`] is `false` at compile time.

/// A bug.
#[cfg_attr(
    not(feature = "testing"),
    allow(unreachable_pub, reason = "shown by `testing` alone")
)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// An append is told durable before it was synced.
    NoSync,
    /// An append is told durable before it was written, so that a vote may overtake it.
    ToldBeforeWritten,
    /// A vote is told durable and only kept in memory.
    VoteNotDurable,
    /// A vote is written to one slot only.
    VoteInOneSlot,
    /// A truncation is told durable and not written.
    TruncationNotDurable,
    /// Whatever does not read back is taken for a torn write and cut.
    DamageIsCut,
    /// A follower says that it has what it was only sent.
    AckUnread,
    /// All that is on the disk counts as committed when the log is opened.
    DiskIsCommitted,
    /// A failed sync is taken for none.
    FailedSyncForgotten,
    /// Log time is whatever the leader's clock says.
    LogTimeGoesBack,
    /// A snapshot does not keep its log time.
    SnapshotForgetsTime,
}

#[cfg(feature = "testing")]
impl Planted {
    /// Every bug.
    pub const ALL: [Self; 11] = [
        Self::NoSync,
        Self::ToldBeforeWritten,
        Self::VoteNotDurable,
        Self::VoteInOneSlot,
        Self::TruncationNotDurable,
        Self::DamageIsCut,
        Self::AckUnread,
        Self::DiskIsCommitted,
        Self::FailedSyncForgotten,
        Self::LogTimeGoesBack,
        Self::SnapshotForgetsTime,
    ];
}

#[cfg(feature = "testing")]
thread_local! {
    static NOW: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

/// Plants a bug in every log on this thread; `None`: none.
#[cfg(feature = "testing")]
pub fn plant(bug: Option<Planted>) {
    NOW.set(bug);
}

/// Whether this bug is there.
#[cfg(feature = "testing")]
pub(crate) fn planted(bug: Planted) -> bool {
    NOW.get() == Some(bug)
}

/// Whether this bug is there: it is not.
#[cfg(not(feature = "testing"))]
pub(crate) const fn planted(_: Planted) -> bool {
    false
}
