//! `standin trips`: the platform's side, one signed call each; and which Redis holds its trip cache.

mod promote_home;

use serde_json::Value;
use uuid::Uuid;

use crate::client::{Call, Signer, Target};
use crate::out::{say, say_json};
use crate::platform_client::{
    self, EventIn, ItemIn, MerchantIdIn, OrderIn, PlatformClient, StoreIn,
};
use crate::secret::SecretArgs;

/// Plays the platform: stores, orders, claims, trips, picks.
///
/// Each command but promote-home is one signed call to the trips API and prints its reply. Ids may be given; left
/// out, fresh ones are made and shown. Repeating a call with the same ids changes nothing.
///
/// Exit code: 0 done, 4 refused (with the reason), 1 no reply, 2 wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
A trip from beginning to end (STANDIN_PLATFORM_SECRET is set):
  standin trips card --bank first --token ic_1 --shopper 7
  standin trips place --store 1 --item 11:PRODUCE:2:4.50 --item 12:GROCERY:1:9.99
  standin trips offers --store 1
  standin trips claim ORDER --shopper 7
  standin trips start --shopper 7 --order ORDER
  standin trips position TRIP --shopper 7 --lat 39.1 --lon -84.5
  standin trips pick TRIP --shopper 7 --order ORDER --line 1 --actual 4.71
  standin trips show TRIP --shopper 7
  standin trips finish TRIP --shopper 7
  standin trips complete TRIP --shopper 7

A store, and what card networks call it:
  standin trips store --store 1 --name 'Target T-1234' --address '123 Main St, Springfield, IL 62701' \\
      --lat 39.8 --lon -89.6 --merchant-id 445100000000123
  standin trips merchant-id 445100000000124:00042 --store 1")]
pub struct Args {
    /// The trips API.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        default_value = "http://127.0.0.1:8082",
        env = "STANDIN_TRIPS"
    )]
    url: Target,
    #[command(flatten)]
    secret: SecretArgs,
    /// JSON in one document, as it came.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Call(ApiCommand),
    PromoteHome(Box<promote_home::PromoteHomeArgs>),
}

#[derive(Debug, clap::Subcommand)]
enum ApiCommand {
    /// Says which shopper carries a card, for banks whose messages name cards rather than shoppers.
    Card {
        /// The bank's slug.
        #[arg(long)]
        bank: String,
        /// The card's token, or its holder's, as the bank's messages have it; never a card number.
        #[arg(long)]
        token: String,
        /// Who carries it.
        #[arg(long, required_unless_present = "nobody")]
        shopper: Option<u64>,
        /// Takes it from whoever has it.
        #[arg(long, conflicts_with = "shopper")]
        nobody: bool,
    },
    /// Adds or replaces a store.
    Store {
        /// The store.
        #[arg(long)]
        store: i64,
        /// Its name on receipts, with its number where it has one.
        #[arg(long)]
        name: String,
        /// Its address: street, city, state and postal code, with commas between.
        #[arg(long)]
        address: String,
        /// Degrees.
        #[arg(long, allow_hyphen_values = true)]
        lat: String,
        /// Degrees.
        #[arg(long, allow_hyphen_values = true)]
        lon: String,
        /// What a card network calls it: the merchant's id, or MERCHANT:TERMINAL where that takes
        /// the terminal's to tell. What it was called before is kept.
        #[arg(long = "merchant-id", value_name = "ID", value_parser = merchant_id)]
        merchant_ids: Vec<MerchantIdIn>,
    },
    /// Says what a card network calls a store.
    MerchantId {
        /// The merchant's id, or MERCHANT:TERMINAL.
        #[arg(value_name = "ID", value_parser = merchant_id)]
        id: MerchantIdIn,
        /// The store.
        #[arg(long)]
        store: i64,
    },
    /// Forgets what a card network calls a store.
    RemoveMerchantId {
        /// The merchant's id, or MERCHANT:TERMINAL.
        #[arg(value_name = "ID", value_parser = merchant_id)]
        id: MerchantIdIn,
    },
    /// Places an order.
    Place {
        /// The store.
        #[arg(long)]
        store: i64,
        /// Who orders.
        #[arg(long, default_value_t = 1)]
        customer: i64,
        /// The order's id; left out, a fresh one.
        #[arg(long)]
        order: Option<Uuid>,
        /// A line: PRODUCT:CATEGORY:QUANTITY:LISTED, in major units.
        #[arg(long = "item", value_name = "LINE", required = true, value_parser = line)]
        items: Vec<Line>,
    },
    /// Lists what may be claimed at a store.
    Offers {
        /// The store.
        #[arg(long)]
        store: i64,
        /// At most so many.
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Claims an order; of any number of shoppers one wins.
    Claim {
        /// The order.
        order: Uuid,
        /// Who claims it.
        #[arg(long)]
        shopper: u64,
    },
    /// Starts a trip with claimed orders.
    Start {
        /// Who shops.
        #[arg(long)]
        shopper: u64,
        /// A claimed order; several of one store make one trip.
        #[arg(long = "order", required = true)]
        orders: Vec<Uuid>,
        /// The trip's id; left out, a fresh one.
        #[arg(long)]
        trip: Option<Uuid>,
    },
    /// Puts a line into the cart.
    Pick {
        #[command(flatten)]
        at: AtLine,
        /// The price on the shelf for the line, major units.
        #[arg(long)]
        actual: Option<String>,
    },
    /// Puts a line back.
    Unpick(AtLine),
    /// Says that the store has none of it.
    OutOfStock(AtLine),
    /// Says where the shopper is.
    Position {
        #[command(flatten)]
        on: OnTrip,
        /// Degrees.
        #[arg(long, allow_hyphen_values = true)]
        lat: String,
        /// Degrees.
        #[arg(long, allow_hyphen_values = true)]
        lon: String,
    },
    /// Ends shopping: nothing more is authorized.
    Finish(OnTrip),
    /// Ends the trip: delivered.
    Complete(OnTrip),
    /// Shows a trip.
    Show(OnTrip),
}

/// A shopper's trip.
#[derive(Debug, clap::Args)]
struct OnTrip {
    /// The trip.
    trip: Uuid,
    /// Whose.
    #[arg(long)]
    shopper: u64,
}

/// A line of an order on a trip.
#[derive(Debug, clap::Args)]
struct AtLine {
    #[command(flatten)]
    on: OnTrip,
    /// The order.
    #[arg(long)]
    order: Uuid,
    /// The line, from 1.
    #[arg(long)]
    line: u32,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Line {
    product: i64,
    category: String,
    quantity: u32,
    listed: String,
}

// === impl Args ===

impl Args {
    /// Runs it.
    ///
    /// # Errors
    /// When there is no reply.
    pub async fn run(self) -> anyhow::Result<u8> {
        let call = match self.command {
            Command::PromoteHome(args) => return args.run(self.json).await,
            Command::Call(command) => command.call()?,
        };
        let signer = Signer::new(self.secret.platform()?);
        let client = PlatformClient::new(self.url, 1, signer);
        let reply = client.call(call).await?;
        let done = (200..300).contains(&reply.status);
        let value: Value = serde_json::from_slice(&reply.body)
            .unwrap_or_else(|_| String::from_utf8_lossy(&reply.body).into_owned().into());
        if self.json || done {
            say_json(&value)?;
        } else {
            let word = |name| value.get(name).and_then(Value::as_str);
            let why = word("detail")
                .or_else(|| word("title"))
                .unwrap_or("no reason given");
            say(format_args!("refused ({}): {why}", reply.status));
        }
        Ok(if done { 0 } else { 4 })
    }
}

// === impl ApiCommand ===

impl ApiCommand {
    fn call(&self) -> Result<Call, serde_json::Error> {
        match self {
            Self::Card {
                bank,
                token,
                shopper,
                nobody: _,
            } => platform_client::set_card(bank, token, *shopper),
            Self::Store {
                store,
                name,
                address,
                lat,
                lon,
                merchant_ids,
            } => platform_client::put_store_with_ids(&StoreIn {
                store_id: *store,
                name,
                address,
                lat,
                lon,
                merchant_ids,
            }),
            Self::MerchantId { id, store } => platform_client::put_merchant_id(*store, id),
            Self::RemoveMerchantId { id } => platform_client::remove_merchant_id(id),
            Self::Place {
                store,
                customer,
                order,
                items,
            } => {
                let items = items.iter().map(|line| ItemIn {
                    product: line.product,
                    category: &line.category,
                    quantity: line.quantity,
                    listed: line.listed.clone(),
                });
                platform_client::place(&OrderIn {
                    order_id: order.unwrap_or_else(Uuid::now_v7),
                    customer_id: *customer,
                    store_id: *store,
                    items: items.collect(),
                })
            }
            Self::Offers { store, limit } => Ok(platform_client::offers(*store, *limit)),
            Self::Claim { order, shopper } => platform_client::claim(*order, *shopper),
            Self::Start {
                shopper,
                orders,
                trip,
            } => platform_client::start(trip.unwrap_or_else(Uuid::now_v7), *shopper, orders),
            Self::Pick { at, actual } => at.event("pick", actual.clone()),
            Self::Unpick(at) => at.event("unpick", None),
            Self::OutOfStock(at) => at.event("out_of_stock", None),
            Self::Position { on, lat, lon } => on.event(EventIn {
                lat: Some(lat.clone()),
                lon: Some(lon.clone()),
                ..EventIn::of("position", Uuid::now_v7())
            }),
            Self::Finish(on) => on.event(EventIn::of("finish", Uuid::now_v7())),
            Self::Complete(on) => platform_client::complete(on.trip, on.shopper),
            Self::Show(on) => Ok(platform_client::trip(on.shopper, on.trip)),
        }
    }
}

// === impl OnTrip ===

impl OnTrip {
    fn event(&self, event: EventIn) -> Result<Call, serde_json::Error> {
        platform_client::events(self.trip, self.shopper, &[event])
    }
}

// === impl AtLine ===

impl AtLine {
    fn event(&self, kind: &'static str, actual: Option<String>) -> Result<Call, serde_json::Error> {
        self.on.event(EventIn {
            order_id: Some(self.order),
            line: Some(self.line),
            actual,
            ..EventIn::of(kind, Uuid::now_v7())
        })
    }
}

/// The API says what is wrong with an id.
#[expect(clippy::unnecessary_wraps, reason = "what a value parser has to be")]
fn merchant_id(text: &str) -> Result<MerchantIdIn, String> {
    let (network_id, terminal) = match text.split_once(':') {
        Some((network_id, terminal)) => (network_id, Some(terminal.to_owned())),
        None => (text, None),
    };
    Ok(MerchantIdIn {
        network_id: network_id.to_owned(),
        terminal,
    })
}

fn line(text: &str) -> Result<Line, String> {
    let parts: Vec<&str> = text.split(':').collect();
    let [product, category, quantity, listed] = parts.as_slice() else {
        return Err("write PRODUCT:CATEGORY:QUANTITY:LISTED, as in 11:PRODUCE:2:4.50".to_owned());
    };
    Ok(Line {
        product: product
            .parse()
            .map_err(|_| format!("product {product}: a whole number"))?,
        category: (*category).to_owned(),
        quantity: quantity
            .parse()
            .map_err(|_| format!("quantity {quantity}: a whole number"))?,
        listed: (*listed).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_may_have_a_terminal() {
        let read = |text| merchant_id(text).map(|id| (id.network_id, id.terminal));
        assert_eq!(read("12"), Ok(("12".to_owned(), None)));
        assert_eq!(read("12:7"), Ok(("12".to_owned(), Some("7".to_owned()))));
    }

    #[test]
    fn a_line_is_four_words() {
        let read = line("11:PRODUCE:2:4.50").unwrap();
        assert_eq!(
            (read.product, read.quantity, read.listed.as_str()),
            (11, 2, "4.50")
        );
        assert!(line("11:PRODUCE:2").is_err());
        assert!(line("x:PRODUCE:2:1").is_err());
    }
}
