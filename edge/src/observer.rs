//! What the banks' door saw of each request, for whoever asks to see it: a sandbox shows it to those who
//! connect to one. A door in production has no observer, and then nothing of this is made.
//!
//! It says more than a sender is ever told (why a request is not authentic), and never what is secret:
//! neither signatures nor bodies.

use standin_core::answer::Answer;

use crate::adapter::Asked;
use crate::authenticate::AuthenticationError;
use crate::path::TakenBack;
use crate::problem::Problem;

/// Hears of each request once it has its response.
pub trait Observer: Send + Sync + 'static {
    /// Tells what became of one.
    fn saw(&self, seen: &Seen);
}

/// What became of one request, as far as it came.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// Its path; `None` of a message of ISO 8583, and of what the server turned away by itself, while it
    /// was read.
    pub path: Option<String>,
    /// Whether it is its bank's; `None`: that was not asked.
    pub authentic: Option<Result<(), AuthenticationError>>,
    /// What was understood.
    pub asked: Option<Asked>,
    /// What it was told.
    pub told: Told,
}

/// What a request was told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Told {
    /// The handler did not end.
    Nothing,
    /// An answer, and whether it had been given before.
    Answer(Box<Answer>, bool),
    /// What came of taking a payment back.
    TakenBack(TakenBack),
    /// That what the bank did by itself is recorded.
    Recorded,
    /// No answer, and why.
    Problem(Problem),
}

/// What is kept of a request for the observer, if there is one.
pub(crate) struct Notes(Option<Seen>);

// === impl Notes ===

impl Notes {
    /// Of a request to this path; of none where nobody observes.
    pub(crate) fn new(is_observed: bool, path: &str) -> Self {
        Self(is_observed.then(|| Seen {
            path: Some(path.to_owned()),
            ..Seen::nothing()
        }))
    }

    /// Of a message, which has no path.
    pub(crate) fn of_message(is_observed: bool) -> Self {
        Self(is_observed.then(Seen::nothing))
    }

    pub(crate) fn authentic(&mut self, authentic: Result<(), AuthenticationError>) {
        if let Some(seen) = &mut self.0 {
            seen.authentic = Some(authentic);
        }
    }

    pub(crate) fn asked(&mut self, asked: &Asked) {
        if let Some(seen) = &mut self.0 {
            seen.asked = Some(asked.clone());
        }
    }

    pub(crate) fn answer(&mut self, answer: &Answer, replayed: bool) {
        if let Some(seen) = &mut self.0 {
            seen.told = Told::Answer(Box::new(answer.clone()), replayed);
        }
    }

    pub(crate) fn taken_back(&mut self, taken: &TakenBack) {
        if let Some(seen) = &mut self.0 {
            seen.told = Told::TakenBack(*taken);
        }
    }

    pub(crate) fn recorded(&mut self) {
        if let Some(seen) = &mut self.0 {
            seen.told = Told::Recorded;
        }
    }

    pub(crate) fn problem(&mut self, problem: &Problem) {
        if let Some(seen) = &mut self.0 {
            seen.told = Told::Problem(problem.clone());
        }
    }

    /// What was seen.
    pub(crate) fn seen(&self) -> Option<&Seen> {
        self.0.as_ref()
    }
}

// === impl Seen ===

impl Seen {
    const fn nothing() -> Self {
        Self {
            path: None,
            authentic: None,
            asked: None,
            told: Told::Nothing,
        }
    }

    /// Of a request that was turned away while it was read.
    pub(crate) fn turned_away(problem: &Problem) -> Self {
        Self {
            told: Told::Problem(problem.clone()),
            ..Self::nothing()
        }
    }
}
