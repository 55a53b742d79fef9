//! The table of cards: which shopper carries a card, by the token that a bank's messages name.

use serde::{Deserialize, Serialize};

use crate::id::{BankId, ShopperId};

/// Most rows of the table given at once.
pub const CARD_ROWS_MAX: u32 = 10_000;

/// One card, or one cardholder.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Card {
    /// The bank whose token it is: another bank's may read the same.
    pub bank: BankId,
    /// The token, 1 to [`TOKEN_BYTES_MAX`](crate::authorization::TOKEN_BYTES_MAX) bytes; never a
    /// card number.
    pub token: String,
}

/// Whose card it is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct CardHolder {
    /// The card.
    pub card: Card,
    /// The shopper who carries it.
    pub shopper: ShopperId,
}
