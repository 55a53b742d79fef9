//! How to connect to the sandbox, for programs and for people.

use std::path::{Path, PathBuf};

use serde::Serialize;
use standin_core::signature::Scheme;
use standin_edge::iso8583::{Encoding, Mti};

use super::{BANK, CITY, KEY_ID, Sandbox, Signs};
use crate::bank::format::iso8583::{self, Name};
use crate::bank::format::{Format, Tokens, Words, tokens};
use crate::bank::{Charged, Payment, path_of};
use crate::serve::example::{PICKED, SHOPPER};
use crate::world::World;

/// Signed requests for curl, as the pages in docs/banks show them.
const NATIVE_SAMPLE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/banks/samples/native.sh"
));
const STRIPE_SAMPLE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/banks/samples/stripe.sh"
));
const LITHIC_SAMPLE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/banks/samples/lithic.sh"
));
const MARQETA_SAMPLE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/banks/samples/marqeta.sh"
));

/// How to connect, for programs.
#[derive(Serialize)]
pub(in super::super) struct Ready {
    url: String,
    bank: &'static str,
    format: &'static str,
    #[serde(flatten)]
    signed: Option<Signed>,
    #[serde(flatten)]
    written: Option<WrittenAs>,
    #[serde(flatten)]
    certificates: Option<Certificates>,
    card: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cardholder: Option<String>,
    operators: String,
    trips: String,
    platform_secret: String,
}

/// How requests are signed.
#[derive(Serialize)]
struct Signed {
    signature: &'static str,
    /// It is the format's own.
    #[serde(skip)]
    is_own: bool,
    secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'static str>,
}

/// How messages are written.
#[derive(Serialize)]
struct WrittenAs {
    encoding: &'static str,
    card_acceptor: &'static str,
}

/// Files that a client over TLS needs.
#[derive(Serialize)]
struct Certificates {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

// === impl Sandbox ===

impl Sandbox {
    /// How to connect, for programs.
    pub(in super::super) fn ready(&self, world: &World) -> Ready {
        let edge = world.edge();
        let secure = if self.is_secure { "s" } else { "" };
        let (scheme, address) = match self.format {
            Words::Http(_) => ("http", edge.address()),
            // It listens there: the configuration says so.
            Words::Iso8583 => ("iso8583", edge.iso8583_address().unwrap_or(edge.address())),
        };
        let (card, cardholder) = match self.format {
            Words::Http(format) => {
                let Tokens { card, cardholder } = tokens(format, SHOPPER);
                (card, Some(cardholder))
            }
            Words::Iso8583 => (iso8583::test_number(SHOPPER), None),
        };
        Ready {
            url: format!("{scheme}{secure}://{address}"),
            bank: BANK,
            format: self.format.as_str(),
            signed: self.signs.as_ref().map(Signed::of),
            written: (self.format == Words::Iso8583).then(|| WrittenAs {
                encoding: self.agreed.encoding(),
                card_acceptor: self.agreed.card_acceptor(),
            }),
            certificates: self.is_secure.then(|| Certificates {
                ca: self.certs().join("banks-ca.pem"),
                certificate: self.certs().join(format!("bank-{BANK}.pem")),
                key: self.certs().join(format!("bank-{BANK}.key")),
            }),
            card,
            cardholder,
            operators: format!("http://{}", edge.admin_address()),
            trips: format!("http://{}", world.trips_address()),
            platform_secret: self.platform_secret.clone(),
        }
    }

    /// How to connect, for people.
    pub(in super::super) fn how_to(&self, world: &World) -> anyhow::Result<String> {
        let ready = self.ready(world);
        let mut text = format!(
            "Shopper {SHOPPER} is at Target, 123 Main St, {CITY}, with items for {PICKED} USD in the cart.\n"
        );
        text.push_str(&match &self.signs {
            Some(signs) => format!(
                "Send to {}{}, signed as {}:\n\n{}\n\n\
                 The secret is of this run alone. In another terminal:\n\n",
                ready.url,
                path_of(BANK),
                signs.scheme.as_str(),
                how_to_sign(signs.scheme),
            ),
            None => format!(
                "Its card is the test card {}. Send ISO 8583:1987 to {}, each message behind its length:\n\
                 two bytes, big-endian. In another terminal:\n\n",
                ready.card, ready.url,
            ),
        });
        for (name, value) in ready.variables() {
            text.push_str(&format!("  export {name}='{value}'\n"));
        }
        text.push_str("\n  standin bank send --amount 20        # approved\n");
        text.push_str(match self.format {
            Words::Http(_) => "  standin bank trigger over-cap        # declined",
            Words::Iso8583 => "  standin bank trigger wrong-store     # declined",
        });
        text.push_str("; `standin bank trigger --help` has more\n");
        let lines = self.without_standin(world)?;
        if !lines.is_empty() {
            text.push_str("\nThe same without standin:\n\n");
        }
        for line in lines {
            text.push_str(&format!("  {line}\n"));
        }
        text.push_str("\nStop with Ctrl-C. What comes:\n");
        Ok(text)
    }

    /// What to paste into a shell.
    fn without_standin(&self, world: &World) -> anyhow::Result<Vec<String>> {
        // A sample connects over TLS where its platform's signature needs that.
        let fits =
            |signs: &Signs| signs.is_own && (signs.scheme == Scheme::Basic) == self.is_secure;
        let format = match self.format {
            Words::Http(format) if self.signs.as_ref().is_some_and(fits) => format,
            Words::Http(_) => return Ok(Vec::new()),
            Words::Iso8583 => return Ok(self.typed(world)?.into_iter().collect()),
        };
        let sample = match format {
            Format::Native => NATIVE_SAMPLE,
            Format::Stripe => STRIPE_SAMPLE,
            Format::Lithic => LITHIC_SAMPLE,
            Format::Marqeta => MARQETA_SAMPLE,
        };
        // Without its head.
        let lines = sample
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with("set ") && !line.is_empty());
        Ok(lines.map(str::to_owned).collect())
    }

    /// A payment of ISO 8583 as a shell can send it; not where its bytes are no text, or over TLS.
    fn typed(&self, world: &World) -> anyhow::Result<Option<String>> {
        let address = world.edge().iso8583_address();
        let (Some(address), Encoding::Ascii, false) =
            (address, self.agreed.encoding, self.is_secure)
        else {
            return Ok(None);
        };
        let payment = Payment {
            charged: Charged {
                shopper: SHOPPER,
                merchant_name: "Target".to_owned(),
                merchant_city: CITY.to_owned(),
                merchant_state: "OH".to_owned(),
                ..Charged::default()
            },
            amount: "20".to_owned(),
            ..Payment::default()
        };
        let (mti, layout) = (Mti::AuthorizationRequest, self.agreed.card_acceptor);
        let message = iso8583::authorization(mti, &payment, &Name::fresh(), layout)?;
        let message = String::from_utf8(message.encode(Encoding::Ascii))?;
        let [high, low] = u16::try_from(message.len())?.to_be_bytes();
        let (ip, port) = (address.ip(), address.port());
        Ok(Some(format!(
            "printf '\\{high:03o}\\{low:03o}%s' '{message}' | nc -w 2 {ip} {port}"
        )))
    }
}

const fn how_to_sign(scheme: Scheme) -> &'static str {
    match scheme {
        Scheme::StandardWebhooks => {
            "  webhook-id: an id; webhook-timestamp: seconds since 1970\n  \
             webhook-signature: v1,BASE64 of HMAC-SHA256(the secret behind whsec_, from base64; id.timestamp.body)"
        }
        Scheme::Stripe => {
            "  Stripe-Signature: t=SECONDS,v1=HEX of HMAC-SHA256(the secret as it is written; t.body)"
        }
        Scheme::HttpMessage => {
            "  Content-Digest, Idempotency-Key, Signature-Input, Signature: RFC 9421 in the form of docs/banks/README.md"
        }
        Scheme::Basic => {
            "  Authorization: Basic BASE64 of the secret, on a connection that shows the bank's certificate"
        }
    }
}

// === impl Signed ===

impl Signed {
    fn of(signs: &Signs) -> Self {
        Self {
            signature: signs.scheme.as_str(),
            is_own: signs.is_own,
            secret: signs.secret.clone(),
            key_id: (signs.scheme == Scheme::HttpMessage).then_some(KEY_ID),
        }
    }
}

// === impl Ready ===

impl Ready {
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("STANDIN_URL", self.url.clone()),
            ("STANDIN_BANK", self.bank.to_owned()),
            ("STANDIN_FORMAT", self.format.to_owned()),
        ];
        if let Some(signed) = &self.signed {
            variables.push(("STANDIN_BANK_SECRET", signed.secret.clone()));
            if !signed.is_own {
                variables.push(("STANDIN_SIGNATURE", signed.signature.to_owned()));
            }
            if let Some(key_id) = signed.key_id {
                variables.push(("STANDIN_KEY_ID", key_id.to_owned()));
            }
        }
        if let Some(written) = &self.written {
            variables.push(("STANDIN_ENCODING", written.encoding.to_owned()));
            variables.push(("STANDIN_CARD_ACCEPTOR", written.card_acceptor.to_owned()));
        }
        if let Some(files) = &self.certificates {
            let shown = |file: &Path| file.display().to_string();
            variables.push(("STANDIN_CA", shown(&files.ca)));
            variables.push(("STANDIN_CERTIFICATE", shown(&files.certificate)));
            variables.push(("STANDIN_KEY", shown(&files.key)));
        }
        variables.push(("STANDIN_ADMIN", self.operators.clone()));
        variables.push(("STANDIN_TRIPS", self.trips.clone()));
        variables.push(("STANDIN_PLATFORM_SECRET", self.platform_secret.clone()));
        variables
    }
}
