//! The first words on a connection: who dials, whom it wants, of which group.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use standin_wal::NodeId;
use uuid::Uuid;

/// Most bytes of a hello, a welcome or a refusal.
pub(super) const HELLO_BYTES_MAX: usize = 4 * 1024;

const SCHEME: &str = "standin://";

/// The name that the certificate of an edge carries, as an alternative name of kind URI:
/// `standin://edge/<region>/<node>`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EdgeName {
    /// Its region.
    pub region: String,
    /// Its number in the region's group.
    pub node: NodeId,
}

/// A text that names no edge.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is no name of an edge, standin://edge/REGION/NUMBER")]
pub struct EdgeNameError(pub String);

/// Which of a pair's two connections: what is small never waits behind what is large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lane {
    /// Votes, heartbeats, entries, proposals.
    Quick,
    /// Snapshots, and what else is larger than the quick lane takes.
    Bulk,
}

/// Who dials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) region: String,
    pub(super) group: String,
    pub(super) incarnation: Uuid,
    pub(super) from: u64,
    pub(super) to: u64,
    pub(super) lane: Lane,
}

/// Who was dialled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Welcome {
    pub(super) node: u64,
}

/// Why a connection is refused: the other end hears it, and both log it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the certificate names {named}, the hello says {said}")]
    Certificate { named: EdgeName, said: EdgeName },
    #[error("{theirs} is of another region, this is {ours}")]
    Region { theirs: EdgeName, ours: EdgeName },
    #[error("the group is {ours}, not {theirs}")]
    Group { theirs: String, ours: String },
    #[error("the group's incarnation is {ours}, not {theirs}")]
    Incarnation { theirs: Uuid, ours: Uuid },
    #[error("this is node {ours}, not {wanted}")]
    Node { wanted: u64, ours: u64 },
    #[error("node {0} may not call this node: it is no member of the group")]
    Stranger(u64),
}

// === impl EdgeName ===

impl EdgeName {
    /// The longest region.
    const REGION_BYTES_MAX: usize = 32;

    fn of_path(path: &str) -> Option<Self> {
        let (region, node) = path.strip_prefix("edge/")?.split_once('/')?;
        let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let region_is_one = !region.is_empty()
            && region.len() <= Self::REGION_BYTES_MAX
            && region.bytes().all(good);
        // One text for each number: no sign, no leading zero.
        let number: u64 = node.parse().ok().filter(|number| *number > 0)?;
        (region_is_one && number.to_string() == node).then(|| Self {
            region: region.to_owned(),
            node: NodeId(number),
        })
    }
}

impl FromStr for EdgeName {
    type Err = EdgeNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = text.strip_prefix(SCHEME);
        path.and_then(Self::of_path)
            .ok_or_else(|| EdgeNameError(text.to_owned()))
    }
}

impl fmt::Display for EdgeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, node } = self;
        write!(f, "{SCHEME}edge/{region}/{}", node.0)
    }
}

// === impl Hello ===

impl Hello {
    pub(super) fn caller(&self) -> EdgeName {
        EdgeName {
            region: self.region.clone(),
            node: NodeId(self.from),
        }
    }

    /// Whether who says this may begin here; `ours` is what this end would say back to it.
    ///
    /// # Errors
    /// Why not.
    pub(super) fn check(&self, ours: &Self, certificate: Option<&EdgeName>) -> Result<(), Refusal> {
        let said = self.caller();
        if let Some(named) = certificate
            && *named != said
        {
            return Err(Refusal::Certificate {
                named: named.clone(),
                said,
            });
        }
        if self.region != ours.region {
            return Err(Refusal::Region {
                theirs: said,
                ours: ours.caller(),
            });
        }
        if self.group != ours.group {
            return Err(Refusal::Group {
                theirs: self.group.clone(),
                ours: ours.group.clone(),
            });
        }
        if self.incarnation != ours.incarnation {
            return Err(Refusal::Incarnation {
                theirs: self.incarnation,
                ours: ours.incarnation,
            });
        }
        if self.to != ours.from {
            return Err(Refusal::Node {
                wanted: self.to,
                ours: ours.from,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(from: u64, to: u64) -> Hello {
        Hello {
            region: "eu-1".to_owned(),
            group: "eu".to_owned(),
            incarnation: Uuid::from_u128(5),
            from,
            to,
            lane: Lane::Quick,
        }
    }

    fn name(region: &str, node: u64) -> EdgeName {
        EdgeName {
            region: region.to_owned(),
            node: NodeId(node),
        }
    }

    #[test]
    fn a_name_has_one_text() {
        let text = "standin://edge/eu-1/12";
        assert_eq!(text.parse(), Ok(name("eu-1", 12)));
        assert_eq!(name("eu-1", 12).to_string(), text);
        for wrong in [
            "edge/eu-1/12",
            "standin://edge/eu-1/012",
            "standin://edge/eu-1/+12",
            "standin://edge/eu-1/0",
            "standin://edge/eu-1/12/",
            "standin://edge//12",
            "standin://edge/EU/12",
            "standin://edge/eu-1/",
            "https://edge/eu-1/12",
            "standin://edge/eu-1/18446744073709551616",
        ] {
            assert!(wrong.parse::<EdgeName>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hello_is_refused_for_the_first_thing_that_does_not_fit() {
        let ours = hello(1, 2);
        let check = |change: &dyn Fn(&mut Hello), named: Option<&EdgeName>| {
            let mut theirs = hello(2, 1);
            change(&mut theirs);
            theirs.check(&ours, named)
        };
        assert_eq!(check(&|_| {}, None), Ok(()));
        assert_eq!(check(&|_| {}, Some(&name("eu-1", 2))), Ok(()));
        for named in [name("eu-1", 3), name("us", 2)] {
            let refused = check(&|_| {}, Some(&named)).unwrap_err();
            assert!(matches!(refused, Refusal::Certificate { .. }), "{refused}");
        }
        let refused = check(&|hello| hello.region = "us".to_owned(), None);
        assert!(matches!(refused, Err(Refusal::Region { .. })));
        let refused = check(&|hello| hello.group = "us".to_owned(), None);
        assert!(matches!(refused, Err(Refusal::Group { .. })));
        let refused = check(&|hello| hello.incarnation = Uuid::from_u128(6), None);
        assert!(matches!(refused, Err(Refusal::Incarnation { .. })));
        let refused = check(&|hello| hello.to = 3, None);
        assert_eq!(refused, Err(Refusal::Node { wanted: 3, ours: 1 }));
    }
}
