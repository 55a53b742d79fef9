//! From files to regions: everything that is wrong is said at once, each with its file and key.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use toml::{Table, Value};

use crate::check::check;
use crate::region::{
    Anycast, Edge, EdgeRole, PostgresHost, PostgresRole, RedisNode, RedisRole, Region, Reserve,
    Topology,
};

/// Files of one deployment.
pub const FILES_MAX: usize = 64;
/// Bytes of one file.
pub const FILE_BYTES_MAX: usize = 1 << 20;

/// One thing that was found.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct Finding {
    /// Whether the topology can be used all the same.
    pub weight: Weight,
    /// The file.
    pub file: String,
    /// The key, as `edges.2.link`, numbered from 1; empty for the whole file.
    pub key: String,
    /// What is the matter, and what would be right.
    pub what: String,
}

/// What a finding weighs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Weight {
    /// It cannot be used.
    Error,
    /// It can, and one day it will hurt.
    Warning,
}

/// What files came to.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Read {
    /// The regions; `None` when there are errors.
    pub topology: Option<Topology>,
    /// Errors first.
    pub findings: Vec<Finding>,
}

/// A table that is being read: what was asked for is known, the rest is not.
pub(crate) struct Fields<'a> {
    file: &'a str,
    path: String,
    table: &'a Table,
    known: Vec<&'static str>,
    findings: &'a mut Vec<Finding>,
}

// === impl Finding ===

impl Finding {
    pub(crate) fn new(
        weight: Weight,
        file: &str,
        key: impl Into<String>,
        what: impl Into<String>,
    ) -> Self {
        Self {
            weight,
            file: file.to_owned(),
            key: key.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = match self.weight {
            Weight::Error => "error",
            Weight::Warning => "warning",
        };
        let colon = if self.key.is_empty() { "" } else { ": " };
        let (file, key, what) = (&self.file, &self.key, &self.what);
        write!(f, "{weight}: {file}: {key}{colon}{what}")
    }
}

// === impl Read ===

impl Read {
    /// Reads every region's file, given as name (`east.toml`) and text.
    pub fn files<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut findings = Vec::new();
        let all: Vec<Option<Region>> = files
            .into_iter()
            .map(|(name, text)| region_file(name, text, &mut findings))
            .collect();
        let whole = all.iter().all(Option::is_some);
        let mut regions: Vec<Region> = all.into_iter().flatten().collect();
        regions.sort_by(|a, b| a.name.cmp(&b.name));
        let topology = Topology { regions };
        if topology.regions.is_empty() && findings.is_empty() {
            let what = "there is no region here: one TOML file a region is expected";
            findings.push(Finding::new(Weight::Error, "", "", what));
        }
        // A region that is not there for a comma would be missed by all others.
        if whole {
            findings.extend(check(&topology));
        }
        findings.sort();
        let usable = !findings.iter().any(|found| found.weight == Weight::Error);
        Self {
            topology: usable.then_some(topology),
            findings,
        }
    }

    /// Those of one weight.
    pub fn of(&self, weight: Weight) -> impl Iterator<Item = &Finding> {
        self.findings
            .iter()
            .filter(move |found| found.weight == weight)
    }
}

fn region_file(file: &str, text: &str, findings: &mut Vec<Finding>) -> Option<Region> {
    let table = match text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start.min(text.len()));
            let before = text.as_bytes().get(..at).unwrap_or_default();
            let line = before.iter().filter(|byte| **byte == b'\n').count();
            let line = line.saturating_add(1);
            let what = format!("is not TOML at line {line}: {}", error.message());
            findings.push(Finding::new(Weight::Error, file, "", what));
            return None;
        }
    };
    let mut fields = Fields {
        file,
        path: String::new(),
        table: &table,
        known: Vec::new(),
        findings,
    };
    let read = region(&mut fields);
    fields.end();
    read
}

fn region(from: &mut Fields<'_>) -> Option<Region> {
    let name = from.needed("name").filter(|name: &String| {
        let slug = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let good = (1..=32).contains(&name.len()) && name.bytes().all(slug);
        if !good {
            from.wrong("name", "must be 1 to 32 characters of a-z, 0-9 and '-'");
        }
        good
    });
    let trial = from.optional_bool("trial");
    let certificates = from.optional::<String>("certificates").map(Into::into);
    let (banks, peers) = (from.texts("banks"), from.texts("peers"));
    let anycast = from.section("anycast", anycast);
    let reserve = from.section("reserve", reserve);
    let edges = from.sections("edges", edge);
    let redis = from.sections("redis", redis);
    let postgres = from.sections("postgres", postgres);
    let mut region = Region {
        file: from.file.to_owned(),
        name: name?,
        trial,
        certificates,
        banks,
        peers,
        anycast,
        reserve,
        edges,
        redis,
        postgres,
    };
    region.edges.sort_by_key(|edge| edge.id);
    Some(region)
}

fn edge(from: &mut Fields<'_>) -> Option<Edge> {
    let id = from.whole("id", 1, 65_535);
    let name = from.needed("name");
    let (listen, admin) = (from.needed("listen"), from.needed("admin"));
    let (link, announcer) = (from.needed("link"), from.optional("announcer"));
    let failure_domain = from.needed("failure_domain");
    let role = from.one_of(
        "role",
        Some(EdgeRole::Keeper),
        &[("keeper", EdgeRole::Keeper), ("learner", EdgeRole::Learner)],
    );
    Some(Edge {
        id: id?,
        name: name?,
        listen: listen?,
        admin: admin?,
        link: link?,
        announcer,
        failure_domain: failure_domain?,
        role: role?,
    })
}

fn anycast(from: &mut Fields<'_>) -> Option<Anycast> {
    let prefixes = from.parsed_list("prefixes");
    let local_as = from.whole("as", 1, u32::MAX.into());
    let routers = from.parsed_list("routers");
    let floor = from.whole_or("floor", 1, 0, 1_000);
    Some(Anycast {
        prefixes,
        local_as: u32::try_from(local_as?).ok()?,
        routers,
        floor: u32::try_from(floor?).ok()?,
    })
}

fn reserve(from: &mut Fields<'_>) -> Option<Reserve> {
    let amount = from.whole("amount_minor", 0, 1_000_000_000_000);
    let count = from.whole("count", 0, 1_000_000);
    let currency: Option<String> = from.needed("currency");
    if currency
        .as_ref()
        .is_some_and(|code| code.len() != 3 || !code.bytes().all(|byte| byte.is_ascii_uppercase()))
    {
        from.wrong("currency", "must be an ISO 4217 code, as USD");
    }
    Some(Reserve {
        amount_minor: i64::try_from(amount?).ok()?,
        count: u32::try_from(count?).ok()?,
        currency: currency?,
    })
}

fn redis(from: &mut Fields<'_>) -> Option<RedisNode> {
    let at = from.needed("at");
    let role = from.one_of(
        "role",
        None,
        &[("home", RedisRole::Home), ("replica", RedisRole::Replica)],
    );
    Some(RedisNode {
        at: at?,
        role: role?,
    })
}

fn postgres(from: &mut Fields<'_>) -> Option<PostgresHost> {
    let at = from.needed("at");
    let role = from.one_of(
        "role",
        None,
        &[
            ("primary", PostgresRole::Primary),
            ("synchronous", PostgresRole::Synchronous),
            ("asynchronous", PostgresRole::Asynchronous),
        ],
    );
    let failure_domain = from.needed("failure_domain");
    Some(PostgresHost {
        at: at?,
        role: role?,
        failure_domain: failure_domain?,
    })
}

// === impl Fields ===

impl<'a> Fields<'a> {
    fn key(&self, name: &str) -> String {
        if self.path.is_empty() {
            name.to_owned()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn wrong(&mut self, name: &str, what: impl Into<String>) {
        let finding = Finding::new(Weight::Error, self.file, self.key(name), what);
        self.findings.push(finding);
    }

    fn get(&mut self, name: &'static str) -> Option<&'a Value> {
        self.known.push(name);
        self.table.get(name)
    }

    /// A text that reads as `T`; says so when there is none.
    fn needed<T>(&mut self, name: &'static str) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        if self.get(name).is_none() {
            self.wrong(name, "is needed");
        }
        self.optional(name)
    }

    fn optional<T>(&mut self, name: &'static str) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let value = self.get(name)?;
        self.parse(name, value)
    }

    fn parse<T>(&mut self, name: &str, value: &Value) -> Option<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let Some(text) = value.as_str().filter(|text| !text.is_empty()) else {
            self.wrong(name, "must be text");
            return None;
        };
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.wrong(name, format!("{text:?}: {error}"));
                None
            }
        }
    }

    fn optional_bool(&mut self, name: &'static str) -> bool {
        match self.get(name) {
            None => false,
            Some(Value::Boolean(is)) => *is,
            Some(_) => {
                self.wrong(name, "must be true or false");
                false
            }
        }
    }

    fn whole(&mut self, name: &'static str, least: i64, most: i64) -> Option<u64> {
        let Some(value) = self.get(name) else {
            self.wrong(name, "is needed");
            return None;
        };
        let number = value
            .as_integer()
            .filter(|number| (least..=most).contains(number));
        if number.is_none() {
            self.wrong(
                name,
                format!("must be a whole number from {least} to {most}"),
            );
        }
        number.and_then(|number| u64::try_from(number).ok())
    }

    fn whole_or(&mut self, name: &'static str, or: u64, least: i64, most: i64) -> Option<u64> {
        if self.get(name).is_none() {
            return Some(or);
        }
        self.whole(name, least, most)
    }

    fn one_of<T: Copy>(
        &mut self,
        name: &'static str,
        or: Option<T>,
        words: &[(&'static str, T)],
    ) -> Option<T> {
        let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let expected = format!("must be one of {}", all.join(", "));
        let Some(value) = self.get(name) else {
            if or.is_none() {
                self.wrong(name, expected);
            }
            return or;
        };
        let found = words.iter().find(|(word, _)| value.as_str() == Some(word));
        if found.is_none() {
            self.wrong(name, expected);
        }
        found.map(|(_, meant)| *meant)
    }

    fn list(&mut self, name: &'static str) -> Vec<(String, &'a Value)> {
        match self.get(name) {
            None => Vec::new(),
            Some(Value::Array(list)) => (1..)
                .zip(list)
                .map(|(number, value): (usize, _)| (format!("{name}.{number}"), value))
                .collect(),
            Some(_) => {
                self.wrong(name, "must be a list");
                Vec::new()
            }
        }
    }

    fn texts(&mut self, name: &'static str) -> Vec<String> {
        self.parsed_list(name)
    }

    fn parsed_list<T>(&mut self, name: &'static str) -> Vec<T>
    where
        T: FromStr<Err: fmt::Display>,
    {
        let list = self.list(name);
        list.into_iter()
            .filter_map(|(key, value)| self.parse(&key, value))
            .collect()
    }

    fn section<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(name)?;
        self.table(name, value, &read)
    }

    fn sections<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&mut Fields<'_>) -> Option<T>,
    ) -> Vec<T> {
        let list = self.list(name);
        list.into_iter()
            .filter_map(|(key, value)| self.table(&key, value, &read))
            .collect()
    }

    fn table<T>(
        &mut self,
        key: &str,
        value: &Value,
        read: &impl Fn(&mut Fields<'_>) -> Option<T>,
    ) -> Option<T> {
        let Some(table) = value.as_table() else {
            self.wrong(key, "must be a table");
            return None;
        };
        let mut fields = Fields {
            file: self.file,
            path: self.key(key),
            table,
            known: Vec::new(),
            findings: &mut *self.findings,
        };
        let section = read(&mut fields);
        fields.end();
        section
    }

    /// Says which keys nobody knows.
    fn end(self) {
        let unknown = self
            .table
            .keys()
            .filter(|key| !self.known.contains(&key.as_str()));
        for key in unknown {
            let what = format!("no such key; there are {}", self.known_words());
            let finding = Finding::new(Weight::Error, self.file, self.key(key), what);
            self.findings.push(finding);
        }
    }

    fn known_words(&self) -> String {
        let mut words = self.known.clone();
        words.sort_unstable();
        words.dedup();
        words.join(", ")
    }
}
