//! The demo's plan: every trip and every payment of a run, made beforehand from baskets and a seed.
//!
//! Pure. Payments lie on an even grid of moments (open loop); what has to happen before a payment
//! (an order placed, claimed and started, its items picked) is planned to be done in time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use standin_core::authorization::{Authorization, Merchant, Particulars};
use standin_core::clock::Timestamp;
use standin_core::id::{BankId, ShopperId, StoreId, TransactionId, TripId};
use standin_core::identity::{Operation, transaction_id};
use standin_core::merchant::Store;
use standin_core::money::{Currency, Money};
use uuid::Uuid;

use super::stories::{Ask, Cart, Deed, GAP_MS, Place, Script, Story, Want};
use crate::bank::{Charged, Payment};
use crate::baskets::{Basket, Line};
use crate::chance::Chance;
use crate::open_loop::moment;

/// A trip is opened so long before its first payment,
const OPEN_AHEAD_MS: u64 = 3_000;
/// its items are picked so long before it,
const SHOP_AHEAD_MS: u64 = 2_000;
/// and it is finished so long after its last.
const FINISH_AFTER_MS: u64 = 1_500;
/// Trips whose first payment comes this soon are opened before the load begins.
const EARLY_MS: u64 = 4_000;
/// No story begins that would not be over this long before the end.
const END_MARGIN_MS: u64 = 500;
/// Shoppers are numbered from here.
const SHOPPER_BASE: i64 = 1_000_001;

/// When what happens, from the start of the load, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Timing {
    pub(super) rate: u64,
    pub(super) end_ms: u64,
    /// The primary hangs.
    pub(super) hang_ms: u64,
    /// The primary is gone.
    pub(super) gone_ms: u64,
    /// The leader of the log is killed, in the middle of the outage.
    pub(super) kill_ms: u64,
    /// It is started again.
    pub(super) return_ms: u64,
    /// The primary is back.
    pub(super) back_ms: u64,
}

/// Longest time that the killed leader is away.
const AWAY_MAX_MS: u64 = 2_000;

/// Everything that is going to happen.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) timing: Timing,
    pub(super) stores: Vec<Store>,
    pub(super) trips: Vec<TripPlan>,
    /// In the order of their moments.
    pub(super) payments: Vec<PaymentPlan>,
    /// How often each story is told.
    pub(super) stories: BTreeMap<Story, u64>,
}

/// One trip.
#[derive(Clone, Debug)]
pub(super) struct TripPlan {
    pub(super) shopper: ShopperId,
    pub(super) customer: i64,
    pub(super) store: Store,
    pub(super) order: Uuid,
    pub(super) trip: Uuid,
    pub(super) lines: Vec<Line>,
    pub(super) cart: Cart,
    /// Whether prices are entered while picking.
    pub(super) prices: bool,
    /// Whether the shopper's phone is far from the store.
    pub(super) far: bool,
    /// Another shopper tries to claim the order too.
    pub(super) rival: bool,
    /// Placed, claimed and started; `None`: before the load begins.
    pub(super) open_at: Option<Duration>,
    /// Picked; `None`: before the load begins.
    pub(super) shop_at: Option<Duration>,
    pub(super) deed: Option<(Duration, Deed)>,
    pub(super) finish_at: Duration,
}

/// One request of the bank.
#[derive(Clone, Debug)]
pub(super) struct PaymentPlan {
    pub(super) at: Duration,
    /// The payment's name: the bank's key, or one for its derived identity.
    pub(super) name: String,
    /// Its identity, where the bank's key gives it.
    pub(super) id: Option<TransactionId>,
    pub(super) shopper: ShopperId,
    pub(super) amount: Money,
    pub(super) body: Bytes,
    pub(super) forged: bool,
    pub(super) want: Want,
}

/// A story being told.
struct Telling {
    number: i64,
    shopper: ShopperId,
    store: usize,
    derived: bool,
    script: Script,
}

struct Planner<'a> {
    timing: Timing,
    baskets: &'a [Basket],
    stores: Vec<Store>,
    /// By the data's store number.
    store_of: BTreeMap<i64, usize>,
    chance: Chance,
    bank: BankId,
    next_basket: usize,
    tellings: Vec<Telling>,
    /// What is told next, earliest first: moment, telling, ask.
    due: BinaryHeap<Reverse<(u64, usize, usize)>>,
    trips: Vec<TripPlan>,
    payments: Vec<PaymentPlan>,
    stories: BTreeMap<Story, u64>,
}

// === impl Timing ===

impl Timing {
    /// A run of so many seconds: the primary hangs at a third, is gone a fifteenth later, and back
    /// at two thirds.
    pub(super) fn new(rate: u64, seconds: u64) -> Self {
        let end_ms = seconds.saturating_mul(1_000);
        let part = |of: u64, parts: u64| end_ms.saturating_mul(of).checked_div(parts).unwrap_or(0);
        let kill_ms = part(1, 2);
        Self {
            rate,
            end_ms,
            hang_ms: part(1, 3),
            gone_ms: part(1, 3).saturating_add(part(1, 15).min(2_000)),
            kill_ms,
            return_ms: kill_ms.saturating_add(part(1, 12).min(AWAY_MAX_MS)),
            back_ms: part(2, 3),
        }
    }

    /// Whether an answer of the primary would be replayed well into the outage: a replay has its
    /// first answer's bytes, rung and all, and the phase should show what is answered then.
    fn replays_across(&self, story: Story, first_ms: u64) -> bool {
        let reach = GAP_MS.saturating_add(200);
        story == Story::Retried
            && (self.hang_ms.saturating_sub(reach)..=self.hang_ms).contains(&first_ms)
    }

    /// When a trip with this first payment is opened; `None`: before the load begins. That is so
    /// right at the start and from the outage on: how soon after it the ledger has time for new
    /// orders, beside what the outage left to book, is not what the payments are to be judged by.
    fn opens_at(&self, first_ms: u64) -> Option<u64> {
        let live = (EARLY_MS..self.hang_ms).contains(&first_ms);
        live.then(|| first_ms.saturating_sub(OPEN_AHEAD_MS))
    }
}

// === impl Plan ===

impl Plan {
    /// Plans a run. `baskets` is not empty.
    pub(super) fn make(baskets: &[Basket], timing: Timing, bank: &BankId, seed: u64) -> Self {
        let (stores, store_of) = stores(baskets);
        let planner = Planner {
            timing,
            baskets,
            stores,
            store_of,
            chance: Chance::new(seed),
            bank: bank.clone(),
            next_basket: 0,
            tellings: Vec::new(),
            due: BinaryHeap::new(),
            trips: Vec::new(),
            payments: Vec::new(),
            stories: BTreeMap::new(),
        };
        planner.run()
    }
}

// === impl Planner ===

impl Planner<'_> {
    fn run(mut self) -> Plan {
        let count = self
            .timing
            .rate
            .saturating_mul(self.timing.end_ms)
            .div_ceil(1_000);
        for slot in 0..count {
            let at = moment(slot, self.timing.rate);
            let at_ms = u64::try_from(at.as_millis()).unwrap_or(u64::MAX);
            let is_due = |next: &Reverse<(u64, usize, usize)>| next.0.0 <= at_ms;
            if !self.due.peek().is_some_and(is_due) {
                self.begin(at_ms);
            }
            if let Some(Reverse((_, telling, ask))) = self.due.pop() {
                self.place(telling, ask, at, at_ms);
            }
        }
        self.payments.sort_by_key(|payment| payment.at);
        Plan {
            timing: self.timing,
            stores: self.stores,
            trips: self.trips,
            payments: self.payments,
            stories: self.stories,
        }
    }

    /// Begins a story whose first payment is now.
    fn begin(&mut self, at_ms: u64) {
        let (basket, cart) = self.next_cart();
        let wanted = Story::pick(self.chance.below(1_000));
        let number = i64::try_from(self.tellings.len()).unwrap_or(i64::MAX);
        let store = self.store_of.get(&basket.store).copied().unwrap_or(0);
        let room = self
            .timing
            .end_ms
            .saturating_sub(at_ms.saturating_add(END_MARGIN_MS));
        let told = |story: Story| {
            let script = story.tell(cart.paid, cart.listed)?;
            let fits = script.span_ms() <= room && self.suits(story, store);
            let fits = fits && !self.timing.replays_across(story, at_ms);
            fits.then_some((story, script))
        };
        let Some((story, script)) = told(wanted).or_else(|| told(Story::Plain)) else {
            return;
        };
        let count = self.stories.entry(story).or_default();
        *count = count.saturating_add(1);
        let shopper = shopper(number);
        let derived = story.may_derive() && self.chance.below(2) == 0;
        let trip = (story != Story::NoTrip).then(|| TripId(self.chance.uuid()));
        if let Some(trip) = trip {
            let plan = self.trip(
                story,
                &script,
                (basket, cart, store),
                (shopper, trip),
                at_ms,
            );
            self.trips.push(plan);
        }
        let telling = self.tellings.len();
        self.tellings.push(Telling {
            number,
            shopper,
            store,
            derived,
            script,
        });
        self.due.push(Reverse((at_ms, telling, 0)));
    }

    /// Whether the stores allow it: another store, another of the same chain.
    fn suits(&self, story: Story, store: usize) -> bool {
        match story {
            Story::WrongStore => self.stores.len() > 1,
            Story::AmbiguousMerchant => {
                let name = |at: usize| self.stores.get(at).map(|store| store.name.as_str());
                let same = |other: &&Store| Some(other.name.as_str()) == name(store);
                self.stores.iter().filter(same).count() > 1
            }
            _ => true,
        }
    }

    fn next_cart(&mut self) -> (Basket, Cart) {
        // A basket too cheap for any story is passed by; no file holds only such.
        for _ in 0..self.baskets.len() {
            let at = self.next_basket;
            self.next_basket = at
                .saturating_add(1)
                .checked_rem(self.baskets.len())
                .unwrap_or(0);
            if let Some(basket) = self.baskets.get(at) {
                let cart = Cart::of(basket);
                if Story::Plain.tell(cart.paid, cart.listed).is_some() {
                    return (basket.clone(), cart);
                }
            }
        }
        let basket = self.baskets.first().cloned();
        let basket = basket.expect("the caller gives baskets");
        let cart = Cart::of(&basket);
        (basket, cart)
    }

    fn trip(
        &mut self,
        story: Story,
        script: &Script,
        (basket, cart, store): (Basket, Cart, usize),
        (shopper, trip): (ShopperId, TripId),
        at_ms: u64,
    ) -> TripPlan {
        let ms = Duration::from_millis;
        let last = at_ms.saturating_add(script.span_ms());
        TripPlan {
            shopper,
            customer: basket.household,
            store: self
                .stores
                .get(store)
                .cloned()
                .expect("every store number was indexed"),
            order: self.chance.uuid(),
            trip: trip.0,
            lines: basket.lines,
            cart,
            prices: script.prices,
            far: story == Story::FarAway,
            rival: self.chance.below(20) == 0,
            open_at: self.timing.opens_at(at_ms).map(ms),
            shop_at: at_ms.checked_sub(SHOP_AHEAD_MS).map(ms),
            deed: script
                .deed
                .map(|(after, deed)| (ms(at_ms.saturating_add(after)), deed)),
            finish_at: ms(last.saturating_add(FINISH_AFTER_MS)),
        }
    }

    /// Puts one ask at a moment, and its successor in line.
    fn place(&mut self, telling: usize, index: usize, slot: Duration, slot_ms: u64) {
        let Some(told) = self.tellings.get(telling) else {
            return;
        };
        let Some(ask) = told.script.asks.get(index).copied() else {
            return;
        };
        let previous = self.payments.last().map(|payment| payment.at);
        let is_twin = index > 0
            && told
                .script
                .asks
                .get(index.saturating_sub(1))
                .map(|before| before.after_ms)
                == Some(ask.after_ms);
        // Twins are sent at the same moment.
        let at = if is_twin {
            previous.unwrap_or(slot)
        } else {
            slot
        };
        let payment = self.payment(told, &ask, at);
        let successor = index.saturating_add(1);
        if let Some(next) = told.script.asks.get(successor) {
            let wait = next.after_ms.saturating_sub(ask.after_ms);
            // Twins go before everything else, so that the one before them is their elder.
            let due = if wait == 0 {
                0
            } else {
                slot_ms.saturating_add(wait)
            };
            self.due.push(Reverse((due, telling, successor)));
        }
        self.payments.push(payment);
    }

    fn payment(&self, told: &Telling, ask: &Ask, at: Duration) -> PaymentPlan {
        let own = self
            .stores
            .get(told.store)
            .expect("every store number was indexed");
        let (name, address) = match ask.place {
            Place::Store => (own.name.clone(), own.address.clone()),
            Place::OtherStore => {
                let next = told.store.saturating_add(1).checked_rem(self.stores.len());
                let other = next.and_then(|at| self.stores.get(at)).unwrap_or(own);
                (other.name.clone(), other.address.clone())
            }
            Place::Nowhere => ("Blue Heron Karaoke".to_owned(), "7 Quayside".to_owned()),
            Place::Chain => (own.name.clone(), String::new()),
        };
        // Banks write as they please: the same store in capitals.
        let shout = told.number.checked_rem(3) == Some(0);
        let (name, address) = if shout {
            (name.to_uppercase(), address.to_uppercase())
        } else {
            (name, address)
        };
        let (key, label) = if told.derived {
            (None, format!("derived-{}", told.number))
        } else {
            let key = format!("demo-{}-{}", told.number, ask.key);
            (Some(key.clone()), key)
        };
        let currency: Currency = ask
            .currency
            .and_then(|code| code.parse().ok())
            .unwrap_or(Currency::USD);
        let amount = Money::from_minor(ask.amount, currency);
        let request = Authorization {
            bank: self.bank.clone(),
            shopper: told.shopper,
            amount,
            merchant: Merchant {
                name: name.clone(),
                address: address.clone(),
            },
            bank_key: key.clone(),
            received_at: Timestamp::from_millis(0),
            particulars: Particulars::default(),
        };
        let body = Payment {
            charged: Charged {
                shopper: told.shopper.into(),
                merchant_name: name,
                merchant_address: address,
                currency: ask.currency.map(str::to_owned),
                ..Charged::default()
            },
            amount: amount.to_decimal(),
            transaction_id: key,
            partial: false,
        };
        PaymentPlan {
            at,
            name: label,
            id: (!told.derived).then(|| transaction_id(&request, Operation::Authorize, None)),
            shopper: told.shopper,
            amount,
            body: body.body().expect("texts have a JSON form"),
            forged: ask.forged,
            want: ask.want,
        }
    }
}

fn shopper(number: i64) -> ShopperId {
    let id = SHOPPER_BASE.saturating_add(number);
    ShopperId::try_from(id).expect("positive")
}

/// A store for every number in the data: chains of made-up names, one house number each.
fn stores(baskets: &[Basket]) -> (Vec<Store>, BTreeMap<i64, usize>) {
    const CHAINS: [&str; 8] = [
        "Alder Foods",
        "Birch Market",
        "Cedar Grocers",
        "Dogwood Fresh",
        "Elm Street Pantry",
        "Fir & Fern",
        "Ginkgo Supermarket",
        "Hazel Corner",
    ];
    const STREETS: [&str; 7] = [
        "Main St",
        "Oak Ave",
        "River Rd",
        "Mill Ln",
        "Park Blvd",
        "Lake Dr",
        "Hill Ct",
    ];
    let numbers: std::collections::BTreeSet<i64> =
        baskets.iter().map(|basket| basket.store).collect();
    let mut stores = Vec::with_capacity(numbers.len());
    let mut store_of = BTreeMap::new();
    for (at, number) in numbers.into_iter().enumerate() {
        let Ok(id) = StoreId::try_from(number) else {
            continue;
        };
        let word = |words: &[&str]| {
            at.checked_rem(words.len())
                .and_then(|at| words.get(at))
                .map_or("", |w| *w)
                .to_owned()
        };
        let step = i32::try_from(at).unwrap_or(0);
        store_of.insert(number, stores.len());
        stores.push(Store {
            id,
            name: word(&CHAINS),
            address: format!(
                "{} {}",
                at.saturating_mul(4).saturating_add(101),
                word(&STREETS)
            ),
            lat_e6: 39_000_000_i32.saturating_add(step.rem_euclid(50).saturating_mul(50_000)),
            lon_e6: (-84_000_000_i32).saturating_add(step.div_euclid(50).saturating_mul(50_000)),
        });
    }
    (stores, store_of)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::arithmetic_side_effects, reason = "test code")]
    use super::*;
    use standin_core::merchant::{Resolution, StoreDirectory};

    fn plan(rate: u64, seconds: u64) -> Plan {
        let baskets = crate::baskets::sample().unwrap();
        let bank: BankId = "demo-bank".parse().unwrap();
        Plan::make(&baskets, Timing::new(rate, seconds), &bank, 7)
    }

    #[test]
    fn every_moment_of_the_grid_has_its_payment_and_the_same_seed_its_plan() {
        let plan_one = plan(200, 30);
        assert_eq!(plan_one.payments.len(), 6_000);
        assert!(plan_one.payments.is_sorted_by_key(|payment| payment.at));
        assert_eq!(plan_one.stories.len(), 20, "{:?}", plan_one.stories);
        let bodies = |plan: &Plan| -> Vec<Bytes> {
            plan.payments
                .iter()
                .map(|payment| payment.body.clone())
                .collect()
        };
        assert_eq!(bodies(&plan_one), bodies(&plan(200, 30)));
        assert!(plan(50, 12).payments.len() == 600);
    }

    #[test]
    fn payments_of_one_trip_keep_their_distance_unless_they_are_twins() {
        let plan = plan(200, 30);
        let mut last: BTreeMap<ShopperId, (Duration, Bytes)> = BTreeMap::new();
        for payment in &plan.payments {
            let before = last.insert(payment.shopper, (payment.at, payment.body.clone()));
            let Some((at, body)) = before else { continue };
            let apart = payment.at - at;
            let twins = apart.is_zero() && body == payment.body;
            assert!(
                twins || apart >= Duration::from_millis(1_250),
                "{apart:?} {}",
                payment.name
            );
        }
    }

    #[test]
    fn trips_of_the_outage_are_open_before_it() {
        let plan = plan(200, 30);
        let away = Duration::from_secs(10)..Duration::from_secs(21);
        for trip in &plan.trips {
            assert!(
                trip.open_at.is_none_or(|at| !away.contains(&at)),
                "{:?}",
                trip.open_at
            );
        }
    }

    #[test]
    fn merchants_are_what_the_stories_say_they_are() {
        let plan = plan(200, 30);
        let directory = StoreDirectory::new(plan.stores.clone());
        let resolve = |name: &str, address: &str| {
            directory.resolve(&Merchant {
                name: name.to_owned(),
                address: address.to_owned(),
            })
        };
        for store in &plan.stores {
            assert_eq!(
                resolve(&store.name, &store.address),
                Resolution::Store(store.id)
            );
            let (name, address) = (store.name.to_uppercase(), store.address.to_uppercase());
            assert_eq!(resolve(&name, &address), Resolution::Store(store.id));
            assert_eq!(resolve(&name, ""), Resolution::Ambiguous);
        }
        assert_eq!(
            resolve("Blue Heron Karaoke", "7 Quayside"),
            Resolution::Unknown
        );
        assert_eq!(
            resolve("BLUE HERON KARAOKE", "7 QUAYSIDE"),
            Resolution::Unknown
        );
    }
}
