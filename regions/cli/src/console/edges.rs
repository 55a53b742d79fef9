//! Which edges the console looks at: from the command line and from a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::Deserialize;

use crate::client::{Target, TargetError};

/// Most edges of one console.
pub const EDGES_MAX: usize = 64;
/// Longest name, in characters.
const NAME_MAX: usize = 40;

/// An edge to look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Named {
    /// What people call it.
    pub name: String,
    /// Its region; `None`: the one that it says itself.
    pub region: Option<String>,
    /// Its admin listener.
    pub admin: Target,
}

/// The file: `[regions.NAME]`, and in it `EDGE = "URL"`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    regions: BTreeMap<String, BTreeMap<String, String>>,
}

/// Why edges cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum EdgesError {
    /// Not `NAME=URL`.
    #[error("write an edge as NAME=URL, with a name of 1 to {NAME_MAX} characters")]
    Syntax,
    /// A bad URL.
    #[error("edge {name}: {source}")]
    Target {
        /// Of which edge.
        name: String,
        /// What is wrong with it.
        source: TargetError,
    },
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file does not say what it should.
    #[error("{}: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// Nothing to look at.
    #[error("name an edge with --edge NAME=URL, or a file of them with --config FILE")]
    None,
    /// Two of one name.
    #[error("two edges are named {0}")]
    Twice(String),
    /// More than are looked at.
    #[error("{0} edges; at most {EDGES_MAX} are looked at")]
    Many(usize),
}

// === impl Named ===

impl FromStr for Named {
    type Err = EdgesError;

    /// Reads `NAME=URL`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, url) = text.split_once('=').ok_or(EdgesError::Syntax)?;
        Self::new(name, None, url)
    }
}

impl Named {
    fn new(name: &str, region: Option<&str>, url: &str) -> Result<Self, EdgesError> {
        let is_name = |text: &str| {
            let length = text.chars().count();
            (1..=NAME_MAX).contains(&length) && !text.chars().any(char::is_control)
        };
        if !is_name(name) || !region.is_none_or(is_name) {
            return Err(EdgesError::Syntax);
        }
        let admin = url.parse().map_err(|source| EdgesError::Target {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            region: region.map(str::to_owned),
            admin,
        })
    }
}

/// The edges of a file and those named beside it, each name once.
///
/// # Errors
/// When there are none, or too many, or one does not read.
pub fn all(file: Option<&Path>, named: &[Named]) -> Result<Vec<Named>, EdgesError> {
    let mut edges = match file {
        None => Vec::new(),
        Some(file) => {
            let text = std::fs::read_to_string(file).map_err(|source| EdgesError::Read {
                file: file.to_owned(),
                source,
            })?;
            read(file, &text)?
        }
    };
    edges.extend_from_slice(named);
    let mut names = BTreeSet::new();
    for edge in &edges {
        if !names.insert(edge.name.as_str()) {
            return Err(EdgesError::Twice(edge.name.clone()));
        }
    }
    match edges.len() {
        0 => Err(EdgesError::None),
        1..=EDGES_MAX => Ok(edges),
        many => Err(EdgesError::Many(many)),
    }
}

fn read(file: &Path, text: &str) -> Result<Vec<Named>, EdgesError> {
    let File { regions } = toml::from_str(text).map_err(|source| EdgesError::File {
        file: file.to_owned(),
        source: Box::new(source),
    })?;
    let edges = regions.iter().flat_map(|(region, edges)| {
        let named = edges.iter();
        named.map(|(name, url)| Named::new(name, Some(region), url))
    });
    edges.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_names_regions_and_their_edges() {
        let text = r#"
[regions.east]
east-1 = "https://east-1.internal:8481"
east-2 = "https://east-2.internal:8481"

[regions.west]
west-1 = "http://127.0.0.1:8481"
"#;
        let edges = read(Path::new("console.toml"), text).unwrap();
        let shown: Vec<_> = edges
            .iter()
            .map(|edge| {
                let region = edge.region.as_deref().unwrap();
                (region, edge.name.as_str(), edge.admin.to_string())
            })
            .collect();
        let url = |text: &str| text.to_owned();
        let expected = [
            ("east", "east-1", url("https://east-1.internal:8481")),
            ("east", "east-2", url("https://east-2.internal:8481")),
            ("west", "west-1", url("http://127.0.0.1:8481")),
        ];
        assert_eq!(shown, expected);
        for wrong in [
            "",
            "regions = 3",
            "edges = {}\n[regions.a]",
            "[regions.a]\nb = \"ftp://c\"",
            "[regions.a]\n\"\" = \"http://c\"",
        ] {
            assert!(read(Path::new("x"), wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_edge_is_named_once_and_there_is_one_at_least() {
        let edge: Named = "a=http://127.0.0.1:1".parse().unwrap();
        assert_eq!((edge.name.as_str(), &edge.region), ("a", &None));
        for wrong in ["a", "=http://b", "a=", "a=http://b/c", "a\n=http://b"] {
            assert!(wrong.parse::<Named>().is_err(), "{wrong}");
        }
        assert!(matches!(all(None, &[]), Err(EdgesError::None)));
        let twice = all(None, &[edge.clone(), edge.clone()]);
        assert!(matches!(twice, Err(EdgesError::Twice(_))));
        assert_eq!(all(None, std::slice::from_ref(&edge)).unwrap(), [edge]);
        let numbers = 0..=EDGES_MAX;
        let many: Vec<Named> = numbers
            .map(|n| format!("{n}=http://b").parse().unwrap())
            .collect();
        assert!(matches!(all(None, &many), Err(EdgesError::Many(65))));
    }
}
