//! The file that names a deployment: its edges, who orders, what they consent to, and when a drill ends
//! before its time.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::Deserialize;
use standin_core::id::BankId;
use standin_reconcile::report::drill::Limits;

use super::desk::Desk;
use crate::client::{ClientTls, Pool, Target};

/// Edges of a deployment.
const EDGES_MAX: usize = 64;
/// Connections to each: for three pages and an order at once.
const CONNECTIONS: usize = 4;
/// Deadlines that an edge's histogram can tell, milliseconds.
const DEADLINES_MS: [u64; 4] = [500, 750, 1_000, 2_000];
/// How long everything may take to be as before, seconds.
const SETTLE_S_MAX: u64 = 3_600;

/// A deployment, ready to be spoken to.
pub(super) struct Deployment {
    /// What it is called, here and by whoever means it.
    pub(super) name: String,
    /// Who orders; over TLS their certificate says so instead.
    pub(super) operator: String,
    pub(super) desks: Vec<Desk>,
    pub(super) consent: bool,
    /// A fault is played on so many edges at once.
    edges_at_once: Option<usize>,
    /// Also on every edge of a region.
    whole_regions: bool,
    pub(super) abort: Abort,
    pub(super) expected: Expected,
}

/// When a drill is ended before its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Abort {
    /// Requests of the last seconds without an answer, of ten thousand.
    pub(super) unanswered_of_10_000: u64,
    /// Answers of the last seconds past the deadline, of ten thousand.
    pub(super) late_of_10_000: u64,
}

/// What is expected of a deployment, where that is not what a drill expects.
#[derive(Clone, Copy, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Expected {
    /// When banks stop waiting, milliseconds.
    pub(super) deadline_ms: u64,
    /// Answers past it, of ten thousand.
    pub(super) late_of_10_000: u64,
    /// How long everything may take to be as before, seconds.
    pub(super) settle_s: u64,
    prompt_percent: Option<f64>,
    unanswered_of_10_000: Option<u64>,
    first_stand_in_ms: Option<u64>,
}

/// Which edge, as it says itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EdgeName {
    pub(super) region: String,
    pub(super) edge: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    operator: String,
    #[serde(default)]
    consent: bool,
    edges_at_once: Option<usize>,
    #[serde(default)]
    whole_regions: bool,
    tls: Option<Tls>,
    #[serde(default)]
    abort: Abort,
    #[serde(default)]
    limits: Expected,
    edges: Vec<EdgeAt>,
}

/// Paths are relative to the file's.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeAt {
    admin: String,
}

// === impl Abort ===

impl Default for Abort {
    fn default() -> Self {
        Self {
            unanswered_of_10_000: 100,
            late_of_10_000: 100,
        }
    }
}

// === impl Expected ===

impl Default for Expected {
    fn default() -> Self {
        Self {
            deadline_ms: 1_000,
            late_of_10_000: 0,
            settle_s: 180,
            prompt_percent: None,
            unanswered_of_10_000: None,
            first_stand_in_ms: None,
        }
    }
}

impl Expected {
    /// What is expected of a drill here.
    pub(super) fn of(&self, drill: &Limits) -> Limits {
        Limits {
            prompt_percent: self.prompt_percent.or(drill.prompt_percent),
            unanswered_of_10_000: self
                .unanswered_of_10_000
                .unwrap_or(drill.unanswered_of_10_000),
            first_stand_in_ms: drill
                .first_stand_in_ms
                .map(|own| self.first_stand_in_ms.unwrap_or(own)),
            ..drill.clone()
        }
    }
}

// === impl EdgeName ===

impl fmt::Display for EdgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.edge)
    }
}

// === impl Deployment ===

impl Deployment {
    /// Reads the file. Nothing is asked yet.
    pub(super) fn read(file: &Path) -> anyhow::Result<Self> {
        let place = || file.display().to_string();
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", place()))?;
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).with_context(place)
    }

    fn parse(text: &str, folder: &Path) -> anyhow::Result<Self> {
        let File {
            name,
            operator,
            consent,
            edges_at_once,
            whole_regions,
            tls,
            abort,
            limits,
            edges,
        } = toml::from_str(text)?;
        // A folder is named for it, and an operator types it: the alphabet of a bank's slug.
        let _: BankId = name
            .parse()
            .context("name: must be 1 to 32 characters of a-z, 0-9 and '-'")?;
        ensure!(!operator.trim().is_empty(), "operator: must say who orders");
        ensure!(
            (1..=EDGES_MAX).contains(&edges.len()),
            "edges: must be from 1 to {EDGES_MAX}"
        );
        ensure!(
            edges_at_once.is_none_or(|most| (1..=edges.len()).contains(&most)),
            "edges_at_once: must be from 1 to the number of edges"
        );
        ensure!(
            abort.unanswered_of_10_000 <= 10_000 && abort.late_of_10_000 <= 10_000,
            "abort: shares are of 10000"
        );
        ensure!(
            DEADLINES_MS.contains(&limits.deadline_ms),
            "limits.deadline_ms: must be 500, 750, 1000 or 2000: what edges can tell"
        );
        ensure!(
            (1..=SETTLE_S_MAX).contains(&limits.settle_s),
            "limits.settle_s: must be from 1 to {SETTLE_S_MAX}"
        );
        let tls = tls.map(|tls| tls.read(folder)).transpose()?;
        let mut desks = Vec::new();
        for EdgeAt { admin } in edges {
            let target: Target = admin.parse().with_context(|| format!("edges: {admin}"))?;
            desks.push(Desk::new(pool(&target, tls.as_ref())?, admin));
        }
        Ok(Self {
            name,
            operator,
            desks,
            consent,
            edges_at_once,
            whole_regions,
            abort,
            expected: limits,
        })
    }

    /// The edges that a fault is played on: in the order of the file, one fewer than all unless the file
    /// says how many, and never every edge of a region unless it says so.
    pub(super) fn pick(&self, names: &[EdgeName]) -> Vec<usize> {
        let most = self
            .edges_at_once
            .unwrap_or_else(|| names.len().saturating_sub(1));
        let mut left: BTreeMap<&str, usize> = BTreeMap::new();
        for name in names {
            let others = left.entry(&name.region).or_default();
            *others = others.saturating_add(1);
        }
        let mut picked = Vec::new();
        for (at, name) in names.iter().enumerate() {
            let Some(others) = left.get_mut(name.region.as_str()) else {
                continue;
            };
            if picked.len() < most && (self.whole_regions || *others > 1) {
                *others = others.saturating_sub(1);
                picked.push(at);
            }
        }
        picked
    }
}

// === impl Tls ===

impl Tls {
    fn read(&self, folder: &Path) -> anyhow::Result<ClientTls> {
        let (certificate, key) = (folder.join(&self.certificate), folder.join(&self.key));
        ClientTls::read(&folder.join(&self.ca), Some((&certificate, &key)))
    }
}

fn pool(target: &Target, tls: Option<&ClientTls>) -> anyhow::Result<Pool> {
    match tls {
        Some(tls) if target.is_secure() => {
            Ok(Pool::over_tls(target.clone(), CONNECTIONS, tls.clone()))
        }
        None if target.is_secure() => {
            anyhow::bail!("{target} needs [tls]: the operator's certificate, and the authority")
        }
        Some(_) | None => Ok(Pool::new(target.clone(), CONNECTIONS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../deployment.example.toml");

    fn with(more: &str, edges: usize) -> anyhow::Result<Deployment> {
        let edges: String = (0..edges)
            .map(|at| format!("[[edges]]\nadmin = \"http://127.0.0.1:{at}\"\n"))
            .collect();
        let text = format!("name = \"staging\"\noperator = \"ada\"\n{more}\n{edges}");
        Deployment::parse(&text, Path::new(""))
    }

    fn names(regions: &[(&str, u64)]) -> Vec<EdgeName> {
        let name = |(region, edge): &(&str, u64)| EdgeName {
            region: (*region).to_owned(),
            edge: *edge,
        };
        regions.iter().map(name).collect()
    }

    #[test]
    fn the_example_consents_to_nothing_and_reads_but_for_its_certificates() {
        let plain = EXAMPLE.replace("https://", "http://");
        let at = plain.find("[tls]").unwrap();
        let after = plain.find("[abort]").unwrap();
        let plain = [&plain[..at], &plain[after..]].concat();
        let read = Deployment::parse(&plain, Path::new("")).unwrap();
        assert!(!read.consent && !read.whole_regions);
        assert_eq!((read.desks.len(), read.abort), (3, Abort::default()));
        assert_eq!(read.expected, Expected::default());
        let error = Deployment::parse(EXAMPLE, Path::new("/nowhere"))
            .err()
            .unwrap();
        assert!(
            format!("{error:#}").contains("cannot read /nowhere/"),
            "{error:#}"
        );
    }

    #[test]
    fn what_is_wrong_is_said_before_anybody_is_asked() {
        for (more, edges, says) in [
            ("consents = true", 1, "unknown field `consents`"),
            ("edges_at_once = 0", 1, "edges_at_once: must be from 1"),
            ("edges_at_once = 2", 1, "edges_at_once: must be from 1"),
            ("limits = { deadline_ms = 900 }", 1, "limits.deadline_ms"),
            ("limits = { settle_s = 0 }", 1, "limits.settle_s"),
            ("abort = { late_of_10_000 = 10001 }", 1, "abort: shares"),
            ("", 65, "edges: must be from 1 to 64"),
        ] {
            let error = with(more, edges).err().unwrap();
            let said = format!("{error:#}");
            assert!(said.contains(says), "{said:?} does not say {says:?}");
        }
        let secure = "name = \"a\"\noperator = \"b\"\n[[edges]]\nadmin = \"https://a:1\"";
        let error = Deployment::parse(secure, Path::new("")).err().unwrap();
        assert!(format!("{error:#}").contains("needs [tls]"), "{error:#}");
        let bad = "name = \"A b\"\noperator = \"b\"\n[[edges]]\nadmin = \"http://a:1\"";
        let error = Deployment::parse(bad, Path::new("")).err().unwrap();
        assert!(format!("{error:#}").contains("name: must be"), "{error:#}");
    }

    #[test]
    fn an_edge_of_each_region_is_left_alone_unless_the_file_says_otherwise() {
        let picked = |more: &str, regions: &[(&str, u64)]| {
            let deployment = with(more, regions.len()).unwrap();
            deployment.pick(&names(regions))
        };
        let three = [("near", 1), ("near", 2), ("near", 3)];
        assert_eq!(picked("", &three), [0, 1]);
        assert_eq!(picked("edges_at_once = 1", &three), [0]);
        assert_eq!(picked("edges_at_once = 3", &three), [0, 1]);
        let whole = "edges_at_once = 3\nwhole_regions = true";
        assert_eq!(picked(whole, &three), [0, 1, 2]);
        assert_eq!(picked("whole_regions = true", &three), [0, 1]);
        let two = [
            ("near", 1),
            ("far", 1),
            ("near", 2),
            ("far", 2),
            ("west", 1),
        ];
        assert_eq!(picked("", &two), [0, 1]);
        assert_eq!(picked("", &[("near", 1)]), [0; 0]);
        let alone = "edges_at_once = 1\nwhole_regions = true";
        assert_eq!(picked(alone, &[("near", 1)]), [0]);
    }

    #[test]
    fn a_deployments_own_expectations_take_the_place_of_a_drills() {
        let own = with(
            "limits = { prompt_percent = 98.0, first_stand_in_ms = 900 }",
            1,
        );
        let own = own.unwrap().expected;
        let drill = Limits {
            prompt_percent: Some(99.9),
            unanswered_of_10_000: 7,
            first_stand_in_ms: Some(500),
            ..Limits::default()
        };
        let expected = own.of(&drill);
        assert_eq!(expected.prompt_percent, Some(98.0));
        assert_eq!(expected.unanswered_of_10_000, 7);
        assert_eq!(expected.first_stand_in_ms, Some(900));
        // A drill that expects nobody to stand in goes on expecting that.
        let nobody = own.of(&Limits::default());
        assert_eq!(nobody.first_stand_in_ms, None);
    }
}
