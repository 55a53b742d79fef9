//! `standin bank`: plays a bank, one request (`send`) or a load of them (`load`).

pub mod load;
pub mod send;

use bytes::Bytes;
use serde::Serialize;
use serde_json::value::RawValue;
use standin_core::signature::Scheme;

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
    /// How the bank signs: standard-webhooks, stripe, http-message or basic.
    #[arg(long, value_name = "SCHEME", default_value = "standard-webhooks",
          env = "STANDIN_SIGNATURE", value_parser = scheme)]
    pub signature: Scheme,
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
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct Payment {
    /// Whose card.
    #[arg(long, value_name = "ID", default_value_t = 123)]
    pub shopper: u64,
    /// How much, in major units, exactly as written: 300, 100.2.
    #[arg(long, value_name = "DECIMAL", default_value = "300")]
    pub amount: String,
    /// The merchant's name, as a bank would write it.
    #[arg(long, value_name = "TEXT", default_value = "Target")]
    pub merchant_name: String,
    /// The merchant's street address.
    #[arg(long, value_name = "TEXT", default_value = "123 Main St")]
    pub merchant_address: String,
    /// ISO 4217 code; left out, the bank's own currency holds.
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
    /// The bank's own key for this payment. The same key with the same body replays the answer;
    /// left out, the trip, shopper, merchant and amount are the key.
    #[arg(long, value_name = "KEY")]
    pub transaction_id: Option<String>,
}

#[derive(Serialize)]
struct Body<'a> {
    shopper_id: u64,
    amount: &'a RawValue,
    merchant: Merchant<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transaction_id: Option<&'a str>,
}

#[derive(Serialize)]
struct Merchant<'a> {
    name: &'a str,
    address: &'a str,
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
    pub fn signer(&self) -> anyhow::Result<Signer> {
        let secret = self.secret.bank(self.signature)?;
        let key_id = self.key_id.clone().unwrap_or_default();
        Ok(Signer::of(self.signature, secret, key_id, &self.url))
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
    /// The body a bank sends. The amount's digits stay as they are; an amount that is no JSON
    /// number goes as a string, for the edge to judge.
    ///
    /// # Errors
    /// Never for texts, which have a JSON form.
    pub fn body(&self) -> serde_json::Result<Bytes> {
        let is_number = serde_json::from_str::<serde_json::Number>(&self.amount).is_ok();
        let amount = if is_number {
            RawValue::from_string(self.amount.clone())?
        } else {
            serde_json::value::to_raw_value(&self.amount)?
        };
        let body = Body {
            shopper_id: self.shopper,
            amount: &amount,
            merchant: Merchant {
                name: &self.merchant_name,
                address: &self.merchant_address,
            },
            currency: self.currency.as_deref(),
            transaction_id: self.transaction_id.as_deref(),
        };
        Ok(serde_json::to_vec(&body)?.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payment(amount: &str) -> Payment {
        Payment {
            shopper: 123,
            amount: amount.to_owned(),
            merchant_name: "Target".to_owned(),
            merchant_address: "123 Main St".to_owned(),
            currency: None,
            transaction_id: None,
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
