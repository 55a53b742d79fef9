//! What a bank asks, independent of the format it asked in.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{BankId, ShopperId};
use crate::money::Money;

/// Longest merchant name or address, in bytes.
pub const MERCHANT_TEXT_BYTES_MAX: usize = 200;
/// Longest key a bank may give its payment, in bytes.
pub const BANK_KEY_BYTES_MAX: usize = 255;

/// One request of a bank to approve a card payment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Authorization {
    /// Who asks.
    pub bank: BankId,
    /// Whose card.
    pub shopper: ShopperId,
    /// How much; positive.
    pub amount: Money,
    /// Where, as the bank wrote it.
    pub merchant: Merchant,
    /// The bank's own key for this payment, 1 to 255 bytes.
    pub bank_key: Option<String>,
    /// When the edge had read it.
    pub received_at: Timestamp,
}

/// What the bank wrote about where the card is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Merchant {
    /// Name, as written.
    pub name: String,
    /// Street address, as written; empty when the bank sent none.
    pub address: String,
}
