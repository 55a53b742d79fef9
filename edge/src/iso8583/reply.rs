//! Answers to messages.

use super::{FieldError, Message, Mti};

/// What an answer has of its request, where it was there. Clients match answers by 7, 11, 32, 37, 41
/// and 42; one without 41 is waited for in vain (github.com/tilln/jmeter-iso8583, issues 54 and 69).
const ECHOED: [u8; 15] = [2, 3, 4, 7, 11, 12, 13, 32, 33, 37, 41, 42, 49, 70, 90];
/// Characters of an approval code.
const APPROVAL_CODE_CHARS: usize = 6;
/// What twelve digits can say.
const AMOUNT_MAX: i64 = 999_999_999_999;

/// What an answer says beside what it echoes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Outcome<'a> {
    /// Field 39, two characters: 00 approved, 10 in part, others declined.
    pub response_code: &'a str,
    /// Field 38, on approvals only: six letters or digits.
    pub approval_code: Option<&'a str>,
    /// Field 4 where it is not what was asked for, in minor units.
    pub amount: Option<i64>,
    /// Field 54.
    pub additional_amounts: Option<&'a str>,
}

/// Why there is no answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ReplyError {
    /// It is an answer itself.
    #[error("a message of type {mti} is not answered")]
    Unanswered {
        /// Its type.
        mti: Mti,
    },
    /// The approval code is not six letters or digits.
    #[error("the approval code is not six letters or digits")]
    ApprovalCode,
    /// The amount is negative, or has more than twelve digits.
    #[error("the amount is negative or has more than twelve digits")]
    Amount,
    /// Another part of the outcome does not fit its field.
    #[error(transparent)]
    Field(#[from] FieldError),
}

// === impl Message ===

impl Message {
    /// The answer to this message: 0110 to 0100 and 0101, and so on ([`Mti::response`]). It echoes 2, 3,
    /// 4, 7, 11, 12, 13, 32, 33, 37, 41, 42, 49, 70 and 90 where they are there.
    ///
    /// # Errors
    /// When this is an answer itself, or the outcome does not fit its fields.
    pub fn reply(&self, outcome: &Outcome<'_>) -> Result<Self, ReplyError> {
        let Outcome {
            response_code,
            approval_code,
            amount,
            additional_amounts,
        } = *outcome;
        let mti = self.mti;
        let mut reply = Self::new(mti.response().ok_or(ReplyError::Unanswered { mti })?);
        for field in ECHOED {
            if let Some(value) = self.fields.get(&field) {
                reply.fields.insert(field, value.clone());
            }
        }
        if let Some(amount) = amount {
            if !(0..=AMOUNT_MAX).contains(&amount) {
                return Err(ReplyError::Amount);
            }
            reply.set(4, format!("{amount:012}"))?;
        }
        if let Some(code) = approval_code {
            let fits = code.len() == APPROVAL_CODE_CHARS;
            // The field would take blanks at the end.
            if !fits || !code.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
                return Err(ReplyError::ApprovalCode);
            }
            reply.set(38, code)?;
        }
        reply.set(39, response_code)?;
        if let Some(amounts) = additional_amounts {
            reply.set(54, amounts)?;
        }
        Ok(reply)
    }
}
