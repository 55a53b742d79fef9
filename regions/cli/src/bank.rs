//! `standin bank`: plays a bank, one request (`send`), a case of the contract (`trigger`) or a load of
//! requests (`load`); a sandbox for those who connect one (`listen`), and tokens of card numbers
//! (`token`).

pub mod format;
pub mod listen;
pub mod load;
pub mod send;
pub mod token;
pub mod trigger;

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use anyhow::bail;
use bytes::Bytes;
use standin_core::identity::in_letters;
use standin_core::signature::{Scheme, Secret};

use self::format::Format;
use crate::client::line::LineTarget;
use crate::client::{Signer, Target, TargetError};
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
    Token(token::Args),
}

/// Where a bank sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DoorUrl {
    /// Over HTTP.
    Http(Target),
    /// ISO 8583, over TCP.
    Iso8583(LineTarget),
}

/// Where to send, and as whom.
#[derive(Debug, clap::Args)]
pub struct Door {
    /// The edge: http:// or https://, for iso8583 iso8583:// or iso8583s://. Left out,
    /// http://127.0.0.1:8080 or iso8583://127.0.0.1:8583.
    #[arg(long, value_name = "URL", env = "STANDIN_URL")]
    pub url: Option<DoorUrl>,
    /// Certificates, for https:// and iso8583s://.
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
    /// For iso8583 MMDDhhmmss-NNNNNN, fields 7 and 11.
    #[arg(long, value_name = "KEY")]
    pub transaction_id: Option<String>,
    /// Takes less than the amount, where the bank is configured to; iso8583: that alone decides.
    #[arg(long)]
    pub partial: bool,
}

/// Whose card is charged, and where.
#[derive(Clone, PartialEq, Eq, Default, Debug, clap::Args)]
pub struct Charged {
    /// Native: whose card. Platforms: whose card of `standin bank listen`, unless --card says which.
    #[arg(long, value_name = "ID", default_value_t = 123)]
    pub shopper: u64,
    /// Platforms: the card's token. iso8583: the number of a test card; others on this machine may see
    /// a command line, so a real number is never to be in one.
    #[arg(long, value_name = "CARD")]
    pub card: Option<String>,
    /// Platforms: the token of the card's holder.
    #[arg(long, value_name = "TOKEN")]
    pub cardholder: Option<String>,
    /// The merchant's name, as a bank would write it.
    #[arg(long, value_name = "TEXT", default_value = "Target")]
    pub merchant_name: String,
    /// The merchant's street address; Stripe and iso8583 send none.
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
            Command::Token(args) => args.run(),
        }
    }
}

// === impl DoorUrl ===

impl FromStr for DoorUrl {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let read = match text.split_once("://") {
            Some(("iso8583" | "iso8583s", _)) => text.parse().map(Self::Iso8583),
            _ => text.parse().map(Self::Http),
        };
        read.map_err(|error: TargetError| match error {
            TargetError::Scheme(_, found) => format!(
                "only http://, https://, iso8583:// and iso8583s:// are spoken here, not {found}://"
            ),
            error => error.to_string(),
        })
    }
}

impl fmt::Display for DoorUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(target) => target.fmt(f),
            Self::Iso8583(target) => target.fmt(f),
        }
    }
}

// === impl Door ===

impl Door {
    /// Where HTTP is spoken.
    ///
    /// # Errors
    /// When that is not what the URL says.
    pub fn http(&self) -> anyhow::Result<Target> {
        match &self.url {
            None => Ok(Target::from(SocketAddr::from((LOOPBACK, 8080)))),
            Some(DoorUrl::Http(target)) => Ok(target.clone()),
            Some(url @ DoorUrl::Iso8583(_)) => {
                bail!(
                    "at {url} no HTTP is spoken: give --format iso8583, or --url http://HOST:PORT"
                )
            }
        }
    }

    /// Where ISO 8583 is spoken.
    ///
    /// # Errors
    /// When that is not what the URL says.
    pub fn line(&self) -> anyhow::Result<LineTarget> {
        match &self.url {
            None => Ok(LineTarget::from(SocketAddr::from((LOOPBACK, 8583)))),
            Some(DoorUrl::Iso8583(target)) => Ok(target.clone()),
            Some(url @ DoorUrl::Http(_)) => bail!(
                "at {url} no ISO 8583 is spoken: give --url iso8583://HOST:PORT, or iso8583s:// over TLS"
            ),
        }
    }

    /// Signs as the bank does what is sent to `target`.
    ///
    /// # Errors
    /// When there is no secret, or it is none.
    pub fn signer(&self, format: Format, target: &Target) -> anyhow::Result<Signer> {
        let scheme = self.scheme(format);
        Ok(self.signer_with(scheme, self.secret.bank(scheme)?, target))
    }

    /// Signs with another secret.
    fn signer_with(&self, scheme: Scheme, secret: Secret, target: &Target) -> Signer {
        let key_id = self.key_id.clone().unwrap_or_default();
        Signer::of(scheme, secret, key_id, target)
    }

    fn scheme(&self, format: Format) -> Scheme {
        self.signature.unwrap_or_else(|| format.scheme())
    }

    /// Path of the bank's authorizations.
    pub fn path(&self) -> String {
        path_of(&self.bank)
    }
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];

fn scheme(text: &str) -> Result<Scheme, &'static str> {
    text.parse()
        .map_err(|()| "one of standard-webhooks, stripe, http-message, basic")
}

/// A fresh key, in letters: no card number is in it.
fn key_in_letters() -> String {
    in_letters(uuid::Uuid::now_v7().into_bytes())
}

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
    fn a_url_says_what_is_spoken_there() {
        let read = |text: &str| text.parse::<DoorUrl>().map(|url| url.to_string());
        for text in [
            "http://127.0.0.1:8080",
            "https://edge.example:8480",
            "iso8583://127.0.0.1:8583",
            "iso8583s://edge.example:8583",
        ] {
            assert_eq!(read(text).as_deref(), Ok(text));
            let url: DoorUrl = text.parse().unwrap();
            assert_eq!(
                matches!(url, DoorUrl::Iso8583(_)),
                text.starts_with("iso8583")
            );
        }
        let other = read("ftp://a:1").unwrap_err();
        assert!(other.contains("iso8583s://"), "{other}");
        assert!(read("iso8583://a:1/path").is_err());
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
