//! What the sandbox is made of: a folder, secrets, certificates, a configuration, shoppers and stores.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;
use standin_core::id::StoreId;
use standin_core::merchant::Store;
use standin_core::policy::EXAMPLE;
use standin_core::signature::Scheme;
use standin_edge::config::Config;
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::format::{Format, Tokens, tokens};
use super::super::path_of;
use super::Args;
use crate::certs;
use crate::platform_client::{self, PlatformClient};
use crate::secret::{fresh, fresh_key};
use crate::serve::example::{PICKED, SHOPPER, shop};
use crate::serve::kept;
use crate::world::World;

/// The bank's slug.
const BANK: &str = "example-bank";
/// Of an HTTP message signature.
const KEY_ID: &str = "sandbox";
/// In the example policy.
const SIX_APPROVALS: &str = "approvals_max = 6";
const FURNISH_WITHIN: Duration = Duration::from_secs(20);

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

/// Everything but the edge itself.
pub(super) struct Sandbox {
    format: Format,
    scheme: Scheme,
    dir: PathBuf,
    /// Removes the folder at the end.
    _temporary: Option<TempDir>,
    secret: String,
    pub(super) platform_secret: String,
}

/// How to connect, for programs.
#[derive(Serialize)]
pub(super) struct Ready {
    url: String,
    bank: &'static str,
    format: &'static str,
    signature: &'static str,
    /// It is the format's own.
    #[serde(skip)]
    is_own_signature: bool,
    secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_id: Option<&'static str>,
    #[serde(flatten)]
    certificates: Option<Certificates>,
    card: String,
    cardholder: String,
    operators: String,
    trips: String,
    platform_secret: String,
}

/// Files that a client over TLS needs.
#[derive(Serialize)]
struct Certificates {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// A fresh secret of a scheme.
pub(in crate::bank) fn fresh_secret(scheme: Scheme) -> String {
    let word = || Uuid::new_v4().simple().to_string();
    match scheme {
        Scheme::StandardWebhooks => fresh(),
        Scheme::Stripe => format!("whsec_{}", word()),
        Scheme::HttpMessage => fresh_key(),
        Scheme::Basic => format!("sandbox:{}", word()),
    }
}

// === impl Sandbox ===

impl Sandbox {
    pub(super) fn new(args: &Args) -> anyhow::Result<Self> {
        let (dir, temporary) = match &args.data {
            Some(dir) => (dir.clone(), None),
            None => {
                let folder = tempfile::Builder::new()
                    .prefix("standin-sandbox-")
                    .tempdir()?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let scheme = args.signature.unwrap_or_else(|| args.format.scheme());
        let sandbox = Self {
            format: args.format,
            scheme,
            dir,
            _temporary: temporary,
            secret: fresh_secret(scheme),
            platform_secret: fresh(),
        };
        if sandbox.is_secure() {
            certs::of_bank(&BANK.parse()?, &sandbox.certs())?;
        }
        let policy = EXAMPLE.replace(SIX_APPROVALS, "approvals_max = 100000");
        std::fs::write(sandbox.policy(), policy)?;
        Ok(sandbox)
    }

    /// Where nothing is signed, the connection has to say who sends.
    fn is_secure(&self) -> bool {
        self.scheme == Scheme::Basic
    }

    fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    fn policy(&self) -> PathBuf {
        self.dir.join("policy.toml")
    }

    /// The edge's configuration.
    pub(super) fn config(&self, args: &Args) -> anyhow::Result<Config> {
        let secret = match self.scheme {
            Scheme::HttpMessage => format!("{} id={KEY_ID}", self.secret),
            Scheme::StandardWebhooks | Scheme::Stripe | Scheme::Basic => self.secret.clone(),
        };
        let certificate = if self.is_secure() {
            "required"
        } else {
            "optional"
        };
        let mut bank = toml::Table::new();
        for (key, value) in [
            ("slug", BANK),
            ("currency", "USD"),
            ("partial_approvals", "taken"),
            ("adapter", self.format.as_str()),
            ("shopper_by", args.shopper_by.as_str()),
            ("signature", self.scheme.as_str()),
            ("client_certificate", certificate),
        ] {
            bank.insert(key.to_owned(), value.into());
        }
        bank.insert("secrets".to_owned(), vec![secret].into());
        let deployment_key = kept(&self.dir.join("deployment.key"), fresh_key)?;
        let mut text = toml::Table::new();
        let mut set = |key: &str, value: toml::Value| drop(text.insert(key.to_owned(), value));
        set("listen", args.listen.to_string().into());
        set("admin_listen", "127.0.0.1:0".into());
        set("deployment_key", deployment_key.into());
        set("policy", in_utf8(&self.policy())?.into());
        set("banks", vec![toml::Value::Table(bank)].into());
        set("wal", table([("dir", in_utf8(&self.dir.join("wal"))?)]));
        if self.is_secure() {
            let file = |name: &str| in_utf8(&self.certs().join(name));
            set(
                "tls",
                table([
                    ("certificate", file("door.pem")?),
                    ("key", file("door.key")?),
                    ("banks_ca", file("banks-ca.pem")?),
                ]),
            );
        }
        let (config, _settings) = Config::load(Some(&toml::to_string(&text)?), [])?;
        Ok(config)
    }

    /// Opens two stores, gives shoppers their cards and sends them shopping at the first.
    pub(super) async fn furnish(
        &self,
        world: &World,
        client: &PlatformClient,
        shoppers: u64,
    ) -> anyhow::Result<()> {
        let until = Instant::now()
            .checked_add(FURNISH_WITHIN)
            .context("the clock is at its end")?;
        let [target, other] = self.stores()?;
        for store in [&target, &other] {
            client
                .insist(platform_client::put_store(store)?, until)
                .await?;
        }
        for shopper in (SHOPPER..).take(usize::try_from(shoppers)?) {
            shop(world, client, &target, shopper).await?;
            if self.format == Format::Native {
                continue;
            }
            let Tokens { card, cardholder } = tokens(self.format, shopper);
            for token in [card, cardholder] {
                let call = platform_client::set_card(BANK, &token, Some(shopper))?;
                client.insist(call, until).await?;
            }
        }
        Ok(())
    }

    /// Written as the format's messages have them: ours with the street alone, as its first example,
    /// Stripe's with the city alone.
    fn stores(&self) -> anyhow::Result<[Store; 2]> {
        let store = |id: u64, name: &str, street: &str, lat_e6| -> anyhow::Result<Store> {
            let city = "Cincinnati OH 45202";
            let address = match self.format {
                Format::Native => street.to_owned(),
                Format::Stripe => city.to_owned(),
                Format::Lithic | Format::Marqeta => format!("{street} {city}"),
            };
            Ok(Store {
                id: StoreId::try_from(id)?,
                name: name.to_owned(),
                address,
                lat_e6,
                lon_e6: -84_500_000,
            })
        };
        Ok([
            store(1, "Target", "123 Main St", 39_100_000)?,
            store(2, "Corner Hardware", "9 Elm St", 39_200_000)?,
        ])
    }

    /// How to connect, for programs.
    pub(super) fn ready(&self, world: &World) -> Ready {
        let Tokens { card, cardholder } = tokens(self.format, SHOPPER);
        let secure = self.is_secure();
        Ready {
            url: format!(
                "{}://{}",
                if secure { "https" } else { "http" },
                world.edge().address()
            ),
            bank: BANK,
            format: self.format.as_str(),
            signature: self.scheme.as_str(),
            is_own_signature: self.scheme == self.format.scheme(),
            secret: self.secret.clone(),
            key_id: (self.scheme == Scheme::HttpMessage).then_some(KEY_ID),
            certificates: secure.then(|| Certificates {
                ca: self.certs().join("banks-ca.pem"),
                certificate: self.certs().join(format!("bank-{BANK}.pem")),
                key: self.certs().join(format!("bank-{BANK}.key")),
            }),
            card,
            cardholder,
            operators: format!("http://{}", world.edge().admin_address()),
            trips: format!("http://{}", world.trips_address()),
            platform_secret: self.platform_secret.clone(),
        }
    }

    /// How to connect, for people.
    pub(super) fn how_to(&self, world: &World) -> String {
        let ready = self.ready(world);
        let mut text = format!(
            "Shopper {SHOPPER} is at Target, 123 Main St, Cincinnati, with items for {PICKED} USD in the cart.\n\
             Send to {}{}, signed as {}:\n\n\
             {}\n\n\
             The secret is of this run alone. In another terminal:\n\n",
            ready.url,
            path_of(BANK),
            ready.signature,
            self.how_to_sign(),
        );
        for (name, value) in ready.variables() {
            text.push_str(&format!("  export {name}='{value}'\n"));
        }
        text.push_str(
            "\n  standin bank send --amount 20        # approved\n  \
             standin bank trigger over-cap        # declined; `standin bank trigger --help` has more\n",
        );
        if ready.is_own_signature {
            text.push_str("\nThe same without standin:\n\n");
            for line in self.sample() {
                text.push_str(&format!("  {line}\n"));
            }
        }
        text.push_str("\nStop with Ctrl-C. What comes:\n");
        text
    }

    const fn how_to_sign(&self) -> &'static str {
        match self.scheme {
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

    /// What the sample does, without its head.
    fn sample(&self) -> impl Iterator<Item = &'static str> {
        let sample = match self.format {
            Format::Native => NATIVE_SAMPLE,
            Format::Stripe => STRIPE_SAMPLE,
            Format::Lithic => LITHIC_SAMPLE,
            Format::Marqeta => MARQETA_SAMPLE,
        };
        sample
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with("set ") && !line.is_empty())
    }
}

// === impl Ready ===

impl Ready {
    fn variables(&self) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("STANDIN_URL", self.url.clone()),
            ("STANDIN_BANK", self.bank.to_owned()),
            ("STANDIN_FORMAT", self.format.to_owned()),
            ("STANDIN_BANK_SECRET", self.secret.clone()),
        ];
        if !self.is_own_signature {
            variables.push(("STANDIN_SIGNATURE", self.signature.to_owned()));
        }
        if let Some(key_id) = self.key_id {
            variables.push(("STANDIN_KEY_ID", key_id.to_owned()));
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

fn in_utf8(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().map(str::to_owned);
    text.with_context(|| format!("{}: a path in UTF-8 is needed", path.display()))
}

fn table<const N: usize>(entries: [(&str, String); N]) -> toml::Value {
    let entries = entries.map(|(key, value)| (key.to_owned(), value.into()));
    toml::Value::Table(entries.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_secret_is_one_of_its_scheme() {
        for scheme in Scheme::ALL {
            let secret = fresh_secret(scheme);
            assert!(scheme.secret(&secret).is_ok(), "{}", scheme.as_str());
            assert_ne!(secret, fresh_secret(scheme));
        }
    }

    #[test]
    fn the_example_policy_has_the_limit_that_the_sandbox_lifts() {
        assert_eq!(EXAMPLE.matches(SIX_APPROVALS).count(), 1);
    }
}
