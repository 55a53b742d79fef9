//! Message types (ISO 8583:1987): version 0, class, function, and who began it.

use std::fmt;

/// The message types that are known. `Repeat` is the same message sent again for want of an answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Mti {
    /// 0100: may this card be charged?
    AuthorizationRequest,
    /// 0101.
    AuthorizationRepeat,
    /// 0110.
    AuthorizationResponse,
    /// 0120: somebody else has decided; it cannot be declined.
    AuthorizationAdvice,
    /// 0121.
    AuthorizationAdviceRepeat,
    /// 0130.
    AuthorizationAdviceResponse,
    /// 0400: undo an approval, or a part of it.
    ReversalRequest,
    /// 0401.
    ReversalRepeat,
    /// 0410.
    ReversalResponse,
    /// 0420: an approval was undone; it cannot be declined.
    ReversalAdvice,
    /// 0421.
    ReversalAdviceRepeat,
    /// 0430.
    ReversalAdviceResponse,
    /// 0800: sign on, sign off, echo; field 70 says which.
    NetworkRequest,
    /// 0810.
    NetworkResponse,
}

// === impl Mti ===

impl Mti {
    /// All of them.
    pub const ALL: [Self; 14] = [
        Self::AuthorizationRequest,
        Self::AuthorizationRepeat,
        Self::AuthorizationResponse,
        Self::AuthorizationAdvice,
        Self::AuthorizationAdviceRepeat,
        Self::AuthorizationAdviceResponse,
        Self::ReversalRequest,
        Self::ReversalRepeat,
        Self::ReversalResponse,
        Self::ReversalAdvice,
        Self::ReversalAdviceRepeat,
        Self::ReversalAdviceResponse,
        Self::NetworkRequest,
        Self::NetworkResponse,
    ];

    /// The four digits.
    pub const fn digits(self) -> &'static str {
        match self {
            Self::AuthorizationRequest => "0100",
            Self::AuthorizationRepeat => "0101",
            Self::AuthorizationResponse => "0110",
            Self::AuthorizationAdvice => "0120",
            Self::AuthorizationAdviceRepeat => "0121",
            Self::AuthorizationAdviceResponse => "0130",
            Self::ReversalRequest => "0400",
            Self::ReversalRepeat => "0401",
            Self::ReversalResponse => "0410",
            Self::ReversalAdvice => "0420",
            Self::ReversalAdviceRepeat => "0421",
            Self::ReversalAdviceResponse => "0430",
            Self::NetworkRequest => "0800",
            Self::NetworkResponse => "0810",
        }
    }

    /// The type with these four digits.
    pub fn of(digits: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mti| mti.digits() == digits)
    }

    /// The type of the answer; `None` if it is one itself.
    pub const fn response(self) -> Option<Self> {
        match self {
            Self::AuthorizationRequest | Self::AuthorizationRepeat => {
                Some(Self::AuthorizationResponse)
            }
            Self::AuthorizationAdvice | Self::AuthorizationAdviceRepeat => {
                Some(Self::AuthorizationAdviceResponse)
            }
            Self::ReversalRequest | Self::ReversalRepeat => Some(Self::ReversalResponse),
            Self::ReversalAdvice | Self::ReversalAdviceRepeat => Some(Self::ReversalAdviceResponse),
            Self::NetworkRequest => Some(Self::NetworkResponse),
            Self::AuthorizationResponse
            | Self::AuthorizationAdviceResponse
            | Self::ReversalResponse
            | Self::ReversalAdviceResponse
            | Self::NetworkResponse => None,
        }
    }

    /// Whether it was sent before.
    pub const fn is_repeat(self) -> bool {
        matches!(
            self,
            Self::AuthorizationRepeat
                | Self::AuthorizationAdviceRepeat
                | Self::ReversalRepeat
                | Self::ReversalAdviceRepeat
        )
    }
}

impl fmt::Display for Mti {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.digits())
    }
}
