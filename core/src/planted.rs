//! Bugs that a simulator must find. Only with the feature `testing`, and only on a thread that asked
//! for one, is any of them there; otherwise [`planted`] is `false` at compile time.

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// The cap is held against the sum less one.
    CapOffByOne,
    /// A register that is loaded has forgotten its payments.
    DedupeForgotten,
    /// A register that is loaded has forgotten what was approved while standing in.
    CountersForgotten,
    /// A tombstone is answered and not kept.
    TombstoneIgnored,
    /// A trip's close is not kept.
    CloseIgnored,
    /// An advice that does not fit the cap is not taken.
    AdviceRefused,
    /// That a bank is told an answer again is not kept.
    HeardIgnored,
    /// A late mark is not kept.
    LateMarkLost,
    /// The drain's cursor moves in a commit of its own, before the rows.
    CursorOutside,
    /// Who drains does not look where the cursor is, and adds to what is booked.
    BookedTwice,
    /// A payment whose fate is unknown is decided anew.
    DecidedAnew,
    /// An edge that does not lead answers before the log has committed.
    AnsweredBeforeCommit,
}

#[cfg(feature = "testing")]
thread_local! {
    static NOW: std::cell::Cell<Option<Planted>> = const { std::cell::Cell::new(None) };
}

#[cfg(feature = "testing")]
impl Planted {
    /// Every bug.
    pub const ALL: [Self; 12] = [
        Self::CapOffByOne,
        Self::DedupeForgotten,
        Self::CountersForgotten,
        Self::TombstoneIgnored,
        Self::CloseIgnored,
        Self::AdviceRefused,
        Self::HeardIgnored,
        Self::LateMarkLost,
        Self::CursorOutside,
        Self::BookedTwice,
        Self::DecidedAnew,
        Self::AnsweredBeforeCommit,
    ];
}

/// Plants a bug on this thread; `None`: none.
#[cfg(feature = "testing")]
pub fn plant(bug: Option<Planted>) {
    NOW.set(bug);
}

/// Whether this bug is there.
#[cfg(feature = "testing")]
pub fn planted(bug: Planted) -> bool {
    NOW.get() == Some(bug)
}

/// Whether this bug is there: it is not.
#[cfg(not(feature = "testing"))]
pub const fn planted(_: Planted) -> bool {
    false
}
