//! Where trips come from: till receipts in a file, or the payments that the ledger has booked.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail};
use standin_core::answer::Verdict;
use standin_core::authorities::Authorities;
use standin_core::clock::Timestamp;
use standin_core::id::{ShopperId, TripId};
use standin_core::ledger::postgres::{Charge, PostgresConfig, PostgresLedger};
use standin_core::money::Currency;
use standin_reconcile::thresholds::Trip;

use crate::baskets::{self, Basket};

/// Payments read at once.
const PAGE: u32 = 5_000;
/// Most trips held; some 300 bytes each.
const TRIPS_MAX: usize = 2_000_000;

/// Where trips come from.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct HistoryArgs {
    /// Till receipts: CSV or CSV.gz as tests/data/README.md describes it, in US cents. Each is a trip
    /// that picked its lines at their listed prices and was charged the actual ones.
    #[arg(long, value_name = "FILE")]
    baskets: Option<PathBuf>,
    /// What trips were charged, or declined for being over their cap, as this Postgres has booked it
    /// (connection string); with --baskets it is not asked.
    #[arg(long, value_name = "URL", env = "STANDIN_POSTGRES")]
    from_ledger: Option<String>,
    /// Postgres is spoken to over TLS, and its certificate is of an authority in this PEM file.
    #[arg(long, value_name = "FILE", requires = "from_ledger")]
    postgres_ca: Option<PathBuf>,
}

/// Trips of the shopper whose payments are being read.
#[derive(Default)]
struct Collected {
    trips: Vec<Trip>,
    shopper: Option<ShopperId>,
    open: BTreeMap<TripId, Charged>,
}

/// What one trip came to so far.
struct Charged {
    trip: Trip,
    approved: i64,
    /// The most that it would have been charged, had a declined payment been approved.
    asked: i64,
}

// === impl HistoryArgs ===

impl HistoryArgs {
    /// The trips, in `currency`.
    ///
    /// # Errors
    /// When they cannot be read, are in another currency, or are too many.
    pub(super) async fn trips(&self, currency: Currency) -> anyhow::Result<Vec<Trip>> {
        let file = match (&self.baskets, &self.from_ledger) {
            (Some(file), _) => file,
            (None, Some(url)) => return self.booked(url, currency).await,
            (None, None) => bail!("name --baskets FILE or --from-ledger URL"),
        };
        if currency != Currency::USD {
            bail!("till receipts are in US cents, the policy in {currency}");
        }
        let read = baskets::open(file);
        let read = read.with_context(|| format!("{}", file.display()))?;
        read.iter().map(of_basket).collect()
    }

    async fn booked(&self, url: &str, currency: Currency) -> anyhow::Result<Vec<Trip>> {
        let mut config = PostgresConfig::new(url.to_owned());
        if let Some(ca) = &self.postgres_ca {
            config.authorities = Some(Authorities::read(ca)?);
        }
        let ledger = PostgresLedger::connect(&config)?;
        let mut collected = Collected::default();
        let mut after = None;
        loop {
            let page = ledger.charges(after, PAGE).await?;
            let Some(last) = page.last() else {
                return Ok(collected.finish());
            };
            after = Some((last.shopper, last.transaction_id));
            for charge in page {
                collected.take(charge, currency);
            }
            if collected.trips.len() > TRIPS_MAX {
                bail!("more than {TRIPS_MAX} trips are booked");
            }
        }
    }
}

// === impl Collected ===

impl Collected {
    /// Payments come by shopper, so that a trip is whole when the next one's begin.
    fn take(&mut self, charge: Charge, currency: Currency) {
        if self.shopper != Some(charge.shopper) {
            self.close();
            self.shopper = Some(charge.shopper);
        }
        if charge.amount.currency() != currency {
            return;
        }
        let minor = charge.amount.minor();
        let charged = self.open.entry(charge.trip).or_insert_with(|| Charged {
            trip: Trip {
                at: charge.at,
                store: charge.store,
                picked: charge.picked,
                charged: 0,
                mix: charge.mix.clone(),
            },
            approved: 0,
            asked: 0,
        });
        match charge.verdict {
            Verdict::Approved => charged.approved = charged.approved.saturating_add(minor),
            Verdict::Declined => {
                let asked = charge.approved_before.saturating_add(minor);
                charged.asked = charged.asked.max(asked);
            }
        }
        // What was in the cart in the end.
        if charge.at >= charged.trip.at {
            charged.trip = Trip {
                at: charge.at,
                store: charge.store,
                picked: charge.picked,
                charged: 0,
                mix: charge.mix,
            };
        }
    }

    fn close(&mut self) {
        let whole = std::mem::take(&mut self.open).into_values();
        self.trips.extend(whole.map(|charged| Trip {
            charged: charged.approved.max(charged.asked),
            ..charged.trip
        }));
    }

    fn finish(mut self) -> Vec<Trip> {
        self.close();
        self.trips
    }
}

/// A receipt as a trip: its category is the department, as the demo's orders have it.
pub(super) fn of_basket(basket: &Basket) -> anyhow::Result<Trip> {
    let at: jiff::Timestamp = basket
        .at
        .parse()
        .with_context(|| format!("basket {}: {} is no time", basket.id, basket.at))?;
    let mut mix: BTreeMap<String, i64> = BTreeMap::new();
    for line in &basket.lines {
        let sum = mix.entry(line.department.clone()).or_default();
        *sum = sum.saturating_add(line.listed);
    }
    Ok(Trip {
        at: Timestamp::from_millis(at.as_millisecond()),
        store: basket.store.try_into()?,
        picked: basket.listed(),
        charged: basket.total(),
        mix,
    })
}

#[cfg(test)]
mod tests {
    use standin_core::money::Money;
    use uuid::Uuid;

    use super::*;

    /// Shopper, trip, time, picked, amount; declined where `approved_before` is given.
    fn charge(
        (shopper, trip): (i64, u128),
        at: i64,
        picked: i64,
        amount: i64,
        declined_after: Option<i64>,
    ) -> Charge {
        Charge {
            shopper: shopper.try_into().unwrap(),
            transaction_id: standin_core::id::TransactionId::from_bytes([1; 16]),
            trip: TripId(Uuid::from_u128(trip)),
            store: 7_i64.try_into().unwrap(),
            at: Timestamp::from_millis(at),
            picked,
            mix: [("GROCERY".to_owned(), picked)].into(),
            verdict: match declined_after {
                Some(_) => Verdict::Declined,
                None => Verdict::Approved,
            },
            amount: Money::from_minor(amount, Currency::USD),
            approved_before: declined_after.unwrap_or(0),
        }
    }

    #[test]
    fn a_trip_is_all_its_payments_and_what_was_declined_of_it() {
        let mut collected = Collected::default();
        for one in [
            // Two payments; the later one's cart counts, in whatever order they are read.
            charge((1, 1), 20, 900, 300, None),
            charge((1, 1), 10, 500, 550, None),
            // Declined for more than all that was approved.
            charge((1, 2), 30, 1_000, 400, None),
            charge((1, 2), 31, 1_000, 900, Some(400)),
            // Declined first, and then less was paid.
            charge((2, 3), 40, 1_000, 1_500, Some(0)),
            charge((2, 3), 41, 1_000, 1_050, None),
        ] {
            collected.take(one, Currency::USD);
        }
        collected.take(charge((2, 4), 50, 1, 1, None), "EUR".parse().unwrap());
        let trips: Vec<(i64, i64, i64)> = collected
            .finish()
            .iter()
            .map(|trip| (trip.at.as_millis(), trip.picked, trip.charged))
            .collect();
        assert_eq!(
            trips,
            [(20, 900, 850), (31, 1_000, 1_300), (41, 1_000, 1_500)]
        );
    }
}
