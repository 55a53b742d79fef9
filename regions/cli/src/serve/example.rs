//! The example of `standin serve --example`: one store, one trip, items for 300.00 picked.

use std::time::Duration;

use anyhow::{Context, ensure};
use standin_core::id::StoreId;
use standin_core::merchant::Store;
use tokio::time::Instant;
use uuid::Uuid;

use super::data::BANK;
use crate::platform_client::{self, EventIn, ItemIn, OrderIn, PlatformClient, TripOut};
use crate::secret::{EXAMPLE_BANK_SECRET, EXAMPLE_PLATFORM_SECRET};
use crate::world::World;

/// Who shops.
pub(crate) const SHOPPER: u64 = 123;
const STORE: i64 = 1;
/// Fixed, so that starting again changes nothing.
const ORDER: Uuid = Uuid::from_u128(0x5741_4e44_494e_4000_8000_0000_0000_0001);
const TRIP: Uuid = Uuid::from_u128(0x5741_4e44_494e_4000_8000_0000_0000_0002);
/// Product, category, units, listed and actual price.
const LINES: [(i64, &str, u32, &str, &str); 3] = [
    (11, "GROCERY", 12, "182.40", "182.40"),
    (12, "PRODUCE", 9, "55.00", "57.60"),
    (13, "DRUG GM", 4, "60.00", "60.00"),
];
/// What is in the cart then.
pub(crate) const PICKED: &str = "300.00";
const PREPARE_WITHIN: Duration = Duration::from_secs(20);

/// Makes the example, through the trips API. A second time changes nothing.
pub(super) async fn prepare(world: &World, client: &PlatformClient) -> anyhow::Result<()> {
    let store = Store {
        id: StoreId::try_from(STORE)?,
        name: "Target".to_owned(),
        address: "123 Main St".to_owned(),
        lat_e6: 39_100_000,
        lon_e6: -84_500_000,
    };
    let until = Instant::now()
        .checked_add(PREPARE_WITHIN)
        .context("the clock is at its end")?;
    client
        .insist(platform_client::put_store(&store)?, until)
        .await?;
    shop(world, client, &store, SHOPPER).await
}

/// Has a shopper pick the example's items at a store that is there. A second time changes nothing.
pub(crate) async fn shop(
    world: &World,
    client: &PlatformClient,
    store: &Store,
    shopper: u64,
) -> anyhow::Result<()> {
    let until = Instant::now()
        .checked_add(PREPARE_WITHIN)
        .context("the clock is at its end")?;
    let (order, trip) = (of_shopper(ORDER, shopper), of_shopper(TRIP, shopper));
    let items = LINES.map(|(product, category, quantity, listed, _)| ItemIn {
        product,
        category,
        quantity,
        listed: listed.to_owned(),
    });
    let placed = OrderIn {
        order_id: order,
        customer_id: 1,
        store_id: store.id.get(),
        items: items.into(),
    };
    client
        .insist(platform_client::place(&placed)?, until)
        .await?;
    client
        .insist(platform_client::claim(order, shopper)?, until)
        .await?;
    client
        .insist(platform_client::start(trip, shopper, &[order])?, until)
        .await?;
    let before: TripOut = look(client, shopper, trip, until).await?;
    let mut events = vec![EventIn::position(
        Uuid::now_v7(),
        store.lat_e6,
        store.lon_e6,
    )];
    // Somebody may have shopped on since the last start: then the cart is theirs.
    let is_new = before.picked == "0.00" && before.status == "SHOPPING";
    for (line, (_, _, _, _, actual)) in (1_u32..).zip(LINES).filter(|_| is_new) {
        events.push(EventIn {
            order_id: Some(order),
            line: Some(line),
            actual: Some(actual.to_owned()),
            ..EventIn::of("pick", Uuid::now_v7())
        });
    }
    client
        .insist(platform_client::events(trip, shopper, &events)?, until)
        .await?;
    loop {
        let seen = look(client, shopper, trip, until).await?;
        let known = world.edge().status().await["stores"].as_u64() > Some(0);
        if known && (seen.picked == PICKED || !is_new) {
            return Ok(());
        }
        ensure!(
            Instant::now() < until,
            "the example's trip shows {} picked",
            seen.picked
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// An id of the example's shopper, as another shopper has it.
fn of_shopper(id: Uuid, shopper: u64) -> Uuid {
    let away = u128::from(shopper.abs_diff(SHOPPER)).saturating_mul(0x1_0000);
    Uuid::from_u128(id.as_u128().saturating_add(away))
}

async fn look(
    client: &PlatformClient,
    shopper: u64,
    trip: Uuid,
    until: Instant,
) -> anyhow::Result<TripOut> {
    let seen = client
        .insist(platform_client::trip(shopper, trip), until)
        .await?;
    Ok(serde_json::from_value(seen)?)
}

/// What to try now.
pub(super) fn what_to_try(world: &World) -> String {
    let (bank, admin, trips) = (
        world.edge().address(),
        world.edge().admin_address(),
        world.trips_address(),
    );
    let key = EXAMPLE_BANK_SECRET.trim_start_matches("whsec_");
    format!(
        r#"Shopper 123 is at Target, 123 Main St, with items for {PICKED} USD in the cart.
The secrets below are public: they are for trying things out.

In another terminal:

  export STANDIN_URL=http://{bank} STANDIN_ADMIN=http://{admin} STANDIN_TRIPS=http://{trips}
  export STANDIN_BANK_SECRET={EXAMPLE_BANK_SECRET}
  export STANDIN_PLATFORM_SECRET={EXAMPLE_PLATFORM_SECRET}
  standin bank send --amount 300           # approved
  standin bank send --amount 300           # the same answer, replayed
  standin bank send --amount 3000          # declined: over_cap
  standin trips show {TRIP} --shopper {SHOPPER}
  standin status

The same without standin:

  BODY='{{"shopper_id":123,"amount":300,"merchant":{{"name":"Target","address":"123 Main St"}}}}'
  ID=msg_$(date +%s%N); TS=$(date +%s)
  KEY=$(printf %s {key} | openssl base64 -d -A | od -An -v -tx1 | tr -d ' \n')
  SIG=$(printf %s "$ID.$TS.$BODY" | openssl dgst -sha256 -mac HMAC -macopt "hexkey:$KEY" -binary | openssl base64 -A)
  curl -i http://{bank}/v1/banks/{BANK}/authorizations -H 'content-type: application/json' \
    -H "webhook-id: $ID" -H "webhook-timestamp: $TS" -H "webhook-signature: v1,$SIG" -d "$BODY"

Stop with Ctrl-C; started again, it goes on where it was."#
    )
}
