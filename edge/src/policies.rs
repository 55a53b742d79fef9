//! The policy in force and the one proposed, from two files that are looked at now and then:
//! `NAME.toml`, and `NAME.proposed.toml` beside it where somebody proposed a version.
//!
//! A changed file is taken into use when it is a policy, of a later version and the same currency; else
//! what is in use stays, and an alarm says why. Every version that is taken into use goes to the audit
//! through the log, under an id made of what it says: so many edges of a region write one row. What a start
//! finds in force is written too where its file says who put it there: an edge may have been down meanwhile.
//! The reserve that an edge asks the log for is that of its start.

use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use standin_core::clock::{Clock, Timestamp};
use standin_core::entry::{Entry, OperatorAction, OperatorOrder};
use standin_core::policy::{Policy, PolicyError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::alarm::{Alarm, Alarms};
use crate::log::{Log, soon};
use crate::path::Path;
use crate::watched::{FileRead, LOOK_EVERY, Recipe, Reloaded, Watched};

/// How long an entry for the audit may take to become durable before it is tried again.
const AUDIT_WITHIN: Duration = Duration::from_millis(700);

/// The two files.
#[derive(Clone, Debug)]
pub struct PolicyFiles {
    active: PathBuf,
    proposed: PathBuf,
}

/// What is made of them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Policies {
    /// In force.
    pub active: Policy,
    /// Evaluated beside it.
    pub proposed: Option<Policy>,
    /// Why a proposal that is there is not evaluated.
    pub not_tried: Option<String>,
}

/// Why the active file does not serve.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no policy.
    #[error("{path}: {source}")]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: PolicyError,
    },
    /// It says something else under a version that is not later.
    #[error(
        "{path}: its version {version} is not above {in_use}, which is in use and says something else"
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in it.
        version: u32,
        /// The version in use.
        in_use: u32,
    },
    /// It is in another currency, which takes a restart.
    #[error("{path}: it is in another currency than the version in use")]
    Currency {
        /// The file.
        path: PathBuf,
    },
}

/// Looks at the files, and puts into use what is there.
pub struct PolicyWatch {
    /// The files; `None`: the built-in policy, for good.
    pub files: Option<Watched<PolicyFiles>>,
    /// Where the policies are used.
    pub path: Arc<Path>,
    /// Where what was taken into use is written down.
    pub log: Arc<Log>,
    /// Where people are told.
    pub alarms: Arc<Alarms>,
    /// Time of day.
    pub clock: Arc<dyn Clock>,
    /// The region, whose edges write one row.
    pub region: String,
}

// === impl PolicyFiles ===

impl PolicyFiles {
    /// The files of a policy.
    pub fn of(active: &FilePath) -> Self {
        Self {
            active: active.to_owned(),
            proposed: proposed_beside(active),
        }
    }
}

/// Where a policy's proposal is.
pub fn proposed_beside(active: &FilePath) -> PathBuf {
    active.with_extension("proposed.toml")
}

impl Recipe for PolicyFiles {
    type Made = Policies;
    type Error = PoliciesError;

    fn files(&self) -> Vec<PathBuf> {
        vec![self.active.clone(), self.proposed.clone()]
    }

    fn make(
        &self,
        files: Vec<FileRead>,
        in_use: Option<&Policies>,
        _now: Timestamp,
    ) -> Result<Policies, PoliciesError> {
        let mut files = files.into_iter();
        let missing = || io::Error::from(io::ErrorKind::NotFound);
        let bytes = |file: Option<FileRead>| file.map_or_else(|| Err(missing()), |file| file.bytes);
        let path = || self.active.clone();
        let read = bytes(files.next());
        let text = read.map_err(|source| PoliciesError::Read {
            path: path(),
            source,
        })?;
        let active = Policy::parse(&String::from_utf8_lossy(&text)).map_err(|source| {
            PoliciesError::Policy {
                path: path(),
                source,
            }
        })?;
        if let Some(in_use) = in_use.map(|policies| &policies.active) {
            if active != *in_use && active.version <= in_use.version {
                return Err(PoliciesError::Version {
                    path: path(),
                    version: active.version,
                    in_use: in_use.version,
                });
            }
            if active.currency != in_use.currency {
                return Err(PoliciesError::Currency { path: path() });
            }
        }
        let (proposed, not_tried) = match proposal(bytes(files.next()), &active) {
            Ok(proposed) => (proposed, None),
            Err(why) => (None, Some(why)),
        };
        Ok(Policies {
            active,
            proposed,
            not_tried,
        })
    }

    fn warning(&self, policies: &Policies, _now: Timestamp) -> Option<String> {
        let why = policies.not_tried.as_ref()?;
        Some(format!("{} is not tried: {why}", self.proposed.display()))
    }
}

/// A proposal to try beside `active`; none if there is no file. A proposal never keeps the active policy
/// from being used.
fn proposal(bytes: io::Result<Vec<u8>>, active: &Policy) -> Result<Option<Policy>, String> {
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let proposed =
        Policy::parse(&String::from_utf8_lossy(&bytes)).map_err(|error| error.to_string())?;
    if proposed.version <= active.version {
        let (proposed, active) = (proposed.version, active.version);
        return Err(format!(
            "its version {proposed} is not above the active {active}"
        ));
    }
    if proposed.currency != active.currency {
        return Err("it is in another currency".to_owned());
    }
    Ok(Some(proposed))
}

// === impl PolicyWatch ===

impl PolicyWatch {
    /// Looks every so often, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let Some(files) = &self.files else {
            return;
        };
        let started = files.current();
        self.path
            .shadow
            .set(started.proposed.as_ref(), self.clock.now());
        let mut unaudited = started
            .active
            .change
            .is_some()
            .then(|| self.taken(&started.active, None));
        loop {
            if let Some(entry) = unaudited.take()
                && let Err(error) = self.log.propose(&entry, soon(AUDIT_WITHIN)).await
            {
                tracing::debug!(%error, "the policy taken into use is not in the audit yet");
                unaudited = Some(entry);
            }
            self.alarms
                .set(Alarm::Policy, files.problem(self.clock.now()));
            let pause = stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY));
            if pause.await.is_none() {
                return;
            }
            if let Ok(Reloaded::Changed) = files.look(self.clock.now()).await
                && let Some(entry) = self.take(&files.current())
            {
                unaudited = Some(entry);
            }
        }
    }

    /// Puts policies into use; gives what the audit should say of it.
    fn take(&self, policies: &Policies) -> Option<Entry> {
        let before = self.path.policy.load_full();
        self.path
            .shadow
            .set(policies.proposed.as_ref(), self.clock.now());
        if *before == policies.active {
            return None;
        }
        tracing::warn!(
            version = policies.active.version,
            before = before.version,
            "another version of the policy is in force"
        );
        self.path.policy.store(Arc::new(policies.active.clone()));
        Some(self.taken(&policies.active, Some(before.version)))
    }

    fn taken(&self, policy: &Policy, before: Option<u32>) -> Entry {
        let mut hash = Sha256::new();
        for part in [self.region.as_bytes(), &[0], policy.to_toml().as_bytes()] {
            hash.update(part);
        }
        let digest: [u8; 32] = hash.finalize().into();
        let id = digest.first_chunk::<16>().copied().unwrap_or_default();
        let change = policy.change.as_ref();
        let by_hand = || "its file was changed by hand".to_owned();
        Entry::Operator(OperatorAction {
            id: Uuid::from_bytes(id),
            operator: change.map_or_else(
                || "policy file".to_owned(),
                |change| change.operator.clone(),
            ),
            reason: change.map_or_else(by_hand, |change| change.reason.clone()),
            at: change.map_or_else(|| self.clock.now(), |change| change.at),
            what: OperatorOrder::Policy {
                version: policy.version,
                replaces: change.map(|change| change.replaces).or(before).unwrap_or(0),
            },
        })
    }
}
