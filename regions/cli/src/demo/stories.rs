//! What shoppers and banks do: one [`Story`] a trip, each payment with the answer it must get.
//!
//! Answers are known beforehand because amounts stay clear of every limit: far inside or far
//! outside both the cap and the stand-in limits, or (in [`Story::Tight`]) between the two, where
//! the rung decides. `core/policies/example.toml` is the policy in force.

use standin_core::answer::Reason;

use crate::baskets::Basket;

/// Milliseconds between two payments of a trip: longer than a bank waits for an answer.
pub(super) const GAP_MS: u64 = 1_300;
/// Milliseconds from asking for a change of the trip to the payment that relies on it.
const SETTLE_MS: u64 = 2_000;
/// Smallest payment told of, US cents.
const PAID_MIN: i64 = 50;

/// How a trip goes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Story {
    /// Every price entered, the total paid at once.
    Plain,
    /// No price entered; the till charges about what was listed.
    Unlisted,
    /// No price entered; the till charges far more. Declined, prices entered, paid.
    Surprise,
    /// Paid in two.
    SplitInTwo,
    /// Paid in three.
    SplitInThree,
    /// The bank sends the same request again later.
    Retried,
    /// The bank sends the same request three times at once.
    Concurrent,
    /// Twice the cart and more is asked for first.
    OverCap,
    /// The card is used at another of our stores first.
    WrongStore,
    /// The card is used somewhere unknown first.
    UnknownMerchant,
    /// The bank names a chain without saying which store first.
    AmbiguousMerchant,
    /// The shopper's phone is elsewhere.
    FarAway,
    /// A shopper without a trip.
    NoTrip,
    /// The card is used again after shopping is over.
    Finished,
    /// The amount is in another currency first.
    OtherCurrency,
    /// The bank's key is used again for another amount.
    OtherBody,
    /// The same amount again under another key.
    DoubleSwipe,
    /// A seventh payment in five minutes.
    TooMany,
    /// More than the stand-in limits allow, and less than the cap.
    Tight,
    /// Somebody without the bank's secret asks first.
    Forged,
}

/// What the reply must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Want {
    /// Approved.
    Approved,
    /// Declined, for this reason.
    Declined(Reason),
    /// Refused with this status.
    Refused(u16),
    /// Approved by the primary's rules; by the stand-in's declined with `stand_in_limit`.
    ApprovedOnPrimary,
}

/// Where the card is used, in the bank's words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    /// The trip's store.
    Store,
    /// Another store of ours.
    OtherStore,
    /// No store of ours.
    Nowhere,
    /// The trip's chain, without an address.
    Chain,
}

/// One request of a bank.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Ask {
    /// After the trip's first payment.
    pub(super) after_ms: u64,
    /// US cents (or the other currency's).
    pub(super) amount: i64,
    pub(super) place: Place,
    /// The payment of the trip, by number: each has a bank's key, or none at all.
    pub(super) key: u8,
    pub(super) currency: Option<&'static str>,
    pub(super) forged: bool,
    pub(super) want: Want,
}

/// Something the shopper does between payments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Deed {
    /// Enters every price.
    Reprice,
    /// Ends shopping.
    Finish,
}

/// A story told with a basket's numbers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Script {
    /// In time order.
    pub(super) asks: Vec<Ask>,
    /// Between payments: when after the first, and what.
    pub(super) deed: Option<(u64, Deed)>,
    /// Whether the shopper enters prices while picking.
    pub(super) prices: bool,
}

/// How often each story is told, in thousandths.
const WEIGHTS: [(Story, u64); 20] = [
    (Story::Plain, 290),
    (Story::Unlisted, 100),
    (Story::Surprise, 40),
    (Story::SplitInTwo, 90),
    (Story::SplitInThree, 40),
    (Story::Retried, 80),
    (Story::Concurrent, 60),
    (Story::OverCap, 60),
    (Story::WrongStore, 40),
    (Story::UnknownMerchant, 20),
    (Story::AmbiguousMerchant, 10),
    (Story::FarAway, 20),
    (Story::NoTrip, 20),
    (Story::Finished, 20),
    (Story::OtherCurrency, 15),
    (Story::OtherBody, 25),
    (Story::DoubleSwipe, 20),
    (Story::TooMany, 10),
    (Story::Tight, 30),
    (Story::Forged, 10),
];

// === impl Story ===

impl Story {
    /// The story for a number below a thousand.
    pub(super) fn pick(number: u64) -> Self {
        let mut left = number;
        for (story, weight) in WEIGHTS {
            match left.checked_sub(weight) {
                Some(rest) => left = rest,
                None => return story,
            }
        }
        Self::Plain
    }

    /// Tells the story with what is in the cart: `paid` at the till's prices and `listed`, US
    /// cents. `None` when these numbers do not suit it.
    pub(super) fn tell(self, paid: i64, listed: i64) -> Option<Script> {
        if paid < PAID_MIN {
            return None;
        }
        let pay = |amount| Ask::of(amount, Want::Approved);
        let declined = |reason| Want::Declined(reason);
        let script = match self {
            Self::Plain => Script::of([pay(paid)]),
            Self::Unlisted => Script {
                prices: false,
                ..Script::of([is_close(paid, listed).then_some(pay(paid))?])
            },
            Self::Surprise => {
                let first = Ask::of(
                    is_far(paid, listed).then_some(paid)?,
                    declined(Reason::OverCap),
                );
                let again = pay(paid).keyed(2).later(SETTLE_MS.saturating_add(500));
                Script {
                    prices: false,
                    ..Script::of([first, again]).doing(500, Deed::Reprice)
                }
            }
            Self::SplitInTwo => Script::in_parts(paid, [37, 63])?,
            Self::SplitInThree => Script::in_parts(paid, [20, 33, 47])?,
            Self::Retried => Script::of([pay(paid), pay(paid).later(GAP_MS)]),
            Self::Concurrent => Script::of([pay(paid), pay(paid), pay(paid)]),
            Self::OverCap => {
                let much = Ask::of(well_over(paid), declined(Reason::OverCap));
                Script::of([much, pay(paid).keyed(2).later(GAP_MS)])
            }
            Self::WrongStore => Script::elsewhere(paid, Place::OtherStore, Reason::WrongStore),
            Self::UnknownMerchant => {
                Script::elsewhere(paid, Place::Nowhere, Reason::UnknownMerchant)
            }
            Self::AmbiguousMerchant => {
                Script::elsewhere(paid, Place::Chain, Reason::AmbiguousMerchant)
            }
            Self::FarAway => Script::of([Ask::of(paid, declined(Reason::FarFromStore))]),
            Self::NoTrip => Script::of([Ask::of(paid, declined(Reason::NoTrip))]),
            Self::Finished => {
                let after = Ask::of(paid.checked_div(4)?.max(1), declined(Reason::NotShopping));
                let after = after.keyed(2).later(GAP_MS.saturating_add(SETTLE_MS));
                Script::of([pay(paid), after]).doing(GAP_MS, Deed::Finish)
            }
            Self::OtherCurrency => {
                let euros = Ask {
                    currency: Some("EUR"),
                    ..Ask::of(paid, declined(Reason::CurrencyMismatch))
                };
                Script::of([euros, pay(paid).keyed(2).later(GAP_MS)])
            }
            Self::OtherBody => {
                let other = Ask::of(paid.checked_add(1)?, Want::Refused(422)).later(GAP_MS);
                Script::of([pay(paid), other])
            }
            Self::DoubleSwipe => {
                let again = Ask::of(paid, declined(Reason::DoubleSwipe)).keyed(2);
                Script::of([pay(paid), again.later(GAP_MS)])
            }
            Self::TooMany => Script::too_many(paid)?,
            Self::Tight => Script::of([Ask::of(tight(paid), Want::ApprovedOnPrimary)]),
            Self::Forged => {
                let forged = Ask {
                    forged: true,
                    ..Ask::of(paid, Want::Refused(401))
                };
                Script::of([forged, pay(paid).keyed(2).later(GAP_MS)])
            }
        };
        Some(script)
    }

    /// Whether a payment without a bank's key suits the story.
    pub(super) const fn may_derive(self) -> bool {
        matches!(
            self,
            Self::Plain | Self::Retried | Self::Concurrent | Self::Unlisted
        )
    }
}

/// The till is at most 2 % or 2.00 off the list: inside every tolerance.
fn is_close(paid: i64, listed: i64) -> bool {
    let off = paid.saturating_sub(listed);
    let most = listed.checked_div(50).unwrap_or(0).max(200);
    (0..=most).contains(&off)
}

/// The till is more than 30 % and 10.00 above the list: outside every tolerance.
fn is_far(paid: i64, listed: i64) -> bool {
    let over = listed.saturating_mul(3).checked_div(10).unwrap_or(0);
    paid > listed.saturating_add(over.max(1_000))
}

fn well_over(paid: i64) -> i64 {
    paid.saturating_mul(2).saturating_add(10_000)
}

/// Stand-in tolerates 4.00 or 8 %, the loosest of 5.00 or 10 % is the least the cap does.
fn tight(paid: i64) -> i64 {
    let nine_percent = paid.saturating_mul(9).checked_div(100).unwrap_or(0);
    paid.saturating_add(nine_percent.max(450))
}

// === impl Ask ===

impl Ask {
    const fn of(amount: i64, want: Want) -> Self {
        Self {
            after_ms: 0,
            amount,
            place: Place::Store,
            key: 1,
            currency: None,
            forged: false,
            want,
        }
    }

    const fn keyed(self, number: u8) -> Self {
        Self {
            key: number,
            ..self
        }
    }

    const fn later(self, after_ms: u64) -> Self {
        Self { after_ms, ..self }
    }
}

// === impl Script ===

impl Script {
    fn of<const N: usize>(asks: [Ask; N]) -> Self {
        Self {
            asks: asks.into(),
            deed: None,
            prices: true,
        }
    }

    fn doing(self, after_ms: u64, deed: Deed) -> Self {
        Self {
            deed: Some((after_ms, deed)),
            ..self
        }
    }

    fn elsewhere(paid: i64, place: Place, reason: Reason) -> Self {
        let first = Ask {
            place,
            ..Ask::of(paid, Want::Declined(reason))
        };
        Self::of([first, Ask::of(paid, Want::Approved).keyed(2).later(GAP_MS)])
    }

    /// Parts of different amounts that sum to the whole.
    fn in_parts<const N: usize>(paid: i64, percents: [i64; N]) -> Option<Self> {
        let mut left = paid;
        let mut asks: Vec<Ask> = Vec::new();
        for (index, percent) in (1_u8..).zip(percents) {
            let last = usize::from(index) == N;
            let part = paid.checked_mul(percent)?.checked_div(100)?;
            let amount = if last { left } else { part };
            let before = u64::from(index.saturating_sub(1)).checked_mul(GAP_MS)?;
            if amount < PAID_MIN || asks.iter().any(|ask| ask.amount == amount) {
                return None;
            }
            asks.push(Ask::of(amount, Want::Approved).keyed(index).later(before));
            left = left.checked_sub(amount)?;
        }
        Some(Self {
            asks,
            deed: None,
            prices: true,
        })
    }

    /// Six different amounts that fit, and a seventh that would.
    fn too_many(paid: i64) -> Option<Self> {
        let base = paid.checked_div(8)?;
        if base < PAID_MIN {
            return None;
        }
        let mut asks: Vec<Ask> = Vec::new();
        for number in 0_u8..7 {
            let want = match number {
                6 => Want::Declined(Reason::Velocity),
                _ => Want::Approved,
            };
            // 7 × base + 21 cents stay below the cart, as base is 50 cents at least.
            let amount = base.checked_add(i64::from(number))?;
            let after = u64::from(number).checked_mul(GAP_MS)?;
            asks.push(
                Ask::of(amount, want)
                    .keyed(number.saturating_add(1))
                    .later(after),
            );
        }
        Some(Self {
            asks,
            deed: None,
            prices: true,
        })
    }

    /// From the first payment to the end of the last.
    pub(super) fn span_ms(&self) -> u64 {
        self.asks.last().map_or(0, |ask| ask.after_ms)
    }
}

/// What of a basket ends in the cart: some lines are out of stock, some are put back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Cart {
    pub(super) out_of_stock: Option<usize>,
    pub(super) put_back: Option<usize>,
    /// At the till's prices.
    pub(super) paid: i64,
    /// At listed prices.
    pub(super) listed: i64,
}

// === impl Cart ===

impl Cart {
    /// Long baskets lose a line or two, short ones none.
    pub(super) fn of(basket: &Basket) -> Self {
        let lines = basket.lines.len();
        let out_of_stock = (lines >= 5).then_some(1);
        let put_back = (lines >= 8).then_some(3);
        let (mut paid, mut listed) = (0_i64, 0_i64);
        for (at, line) in basket.lines.iter().enumerate() {
            if Some(at) != out_of_stock && Some(at) != put_back {
                paid = paid.saturating_add(line.actual);
                listed = listed.saturating_add(line.listed);
            }
        }
        Self {
            out_of_stock,
            put_back,
            paid,
            listed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weights_are_of_a_thousand_and_every_story_is_told() {
        assert_eq!(WEIGHTS.iter().map(|(_, weight)| weight).sum::<u64>(), 1_000);
        let told: std::collections::BTreeSet<Story> = (0..1_000).map(Story::pick).collect();
        assert_eq!(told.len(), WEIGHTS.len());
    }

    #[test]
    fn approvals_fit_the_cart_and_differ_on_every_trip() {
        for paid in [60, 300, 999, 2_345, 36_137] {
            for (story, _) in WEIGHTS {
                let Some(script) = story.tell(paid, paid) else {
                    continue;
                };
                let mut keys = std::collections::BTreeMap::new();
                for ask in &script.asks {
                    if ask.want == Want::Approved {
                        keys.insert(ask.key, ask.amount);
                    }
                }
                let amounts: std::collections::BTreeSet<i64> = keys.values().copied().collect();
                assert_eq!(amounts.len(), keys.len(), "{story:?} {paid}");
                assert!(keys.values().sum::<i64>() <= paid, "{story:?} {paid}");
            }
        }
    }
}
