//! What the sandbox is made of: a folder, secrets, certificates, a configuration, shoppers and stores.

mod ready;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use standin_core::id::StoreId;
use standin_core::identity::DeploymentKey;
use standin_core::merchant::Store;
use standin_core::policy::EXAMPLE;
use standin_core::signature::Scheme;
use standin_edge::config::Config;
use tempfile::TempDir;
use tokio::time::Instant;
use uuid::Uuid;

use super::super::format::iso8583::{self, Agreed};
use super::super::format::{Format, Tokens, Words, tokens};
use super::Args;
use crate::certs;
use crate::platform_client::{self, PlatformClient};
use crate::secret::{fresh, fresh_key};
use crate::serve::example::{SHOPPER, shop};
use crate::serve::kept;
use crate::world::World;

/// The bank's slug.
const BANK: &str = "example-bank";
const CITY: &str = "Cincinnati";
/// Of an HTTP message signature.
const KEY_ID: &str = "sandbox";
/// In the example policy.
const SIX_APPROVALS: &str = "approvals_max = 6";
const FURNISH_WITHIN: Duration = Duration::from_secs(20);

/// Everything but the edge itself.
pub(super) struct Sandbox {
    format: Words,
    agreed: Agreed,
    /// How the bank signs, and with what; `None`: it does not.
    signs: Option<Signs>,
    is_secure: bool,
    dir: PathBuf,
    /// Removes the folder at the end.
    _temporary: Option<TempDir>,
    pub(super) platform_secret: String,
}

struct Signs {
    scheme: Scheme,
    /// It is the format's own.
    is_own: bool,
    secret: String,
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
        let signs = match args.format {
            Words::Iso8583 => None,
            Words::Http(format) => Some(Signs::of(format, args.signature)),
        };
        // Where nothing is signed, the connection has to say who sends.
        let is_basic = |signs: &Signs| signs.scheme == Scheme::Basic;
        let sandbox = Self {
            format: args.format,
            agreed: args.agreed,
            is_secure: args.tls || signs.as_ref().is_some_and(is_basic),
            signs,
            dir,
            _temporary: temporary,
            platform_secret: fresh(),
        };
        if sandbox.is_secure {
            certs::of_bank(&BANK.parse()?, &sandbox.certs())?;
        }
        let policy = EXAMPLE.replace(SIX_APPROVALS, "approvals_max = 100000");
        std::fs::write(sandbox.policy(), policy)?;
        Ok(sandbox)
    }

    fn certs(&self) -> PathBuf {
        self.dir.join("certs")
    }

    fn policy(&self) -> PathBuf {
        self.dir.join("policy.toml")
    }

    /// The edge's configuration.
    pub(super) fn config(&self, args: &Args) -> anyhow::Result<Config> {
        let mut text = toml::Table::new();
        let mut set = |key: &str, value: toml::Value| drop(text.insert(key.to_owned(), value));
        match self.format {
            Words::Http(_) => set("listen", args.address().to_string().into()),
            Words::Iso8583 => {
                set("listen", "127.0.0.1:0".into());
                set("iso8583", table([("listen", args.address().to_string())]));
            }
        }
        set("admin_listen", "127.0.0.1:0".into());
        set("deployment_key", self.deployment_key()?.into());
        set("policy", in_utf8(&self.policy())?.into());
        set("banks", vec![toml::Value::Table(self.bank(args))].into());
        set("wal", table([("dir", in_utf8(&self.dir.join("wal"))?)]));
        if self.is_secure {
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

    /// The bank's section.
    fn bank(&self, args: &Args) -> toml::Table {
        let certificate = if self.is_secure {
            "required"
        } else {
            "optional"
        };
        let mut bank = toml::Table::new();
        let mut set = |key: &str, value: toml::Value| drop(bank.insert(key.to_owned(), value));
        for (key, value) in [
            ("slug", BANK),
            ("currency", "USD"),
            ("partial_approvals", "taken"),
            ("adapter", self.format.as_str()),
            ("shopper_by", args.shopper_by.as_str()),
            ("client_certificate", certificate),
            ("encoding", self.agreed.encoding()),
            ("card_acceptor", self.agreed.card_acceptor()),
        ] {
            set(key, value.into());
        }
        if let Some(Signs { scheme, secret, .. }) = &self.signs {
            let secret = match scheme {
                Scheme::HttpMessage => format!("{secret} id={KEY_ID}"),
                Scheme::StandardWebhooks | Scheme::Stripe | Scheme::Basic => secret.clone(),
            };
            set("signature", scheme.as_str().into());
            set("secrets", vec![secret].into());
        }
        bank
    }

    /// A fresh one, or that which is kept.
    fn deployment_key(&self) -> anyhow::Result<String> {
        kept(&self.dir.join("deployment.key"), fresh_key)
    }

    /// Opens two stores, gives shoppers their cards and sends them shopping at the first.
    pub(super) async fn furnish(
        &self,
        world: &World,
        client: &PlatformClient,
        shoppers: u64,
        key: &DeploymentKey,
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
        for shopper in shoppers_of(shoppers) {
            shop(world, client, &target, shopper).await?;
            for token in self.tokens(shopper, key)? {
                let call = platform_client::set_card(BANK, &token, Some(shopper))?;
                client.insist(call, until).await?;
            }
        }
        Ok(())
    }

    /// By which the bank's messages name a shopper, but for the shopper's own number.
    fn tokens(&self, shopper: u64, key: &DeploymentKey) -> anyhow::Result<Vec<String>> {
        Ok(match self.format {
            Words::Http(Format::Native) => Vec::new(),
            Words::Http(format) => {
                let Tokens { card, cardholder } = tokens(format, shopper);
                vec![card, cardholder]
            }
            Words::Iso8583 => vec![key.card_token(&BANK.parse()?, &iso8583::test_number(shopper))],
        })
    }

    /// Written as the format's messages have them: ours with the street alone, as its first example,
    /// Stripe's and those of ISO 8583 with the city alone.
    fn stores(&self) -> anyhow::Result<[Store; 2]> {
        let store = |id: u64, name: &str, street: &str, lat_e6| -> anyhow::Result<Store> {
            let address = match self.format {
                Words::Http(Format::Native) => street.to_owned(),
                Words::Http(Format::Stripe) => format!("{CITY} OH 45202"),
                Words::Http(Format::Lithic | Format::Marqeta) => {
                    format!("{street} {CITY} OH 45202")
                }
                Words::Iso8583 => CITY.to_owned(),
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
}

fn shoppers_of(many: u64) -> std::ops::Range<u64> {
    SHOPPER..SHOPPER.saturating_add(many)
}

// === impl Signs ===

impl Signs {
    fn of(format: Format, given: Option<Scheme>) -> Self {
        let own = format.scheme();
        let scheme = given.unwrap_or(own);
        Self {
            scheme,
            is_own: scheme == own,
            secret: fresh_secret(scheme),
        }
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
