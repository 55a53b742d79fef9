//! The recorded history of every client: one [`Attempt`] a request, kept as JSON lines, so that an
//! old run can be judged again.
//!
//! An attempt holds no secret, signature, card number or position; the merchant is inside the
//! body's hash only.

use std::io::{self, BufRead, Write};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use standin_core::answer::{Code, Reason, Rung, Verdict};
use standin_core::id::{BankId, ShopperId, TransactionId};
use standin_core::money::{Currency, Money};

/// Longest line of a history file, in bytes; a longer one is refused.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// The statuses that carry an answer: approved, declined.
pub const ANSWER_STATUSES: [u16; 2] = [200, 402];

/// One request of a client, and what became of it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attempt {
    /// Which payment the client meant: the bank's own key, or a name the client made for the
    /// payment when it sends no key. All retries of one payment share it.
    pub payment: String,
    /// The payment's identity where the client can compute it (it can when it sends a key).
    pub transaction_id: Option<TransactionId>,
    /// Who asked.
    pub bank: BankId,
    /// Whose card.
    pub shopper: ShopperId,
    /// Of the body. Bodies that mean the same must be the same bytes in a history.
    pub body: BodyHash,
    /// The amount asked for.
    pub amount: Money,
    /// Which edge was asked.
    pub edge: String,
    /// Whether the request was signed with a live secret and inside the time window.
    pub verified: bool,
    /// When the request should have been sent (open loop), milliseconds since the epoch.
    pub intended_at: i64,
    /// When it was sent.
    pub sent_at: i64,
    /// When the reply was complete, or the client gave up.
    pub answered_at: i64,
    /// From the intended moment to the reply, microseconds by a monotonic clock: free of
    /// coordinated omission.
    pub latency_us: u64,
    /// What came back.
    pub outcome: Outcome,
    /// What the payment was made to get.
    pub expectation: Option<Expectation>,
}

/// First half of the SHA-256 of a body; text form is 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BodyHash([u8; 16]);

/// What came back for one attempt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Status 200 or 402, or a stored 500: an answer.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The body. Bytes that are not UTF-8 arrive as replacement characters, which no answer
        /// of ours contains.
        body: String,
        /// Whether `Idempotent-Replayed: true` came with it.
        replayed: bool,
    },
    /// Any other status: no answer.
    Refused {
        /// The HTTP status.
        status: u16,
        /// Whether `Idempotent-Replayed: true` came with it, which it never should.
        replayed: bool,
        /// The `cause` that a problem's body gave, if it gave one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cause: Option<String>,
    },
    /// No reply, or half of one.
    NoReply,
}

/// What a payment was made to get.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Expectation {
    /// 200.
    Approved,
    /// 402 with one of these reasons; with any when empty.
    Declined(Vec<Reason>),
    /// This status, and no answer.
    Refused(u16),
    /// Nothing: no answer came, and the client asked again within the deadline. The last attempt at
    /// a payment is the one that is judged.
    AskedAgain,
}

/// An answer's body, read back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
    /// Approve or decline.
    pub verdict: Verdict,
    /// Why.
    pub reason: Reason,
    /// The payment.
    pub transaction_id: TransactionId,
    /// Present on approvals.
    pub code: Option<Code>,
    /// The amount approved or declined.
    pub amount: Money,
    /// How it was reached.
    pub rung: Rung,
}

/// Why a body with an answer's status is not an answer.
#[derive(Debug, thiserror::Error)]
pub enum SaidError {
    /// Not the JSON an answer has.
    #[error("not an answer: {0}")]
    Json(#[from] serde_json::Error),
    /// The amount is not one of its currency.
    #[error("amount: {0}")]
    Amount(#[from] standin_core::money::MoneyError),
    /// Status and decision do not say the same.
    #[error("status {status} with decision {verdict}")]
    Status {
        /// The status it came with.
        status: u16,
        /// What the body says.
        verdict: Verdict,
    },
}

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file cannot be read.
    #[error("history: {0}")]
    Io(#[from] io::Error),
    /// A line is not an attempt.
    #[error("history line {line}: {source}")]
    Line {
        /// Counted from 1.
        line: u64,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A line is too long.
    #[error("history line {line} is longer than {LINE_BYTES_MAX} bytes")]
    Long {
        /// Counted from 1.
        line: u64,
    },
}

/// How the attempts of a history went, counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Attempts.
    pub requests: u64,
    /// Payments that got neither an answer nor the refusal they were made to get, however often and
    /// wherever the client asked within the deadline; each series of attempts counts once.
    pub no_answer: u64,
    /// Answers that came after the deadline, counted from the intended moment.
    pub late: u64,
    /// Replies that differ from what the payment was made to get.
    pub wrong: u64,
    /// Attempts without an answer that the client made again within the deadline, at the same edge or
    /// another.
    #[serde(default)]
    pub retried: u64,
}

// === impl Attempt ===

impl Attempt {
    /// Whether this request may have begun executing: it was verified, and its reply does not rule
    /// it out (401, 422, 429 and malformed requests never begin; a 503 may have).
    pub fn may_have_begun(&self) -> bool {
        self.verified
            && match &self.outcome {
                Outcome::Answered { .. } | Outcome::NoReply => true,
                Outcome::Refused { status, .. } => *status >= 500,
            }
    }

    /// Whether the reply is not what the payment was made to get. No reply is not a wrong one.
    pub fn is_wrong(&self) -> bool {
        let Some(expected) = &self.expectation else {
            return false;
        };
        match &self.outcome {
            Outcome::NoReply => false,
            Outcome::Refused { status, .. } => match expected {
                Expectation::Refused(wanted) => wanted != status,
                // A refusal in place of an answer is counted as no answer.
                Expectation::Approved | Expectation::Declined(_) | Expectation::AskedAgain => false,
            },
            Outcome::Answered { status, body, .. } => match (expected, Said::read(*status, body)) {
                (Expectation::Refused(wanted), _) => wanted != status,
                // Whoever has an answer does not ask again for one.
                (Expectation::AskedAgain, _) => true,
                (_, Err(_)) => true,
                (Expectation::Approved, Ok(said)) => said.verdict != Verdict::Approved,
                (Expectation::Declined(reasons), Ok(said)) => {
                    said.verdict != Verdict::Declined
                        || !(reasons.is_empty() || reasons.contains(&said.reason))
                }
            },
        }
    }

    /// Whether the attempt got neither an answer nor the refusal it was made to get, and was the last
    /// at its payment.
    pub fn is_unanswered(&self) -> bool {
        match (&self.outcome, &self.expectation) {
            (Outcome::Answered { .. }, _) | (_, Some(Expectation::AskedAgain)) => false,
            (Outcome::NoReply, _) => true,
            (Outcome::Refused { .. }, expected) => {
                !matches!(expected, Some(Expectation::Refused(_)))
            }
        }
    }
}

// === impl Outcome ===

impl Outcome {
    /// What a reply with this status, body and `Idempotent-Replayed` header is.
    pub fn of_reply(status: u16, body: &[u8], replayed: Option<&str>) -> Self {
        let replayed = replayed == Some("true");
        if ANSWER_STATUSES.contains(&status) || (status == 500 && replayed) {
            Self::Answered {
                status,
                body: String::from_utf8_lossy(body).into_owned(),
                replayed,
            }
        } else {
            let cause = serde_json::from_slice(body).ok();
            Self::Refused {
                status,
                replayed,
                cause: cause.and_then(|problem: ProblemBody| problem.cause),
            }
        }
    }
}

/// What of a problem says why there is no answer.
#[derive(Deserialize)]
struct ProblemBody {
    cause: Option<String>,
}

// === impl Said ===

#[derive(Deserialize)]
struct SaidBody {
    decision: Verdict,
    reason: Reason,
    transaction_id: String,
    #[serde(default)]
    authorization_code: Option<Code>,
    amount: String,
    currency: Currency,
    rung: Rung,
}

impl Said {
    /// Reads the body of an answer.
    ///
    /// # Errors
    /// When it is not one, or says another decision than its status.
    pub fn read(status: u16, body: &str) -> Result<Self, SaidError> {
        let read: SaidBody = serde_json::from_str(body)?;
        let said = Self {
            verdict: read.decision,
            reason: read.reason,
            transaction_id: read
                .transaction_id
                .parse()
                .map_err(<serde_json::Error as serde::de::Error>::custom)?,
            code: read.authorization_code,
            amount: Money::parse(&read.amount, read.currency)?,
            rung: read.rung,
        };
        let status_says = match said.verdict {
            Verdict::Approved => 200,
            Verdict::Declined => 402,
        };
        if status != status_says {
            return Err(SaidError::Status {
                status,
                verdict: said.verdict,
            });
        }
        Ok(said)
    }
}

// === impl BodyHash ===

impl BodyHash {
    /// Of these bytes.
    pub fn of(body: &[u8]) -> Self {
        let digest: [u8; 32] = Sha256::digest(body).into();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self(half)
    }
}

impl From<BodyHash> for String {
    fn from(hash: BodyHash) -> Self {
        format!("{:032x}", u128::from_be_bytes(hash.0))
    }
}

impl TryFrom<String> for BodyHash {
    type Error = String;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        u128::from_str_radix(&text, 16)
            .ok()
            .filter(|_| hex)
            .map(|number| Self(number.to_be_bytes()))
            .ok_or_else(|| "a body hash is 32 hexadecimal digits".to_owned())
    }
}

// === impl Counts ===

impl Counts {
    /// Counts a history; `deadline_ms` is what an answer may take from its intended moment.
    pub fn of<'a>(history: impl IntoIterator<Item = &'a Attempt>, deadline_ms: u64) -> Self {
        let mut counts = Self::default();
        for attempt in history {
            let bump = |count: &mut u64, happened: bool| {
                *count = count.saturating_add(u64::from(happened));
            };
            bump(&mut counts.requests, true);
            bump(&mut counts.no_answer, attempt.is_unanswered());
            bump(&mut counts.wrong, attempt.is_wrong());
            let again = attempt.expectation == Some(Expectation::AskedAgain);
            bump(&mut counts.retried, again);
            let answered = matches!(attempt.outcome, Outcome::Answered { .. });
            bump(
                &mut counts.late,
                answered && attempt.latency_us > deadline_ms.saturating_mul(1_000),
            );
        }
        counts
    }
}

/// Writes attempts as JSON lines.
///
/// # Errors
/// When the writer fails.
pub fn write<'a>(
    mut out: impl Write,
    history: impl IntoIterator<Item = &'a Attempt>,
) -> io::Result<()> {
    for attempt in history {
        serde_json::to_writer(&mut out, attempt)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Reads a history back.
///
/// # Errors
/// At the first line that is not an attempt: a history is judged whole or not at all.
pub fn read(mut input: impl BufRead) -> Result<Vec<Attempt>, HistoryError> {
    let mut history = Vec::new();
    let mut text = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).unwrap_or(u64::MAX);
    for line in 1_u64.. {
        text.clear();
        let got =
            io::Read::take(&mut input, limit.saturating_add(1)).read_until(b'\n', &mut text)?;
        if got == 0 {
            break;
        }
        if got > LINE_BYTES_MAX {
            return Err(HistoryError::Long { line });
        }
        let attempt =
            serde_json::from_slice(&text).map_err(|source| HistoryError::Line { line, source })?;
        history.push(attempt);
    }
    Ok(history)
}

#[cfg(test)]
mod tests;
