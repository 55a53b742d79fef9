//! What a bank asks, independent of the format it asked in.

use serde::{Deserialize, Serialize};

use crate::clock::Timestamp;
use crate::id::{BankId, ShopperId, TransactionId};
use crate::money::Money;

/// Longest merchant name or address, in bytes.
pub const MERCHANT_TEXT_BYTES_MAX: usize = 200;
/// Longest key a bank may give its payment, in bytes.
pub const BANK_KEY_BYTES_MAX: usize = 255;
/// Longest token of a card or cardholder, network merchant id or terminal id, in bytes.
pub const TOKEN_BYTES_MAX: usize = 64;

/// One request of a bank to approve a card payment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Authorization {
    /// Who asks.
    pub bank: BankId,
    /// Whose card.
    pub shopper: ShopperId,
    /// How much; zero asks whether the card is good, or how much is left, and charges nothing.
    pub amount: Money,
    /// Where, as the bank wrote it.
    pub merchant: Merchant,
    /// The bank's own key for this payment, 1 to 255 bytes.
    pub bank_key: Option<String>,
    /// When the edge had read it.
    pub received_at: Timestamp,
    /// What some formats say more. Not in this type's own byte form, which is older: an entry carries
    /// it beside (`crate::entry`), the ledger in a column of its own.
    #[serde(skip)]
    pub particulars: Particulars,
}

/// What the formats of platforms say of a payment beyond shopper, amount and merchant. Empty for most
/// of our own.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Particulars {
    /// Whose card, as the bank names it: a token of the card or of its holder, never its number. The
    /// shopper of the authorization is what the table of cards made of it.
    pub card: Option<String>,
    /// The merchant's id in the card network.
    pub network_id: Option<String>,
    /// The terminal's id, unique at its merchant only.
    pub terminal: Option<String>,
    /// The payment that this one adds to: an incremental authorization.
    pub adds_to: Option<TransactionId>,
    /// The bank takes less than it asks for.
    pub partial: bool,
}

/// What the bank wrote about where the card is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Merchant {
    /// Name, as written.
    pub name: String,
    /// Street address, as written; empty when the bank sent none.
    pub address: String,
}

// === impl Particulars ===

impl Particulars {
    /// Whether nothing more was said.
    pub fn is_empty(&self) -> bool {
        self.name_nothing() && !self.partial
    }

    /// Whether nothing more was said of which payment it is.
    pub fn name_nothing(&self) -> bool {
        let Self {
            card,
            network_id,
            terminal,
            adds_to,
            partial: _,
        } = self;
        card.is_none() && network_id.is_none() && terminal.is_none() && adds_to.is_none()
    }
}
