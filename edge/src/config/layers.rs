//! Layers of settings, flat: each key with its value and where that came from.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use toml::{Table, Value};

use super::ConfigErrors;

/// What the environment's variables begin with.
pub const ENV_PREFIX: &str = "STANDIN_EDGE__";

const DEFAULTS: &str = include_str!("defaults.toml");
const BANK_DEFAULTS: &str = include_str!("bank.toml");
/// Keys without a default.
const OPTIONAL: &[(&str, Kind)] = &[
    ("deployment_key", Kind::Text),
    ("deployment_key_file", Kind::Text),
    ("policy", Kind::Text),
    ("tls.certificate", Kind::Text),
    ("tls.key", Kind::Text),
    ("tls.banks_ca", Kind::Text),
    ("tls.banks_crl", Kind::Text),
    ("admin_tls.certificate", Kind::Text),
    ("admin_tls.key", Kind::Text),
    ("admin_tls.operators_ca", Kind::Text),
    ("admin_tls.operators_crl", Kind::Text),
    ("stores", Kind::Text),
    ("iso8583.listen", Kind::Text),
    ("ledger.postgres", Kind::Text),
    ("ledger.postgres_file", Kind::Text),
    ("ledger.ca", Kind::Text),
    ("keepers.listen", Kind::Text),
    ("keepers.address", Kind::Text),
    ("keepers.founders", Kind::Texts),
    ("keepers.ca", Kind::Text),
    ("keepers.certificate", Kind::Text),
    ("keepers.key", Kind::Text),
    ("trip_cache.redis", Kind::Texts),
    ("trip_cache.redis_home", Kind::Text),
    ("trip_cache.ca", Kind::Text),
    ("telemetry.otlp_endpoint", Kind::Text),
];
const BANK_OPTIONAL: &[(&str, Kind)] = &[
    ("slug", Kind::Text),
    ("signature", Kind::Text),
    ("secrets", Kind::Texts),
    ("secrets_file", Kind::Text),
];
/// Most banks one edge serves.
const BANKS_MAX: usize = 64;

/// Where a value came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// Built in.
    Default,
    /// The file.
    File,
    /// The environment.
    Env,
}

/// One effective value, fit to be shown.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Setting {
    /// Dotted key.
    pub key: String,
    /// As TOML; secrets are masked.
    pub value: String,
    /// Where it came from.
    pub origin: Origin,
}

/// Every effective value.
#[derive(Clone, Default)]
pub struct Settings(BTreeMap<String, (Value, Origin)>);

/// One thing wrong with a configuration.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not TOML.
    #[error("the file is not valid TOML at line {line}: {detail}")]
    Syntax {
        /// From 1.
        line: usize,
        /// What the parser says; no part of the file.
        detail: String,
    },
    /// Nobody knows this key.
    #[error("{key} ({origin}): no such key{}", near.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    Unknown {
        /// The key.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// A known key that looks like it.
        near: Option<String>,
    },
    /// A value of another type.
    #[error("{key} ({origin}): must be {expected}")]
    Type {
        /// The key.
        key: String,
        /// Where it was given.
        origin: Origin,
        /// What it must be.
        expected: &'static str,
    },
    /// A value that makes no sense.
    #[error("{key}: {expected}")]
    Value {
        /// The key.
        key: String,
        /// What is right.
        expected: String,
    },
    /// A file that a key names cannot be read.
    #[error("{key}: cannot read {path}: {detail}")]
    File {
        /// The key.
        key: String,
        /// The file.
        path: String,
        /// The system's word.
        detail: String,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Text,
    Integer,
    Texts,
}

// === impl Origin ===

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Default => "default",
            Self::File => "file",
            Self::Env => "environment",
        })
    }
}

// === impl Kind ===

impl Kind {
    const fn of(value: &Value) -> Option<Self> {
        match value {
            Value::String(_) => Some(Self::Text),
            Value::Integer(_) => Some(Self::Integer),
            Value::Array(_) => Some(Self::Texts),
            Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) | Value::Table(_) => None,
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "a whole number",
            Self::Texts => "a list of texts",
        }
    }

    fn admits(self, value: &Value) -> bool {
        let all_texts = value
            .as_array()
            .is_none_or(|list| list.iter().all(Value::is_str));
        Self::of(value) == Some(self) && all_texts
    }

    fn parse(self, text: &str) -> Option<Value> {
        match self {
            Self::Text => Some(Value::String(text.to_owned())),
            Self::Integer => text.trim().parse().ok().map(Value::Integer),
            Self::Texts => {
                let parts = text
                    .split(',')
                    .map(str::trim)
                    .filter(|part| !part.is_empty());
                Some(Value::Array(
                    parts.map(|part| Value::String(part.to_owned())).collect(),
                ))
            }
        }
    }
}

// === impl Settings ===

impl Settings {
    pub(super) fn gather(
        file: Option<&str>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let schema = Schema::built_in();
        let mut errors = Vec::new();
        let mut given = BTreeMap::new();
        if let Some(text) = file {
            match text.parse::<Table>() {
                Ok(table) => {
                    for (key, value) in flatten(&table) {
                        match schema.check(&key, &value, Origin::File) {
                            Ok(()) => drop(given.insert(key, (value, Origin::File))),
                            Err(error) => errors.push(error),
                        }
                    }
                }
                Err(error) => errors.push(syntax(text, &error)),
            }
        }
        for (name, text) in environment {
            let Some(path) = name.strip_prefix(ENV_PREFIX) else {
                continue;
            };
            let key = path.to_ascii_lowercase().replace("__", ".");
            match schema.read(&key, &text) {
                Ok(value) => drop(given.insert(key, (value, Origin::Env))),
                Err(error) => errors.push(error),
            }
        }
        if !errors.is_empty() {
            return Err(ConfigErrors(errors));
        }
        let mut settings = Self(schema.defaults(given.keys()));
        settings.0.extend(given);
        Ok(settings)
    }

    /// Every effective value, by key; secrets are masked.
    pub fn shown(&self) -> Vec<Setting> {
        let show = |(key, (value, origin)): (&String, &(Value, Origin))| Setting {
            key: key.clone(),
            value: if is_secret(key) {
                "\"***\"".to_owned()
            } else {
                value.to_string()
            },
            origin: *origin,
        };
        self.0.iter().map(show).collect()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).map(|(value, _)| value)
    }

    /// How many banks there are: one more than the highest number given.
    pub(super) fn banks(&self) -> usize {
        let number = |key: &String| bank_key(key).and_then(|(number, _)| number.checked_add(1));
        self.0.keys().filter_map(number).max().unwrap_or(0)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.shown()).finish()
    }
}

/// Every key there can be.
struct Schema {
    defaults: BTreeMap<String, Value>,
    bank_defaults: BTreeMap<String, Value>,
}

impl Schema {
    fn built_in() -> Self {
        let table = |text: &str| {
            let table: Table = text
                .parse()
                .expect("built-in defaults are TOML; a test reads them");
            flatten(&table).into_iter().collect()
        };
        Self {
            defaults: table(DEFAULTS),
            bank_defaults: table(BANK_DEFAULTS),
        }
    }

    fn kind(&self, key: &str) -> Option<Kind> {
        let of = |defaults: &BTreeMap<String, Value>, optional: &[(&str, Kind)], key: &str| {
            let named = optional.iter().find(|(name, _)| *name == key);
            named
                .map(|(_, kind)| *kind)
                .or_else(|| defaults.get(key).and_then(Kind::of))
        };
        match bank_key(key) {
            Some((number, _)) if number >= BANKS_MAX => None,
            Some((_, rest)) => of(&self.bank_defaults, BANK_OPTIONAL, rest),
            None => of(&self.defaults, OPTIONAL, key),
        }
    }

    fn check(&self, key: &str, value: &Value, origin: Origin) -> Result<(), ConfigError> {
        match self.kind(key) {
            None => Err(self.unknown(key, origin)),
            Some(kind) if kind.admits(value) => Ok(()),
            Some(kind) => Err(ConfigError::Type {
                key: key.to_owned(),
                origin,
                expected: kind.expected(),
            }),
        }
    }

    fn read(&self, key: &str, text: &str) -> Result<Value, ConfigError> {
        let kind = self
            .kind(key)
            .ok_or_else(|| self.unknown(key, Origin::Env))?;
        kind.parse(text).ok_or_else(|| ConfigError::Type {
            key: key.to_owned(),
            origin: Origin::Env,
            expected: kind.expected(),
        })
    }

    fn unknown(&self, key: &str, origin: Origin) -> ConfigError {
        let last = key.rsplit('.').next().unwrap_or(key);
        let alike = |name: &&str| {
            let own = name.rsplit('.').next().unwrap_or(name);
            own == last || own.starts_with(last) || last.starts_with(own)
        };
        let names = self.defaults.keys().map(String::as_str);
        let optional = OPTIONAL.iter().chain(BANK_OPTIONAL).map(|(name, _)| *name);
        let near = names.chain(optional).find(alike).map(str::to_owned);
        ConfigError::Unknown {
            key: key.to_owned(),
            origin,
            near,
        }
    }

    fn defaults<'a>(
        self,
        given: impl Iterator<Item = &'a String>,
    ) -> BTreeMap<String, (Value, Origin)> {
        let numbers: std::collections::BTreeSet<usize> = given
            .filter_map(|key| bank_key(key).map(|(number, _)| number))
            .collect();
        let mut all = self.defaults;
        for number in numbers {
            for (key, value) in &self.bank_defaults {
                all.insert(format!("banks.{number}.{key}"), value.clone());
            }
        }
        all.into_iter()
            .map(|(key, value)| (key, (value, Origin::Default)))
            .collect()
    }
}

/// `banks.3.slug` → (3, `slug`).
fn bank_key(key: &str) -> Option<(usize, &str)> {
    let (number, rest) = key.strip_prefix("banks.")?.split_once('.')?;
    Some((number.parse().ok()?, rest))
}

fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    matches!(
        last,
        "deployment_key" | "postgres" | "redis" | "redis_home" | "secrets"
    )
}

fn flatten(table: &Table) -> Vec<(String, Value)> {
    let mut leaves = Vec::new();
    let mut open: Vec<(String, &Value)> = table.iter().map(|(k, v)| (k.clone(), v)).collect();
    while let Some((path, value)) = open.pop() {
        match value {
            Value::Table(inner) => {
                open.extend(
                    inner
                        .iter()
                        .map(|(key, value)| (format!("{path}.{key}"), value)),
                );
            }
            Value::Array(list) if list.iter().any(Value::is_table) => {
                let numbered = list.iter().enumerate();
                open.extend(numbered.map(|(at, value)| (format!("{path}.{at}"), value)));
            }
            leaf => leaves.push((path, leaf.clone())),
        }
    }
    leaves
}

/// The parser's word and line, without the excerpt it would print: that could be a secret.
fn syntax(text: &str, error: &toml::de::Error) -> ConfigError {
    let at = error.span().map_or(0, |span| span.start.min(text.len()));
    let before = text.as_bytes().get(..at).unwrap_or_default();
    let breaks = before.iter().filter(|byte| **byte == b'\n').count();
    ConfigError::Syntax {
        line: breaks.saturating_add(1),
        detail: error.message().to_owned(),
    }
}
