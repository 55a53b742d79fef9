//! Banks' secrets, from the configuration and from a file a bank that is looked at now and then.
//!
//! A file that does not hold keys leaves the old ones in use. One that is not there at the start is a
//! key that this edge was not given: its bank is told to come again, not that it is a stranger.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use standin_core::clock::{Clock, Timestamp};
use standin_core::id::BankId;
use standin_core::signature::{Key, Keys, KeysError, Scheme};
use tokio_util::sync::CancellationToken;

use crate::alarm::{Alarm, Alarms};
use crate::config::BankConfig;
use crate::watched::{FileRead, LOOK_EVERY, Recipe, Watched};

/// Left of the last key's time when people are told.
const ENDS_SOON_MS: i64 = 7 * 24 * 60 * 60 * 1_000;

/// Where one bank's secrets are.
#[derive(Clone, Debug)]
pub struct SecretsConfig {
    /// Whose.
    pub bank: BankId,
    /// How it signs.
    pub scheme: Scheme,
    /// Those that stand in the configuration.
    pub given: Vec<Key>,
    /// A file with more, as [`Keys::parse`] reads it.
    pub file: Option<PathBuf>,
}

/// Why files hold no secrets. No part of a secret is in it.
#[derive(Debug, thiserror::Error)]
pub enum SecretsError {
    /// A file cannot be read.
    #[error("secrets of {bank}: cannot read {file}: {source}")]
    Read {
        /// Whose.
        bank: BankId,
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else.
    #[error("secrets of {bank}: {error}")]
    Keys {
        /// Whose.
        bank: BankId,
        /// What is wrong.
        error: KeysError,
    },
}

/// The secrets of every bank, in the banks' order.
pub struct BankSecrets {
    banks: Vec<Watched<SecretsConfig>>,
    clock: Arc<dyn Clock>,
    alarms: Arc<Alarms>,
}

// === impl SecretsConfig ===

impl Recipe for SecretsConfig {
    type Made = Keys;
    type Error = SecretsError;

    fn files(&self) -> Vec<PathBuf> {
        self.file.iter().cloned().collect()
    }

    fn make(
        &self,
        files: Vec<FileRead>,
        in_use: Option<&Keys>,
        _now: Timestamp,
    ) -> Result<Keys, SecretsError> {
        let wrong = |error| SecretsError::Keys {
            bank: self.bank.clone(),
            error,
        };
        if self.signs_nothing() {
            return Ok(Keys::default());
        }
        let mut keys = self.given.clone();
        for FileRead { path, bytes } in files {
            match bytes {
                Ok(bytes) => {
                    let text = String::from_utf8_lossy(&bytes);
                    let read = Keys::parse(&text, self.scheme).map_err(wrong)?;
                    keys.extend(read.iter().cloned());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && in_use.is_none() => {
                    keys.push(Key::not_given());
                }
                Err(source) => {
                    return Err(SecretsError::Read {
                        bank: self.bank.clone(),
                        file: path,
                        source,
                    });
                }
            }
        }
        Keys::of(keys).map_err(wrong)
    }

    fn warning(&self, keys: &Keys, now: Timestamp) -> Option<String> {
        if self.signs_nothing() {
            return None;
        }
        let bank = &self.bank;
        let live = keys.live(now);
        if live.missing {
            return Some(format!("{bank} has a key that this edge was not given"));
        }
        if live.secrets.is_empty() {
            return Some(format!("{bank} has no key that is good now"));
        }
        let soon = Timestamp::from_millis(now.as_millis().saturating_add(ENDS_SOON_MS));
        let later = keys.live(soon);
        let none = later.secrets.is_empty() && !later.missing;
        none.then(|| format!("the last key of {bank} ends within seven days"))
    }
}

impl SecretsConfig {
    /// Whether the bank's format has no signatures: then no signed request is taken for its.
    const fn signs_nothing(&self) -> bool {
        self.given.is_empty() && self.file.is_none()
    }
}

// === impl BankSecrets ===

impl BankSecrets {
    /// Reads every bank's.
    ///
    /// # Errors
    /// When a file is there and holds no keys.
    pub async fn open(
        banks: &[BankConfig],
        clock: Arc<dyn Clock>,
        alarms: Arc<Alarms>,
    ) -> Result<Self, SecretsError> {
        let mut watched = Vec::new();
        for bank in banks {
            watched.push(Watched::open(bank.secrets.clone(), clock.now()).await?);
        }
        let secrets = Self {
            banks: watched,
            clock,
            alarms,
        };
        secrets.alarm();
        Ok(secrets)
    }

    /// The keys of the bank with this number.
    pub fn keys(&self, bank: usize) -> Option<Arc<Keys>> {
        self.banks.get(bank).map(Watched::current)
    }

    /// Takes the files as they are now.
    pub async fn reload(&self) {
        for bank in &self.banks {
            // The alarm says what is the matter.
            drop(bank.reload(self.clock.now()).await);
        }
        self.alarm();
    }

    /// Looks at the files; takes what it has seen twice.
    async fn look(&self) {
        for bank in &self.banks {
            drop(bank.look(self.clock.now()).await);
        }
        self.alarm();
    }

    /// Looks at the files every so often, until `stop`.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let pause = || stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
        while pause().await.is_some() {
            self.look().await;
        }
    }

    fn alarm(&self) {
        let now = self.clock.now();
        let problems = self.banks.iter().filter_map(|bank| bank.problem(now));
        self.alarms.set_for(Alarm::BankSecrets, problems);
    }
}
