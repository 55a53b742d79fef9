//! `standin bank`: plays a bank, one request (`send`), a case of the contract (`trigger`) or a load of
//! requests (`load`); and a sandbox for those who connect one (`listen`).

pub mod format;
pub mod listen;
pub mod load;
pub mod send;
pub mod trigger;

use bytes::Bytes;
use standin_core::signature::{Scheme, Secret};

use self::format::Format;
use crate::client::Signer;
use crate::secret::SecretArgs;

/// Plays a bank.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Send(send::Args),
    Trigger(trigger::Args),
    Listen(listen::Args),
    Load(load::Args),
}

/// Where to send, and as whom.
#[derive(Debug, clap::Args)]
pub struct Door {
    /// The edge.
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8080",
        env = "STANDIN_URL"
    )]
    pub url: crate::client::Target,
    /// Certificates, for https://.
    #[command(flatten)]
    pub tls: crate::client::TlsArgs,
    /// Slug of the bank.
    #[arg(long, default_value = "example-bank", env = "STANDIN_BANK")]
    pub bank: String,
    /// The bank's secret.
    #[command(flatten)]
    pub secret: SecretArgs,
    /// How the bank signs: standard-webhooks, stripe, http-message or basic. Left out, as its format's
    /// platform does.
    #[arg(long, value_name = "SCHEME", env = "STANDIN_SIGNATURE", value_parser = scheme)]
    pub signature: Option<Scheme>,
    /// For http-message: the id of the secret.
    #[arg(
        long,
        value_name = "ID",
        env = "STANDIN_KEY_ID",
        required_if_eq("signature", "http-message")
    )]
    pub key_id: Option<String>,
}

/// What a payment says.
#[derive(Clone, PartialEq, Eq, Default, Debug, clap::Args)]
pub struct Payment {
    /// Who and where.
    #[command(flatten)]
    pub charged: Charged,
    /// How much, in major units, exactly as written: 300, 100.2. 0 asks whether the card is good.
    #[arg(long, value_name = "DECIMAL", default_value = "300")]
    pub amount: String,
    /// The bank's own key for this payment. The same key with the same body replays the answer;
    /// left out, native: the trip, shopper, merchant and amount are the key; else a fresh one.
    #[arg(long, value_name = "KEY")]
    pub transaction_id: Option<String>,
    /// Takes less than the amount, where the bank is configured to.
    #[arg(long)]
    pub partial: bool,
}

/// Whose card is charged, and where.
#[derive(Clone, PartialEq, Eq, Default, Debug, clap::Args)]
pub struct Charged {
    /// Native: whose card. Platforms: whose card of `standin bank listen`, unless --card says which.
    #[arg(long, value_name = "ID", default_value_t = 123)]
    pub shopper: u64,
    /// Platforms: the card's token.
    #[arg(long, value_name = "TOKEN")]
    pub card: Option<String>,
    /// Platforms: the token of the card's holder.
    #[arg(long, value_name = "TOKEN")]
    pub cardholder: Option<String>,
    /// The merchant's name, as a bank would write it.
    #[arg(long, value_name = "TEXT", default_value = "Target")]
    pub merchant_name: String,
    /// The merchant's street address; Stripe sends none.
    #[arg(long, value_name = "TEXT", default_value = "123 Main St")]
    pub merchant_address: String,
    /// Platforms: the merchant's city.
    #[arg(long, value_name = "TEXT", default_value = "Cincinnati")]
    pub merchant_city: String,
    /// Platforms: the merchant's state.
    #[arg(long, value_name = "TEXT", default_value = "OH")]
    pub merchant_state: String,
    /// Platforms: the merchant's postal code.
    #[arg(long, value_name = "TEXT", default_value = "45202")]
    pub merchant_postal_code: String,
    /// The merchant's id in the card network.
    #[arg(long, value_name = "ID")]
    pub network_id: Option<String>,
    /// The terminal's id.
    #[arg(long, value_name = "ID")]
    pub terminal_id: Option<String>,
    /// ISO 4217 code; left out, native: the bank's own currency holds; else USD.
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
}

// === impl Args ===

impl Args {
    /// Runs it; the exit code is in the command's help.
    ///
    /// # Errors
    /// When the request could not be made.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Send(args) => args.run().await,
            Command::Trigger(args) => args.run().await,
            Command::Listen(args) => args.run().await,
            Command::Load(args) => args.run().await,
        }
    }
}

// === impl Door ===

impl Door {
    /// Signs as the bank does.
    ///
    /// # Errors
    /// When there is no secret, or it is none.
    pub fn signer(&self, format: Format) -> anyhow::Result<Signer> {
        let scheme = self.scheme(format);
        Ok(self.signer_with(scheme, self.secret.bank(scheme)?))
    }

    /// Signs with another secret.
    fn signer_with(&self, scheme: Scheme, secret: Secret) -> Signer {
        let key_id = self.key_id.clone().unwrap_or_default();
        Signer::of(scheme, secret, key_id, &self.url)
    }

    fn scheme(&self, format: Format) -> Scheme {
        self.signature.unwrap_or_else(|| format.scheme())
    }

    /// Path of the bank's authorizations.
    pub fn path(&self) -> String {
        path_of(&self.bank)
    }
}

fn scheme(text: &str) -> Result<Scheme, &'static str> {
    text.parse()
        .map_err(|()| "one of standard-webhooks, stripe, http-message, basic")
}

/// A fresh key of letters. Of random digits some read as a card number: one UUID in five hundred has
/// thirteen or more in a row that pass the check, and a payment under it is refused.
fn key_in_letters() -> String {
    let digits = uuid::Uuid::now_v7().simple().to_string();
    let letter = |digit: char| {
        digit
            .to_digit(16)
            .and_then(|of| LETTERS.get(usize::try_from(of).ok()?))
    };
    digits.chars().filter_map(letter).copied().collect()
}

const LETTERS: [char; 16] = [
    'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 'k', 'm', 'n', 'p', 'r', 's', 't', 'w',
];

/// Path of a bank's authorizations.
pub fn path_of(bank: &str) -> String {
    format!("/v1/banks/{bank}/authorizations")
}

// === impl Payment ===

impl Payment {
    /// The body a bank sends in our own format. The amount's digits stay as they are; an amount that is
    /// no JSON number goes as a string, for the edge to judge.
    ///
    /// # Errors
    /// Never for texts, which have a JSON form.
    pub fn body(&self) -> serde_json::Result<Bytes> {
        format::native::body(self, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(amount: &str) -> Payment {
        Payment {
            charged: Charged {
                shopper: 123,
                merchant_name: "Target".to_owned(),
                merchant_address: "123 Main St".to_owned(),
                ..Charged::default()
            },
            amount: amount.to_owned(),
            ..Payment::default()
        }
    }

    #[test]
    fn the_default_body_is_the_documented_one_byte_for_byte() {
        let body = payment("300").body().unwrap();
        let documented =
            br#"{"shopper_id":123,"amount":300,"merchant":{"name":"Target","address":"123 Main St"}}"#;
        assert_eq!(body.as_ref(), documented.as_slice());
    }

    #[test]
    fn an_amount_keeps_its_digits() {
        let amount = |text: &str| {
            let body = payment(text).body().unwrap();
            let text = String::from_utf8(body.to_vec()).unwrap();
            let start = text.split("\"amount\":").nth(1).unwrap();
            start.split(",\"merchant\"").next().unwrap().to_owned()
        };
        assert_eq!(amount("100.20"), "100.20");
        assert_eq!(amount("0.1"), "0.1");
        assert_eq!(amount("12345678901234567890.01"), "12345678901234567890.01");
        assert_eq!(amount("3,00"), "\"3,00\"");
        assert_eq!(amount("1}"), "\"1}\"");
    }
}
