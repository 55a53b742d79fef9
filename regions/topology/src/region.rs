//! Regions, as their files describe them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

/// Every region of a deployment, by name.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub struct Topology {
    /// In the order of their names.
    pub regions: Vec<Region>,
}

/// One region: what its file says.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Region {
    /// The file, for messages.
    #[serde(skip)]
    pub file: String,
    /// Its name; edges carry it as `region`.
    pub name: String,
    /// It has one keeper, and that is enough to try things out.
    pub trial: bool,
    /// Where its edges' certificates lie on their machines, as `standin certs` names them; absent:
    /// everything is plain and on loopback.
    pub certificates: Option<PathBuf>,
    /// Slugs of the banks that its edges serve.
    pub banks: Vec<String>,
    /// Regions that it works together with.
    pub peers: Vec<String>,
    /// How it is announced; absent: it is not.
    pub anycast: Option<Anycast>,
    /// What each start of an edge may approve while it is cut off.
    pub reserve: Option<Reserve>,
    /// Its edges, in the order of their numbers.
    pub edges: Vec<Edge>,
    /// Its Redis nodes.
    pub redis: Vec<RedisNode>,
    /// Its Postgres servers.
    pub postgres: Vec<PostgresHost>,
}

/// One edge.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Edge {
    /// Its number in its region's log, from 1.
    pub id: u64,
    /// Its name in the deployment.
    pub name: String,
    /// Where banks connect.
    pub listen: SocketAddr,
    /// Where operators connect, and its announcer asks.
    pub admin: SocketAddr,
    /// Where the others' links dial it: host and port.
    pub link: HostPort,
    /// Where its announcer tells other announcers how it is; absent: it has none.
    pub announcer: Option<SocketAddr>,
    /// What fails as one with it: a rack, a power feed, a zone.
    pub failure_domain: String,
    /// Whether it votes in its region's log.
    pub role: EdgeRole,
}

/// Whether an edge votes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EdgeRole {
    /// It votes.
    Keeper,
    /// It hears everything.
    Learner,
}

/// How a region is announced.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Anycast {
    /// What is announced, the same in every region.
    pub prefixes: Vec<Prefix>,
    /// The region's AS number.
    pub local_as: u32,
    /// Routers that its edges speak BGP to.
    pub routers: Vec<Router>,
    /// So many announcers of the prefixes stay, however they are.
    pub floor: u32,
}

/// A router and its AS number.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct Router {
    /// Its address.
    pub address: IpAddr,
    /// Its AS number.
    pub remote_as: u32,
}

/// A network, as `203.0.113.10/32`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Prefix {
    /// Its first address.
    pub address: IpAddr,
    /// Bits that count.
    pub length: u8,
}

/// A host by name or address, and a port.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct HostPort {
    /// A name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// One Redis node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct RedisNode {
    /// Where it is.
    pub at: HostPort,
    /// What it is.
    pub role: RedisRole,
}

/// What a Redis node is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RedisRole {
    /// Trips are written here; one in a deployment.
    Home,
    /// Trips are read here.
    Replica,
}

/// One Postgres server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PostgresHost {
    /// Where it is.
    pub at: HostPort,
    /// What it is on a good day.
    pub role: PostgresRole,
    /// What fails as one with it.
    pub failure_domain: String,
}

/// What a Postgres server is on a good day.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PostgresRole {
    /// The ledger of record; one in a deployment.
    Primary,
    /// The primary's commits wait for it.
    Synchronous,
    /// Nobody waits for it.
    Asynchronous,
}

/// What an edge may approve while it is cut off, for each time that it starts.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Reserve {
    /// Minor units.
    pub amount_minor: i64,
    /// Approvals.
    pub count: u32,
    /// ISO 4217.
    pub currency: String,
}

/// Why a text is no prefix or no host and port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormError {
    /// Not a prefix.
    #[error("must be a network, as 203.0.113.10/32")]
    Prefix,
    /// Bits beyond its length are set.
    #[error("has bits beyond its length")]
    HostBits,
    /// Not a host and port.
    #[error("must be host:port")]
    HostPort,
    /// Not a router.
    #[error("must be address=AS, as 10.0.0.1=64500")]
    Router,
}

// === impl Topology ===

impl Topology {
    /// An edge by its name, and its region.
    pub fn edge(&self, name: &str) -> Option<(&Region, &Edge)> {
        self.edges().find(|(_, edge)| edge.name == name)
    }

    /// Every edge with its region.
    pub fn edges(&self) -> impl Iterator<Item = (&Region, &Edge)> {
        let of = |region| move |edge| (region, edge);
        self.regions
            .iter()
            .flat_map(move |region| region.edges.iter().map(of(region)))
    }

    /// The region of this name.
    pub fn region(&self, name: &str) -> Option<&Region> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// Other edges that announce a prefix of this region's, and have an announcer: those that take
    /// over, and where their announcers tell how they are.
    pub fn other_announcers(&self, name: &str) -> Vec<(&Edge, SocketAddr)> {
        let Some((region, _)) = self.edge(name) else {
            return Vec::new();
        };
        let others = self.edges().filter(|(other, edge)| {
            edge.name != name && region.anycast.iter().any(|own| own.shares(other))
        });
        let told = others.filter_map(|(_, edge)| Some((edge, edge.announcer?)));
        told.collect()
    }
}

// === impl Region ===

impl Region {
    /// The keepers, in the order of their numbers.
    pub fn keepers(&self) -> impl Iterator<Item = &Edge> {
        let votes = |edge: &&Edge| edge.role == EdgeRole::Keeper;
        self.edges.iter().filter(votes)
    }
}

// === impl Anycast ===

impl Anycast {
    fn shares(&self, other: &Region) -> bool {
        let theirs = other.anycast.iter().flat_map(|anycast| &anycast.prefixes);
        theirs
            .into_iter()
            .any(|prefix| self.prefixes.contains(prefix))
    }
}

// === impl Prefix ===

impl Prefix {
    /// Whether an address is in it.
    pub fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let rest = 32_u32.saturating_sub(self.length.into());
                shifted(own.to_bits().into(), rest) == shifted(other.to_bits().into(), rest)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let rest = 128_u32.saturating_sub(self.length.into());
                shifted(own.to_bits(), rest) == shifted(other.to_bits(), rest)
            }
            _ => false,
        }
    }

    /// Whether it is one address.
    pub const fn is_host(&self) -> bool {
        matches!(
            (self.address, self.length),
            (IpAddr::V4(_), 32) | (IpAddr::V6(_), 128)
        )
    }
}

/// All bits but the last `rest`.
fn shifted(bits: u128, rest: u32) -> u128 {
    bits.checked_shr(rest).unwrap_or(0)
}

impl FromStr for Prefix {
    type Err = FormError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, length) = text.split_once('/').ok_or(FormError::Prefix)?;
        let address: IpAddr = address.parse().map_err(|_| FormError::Prefix)?;
        let length: u8 = length.parse().map_err(|_| FormError::Prefix)?;
        let (bits, longest) = match address {
            IpAddr::V4(address) => (u128::from(address.to_bits()), 32_u32),
            IpAddr::V6(address) => (address.to_bits(), 128),
        };
        let rest = longest
            .checked_sub(length.into())
            .ok_or(FormError::Prefix)?;
        let kept = shifted(bits, rest).checked_shl(rest).unwrap_or(0);
        if kept != bits {
            return Err(FormError::HostBits);
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl Serialize for Prefix {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl HostPort ===

impl HostPort {
    /// Its address, if it is given by one.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for HostPort {
    type Err = FormError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(FormError::HostPort)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let host = match bare {
            Some(inner) if inner.parse::<std::net::Ipv6Addr>().is_ok() => inner,
            Some(_) => return Err(FormError::HostPort),
            None => host,
        };
        let named = |host: &str| {
            let allowed =
                |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
            !host.is_empty() && host.len() <= 253 && host.bytes().all(allowed)
        };
        if bare.is_none() && !named(host) {
            return Err(FormError::HostPort);
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            _ => Err(FormError::HostPort),
        }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for HostPort {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

// === impl Router ===

impl FromStr for Router {
    type Err = FormError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (address, number) = text.split_once('=').ok_or(FormError::Router)?;
        let address = address.trim().parse().map_err(|_| FormError::Router)?;
        match number.trim().parse() {
            Ok(remote_as) if remote_as > 0 => Ok(Self { address, remote_as }),
            _ => Err(FormError::Router),
        }
    }
}

// === impl roles ===

impl fmt::Display for RedisRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Home => "home",
            Self::Replica => "replica",
        })
    }
}

impl fmt::Display for PostgresRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Primary => "primary",
            Self::Synchronous => "synchronous",
            Self::Asynchronous => "asynchronous",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_a_network_and_knows_its_addresses() {
        let prefix: Prefix = "203.0.113.8/29".parse().unwrap();
        assert!(prefix.holds("203.0.113.15".parse().unwrap()));
        assert!(!prefix.holds("203.0.113.16".parse().unwrap()));
        assert!(!prefix.holds("::1".parse().unwrap()));
        let all: Prefix = "0.0.0.0/0".parse().unwrap();
        assert!(all.holds("255.1.2.3".parse().unwrap()));
        let six: Prefix = "2001:db8::/32".parse().unwrap();
        assert!(six.holds("2001:db8:1::7".parse().unwrap()));
        assert!("2001:db8::7/128".parse::<Prefix>().unwrap().is_host());
        for (text, error) in [
            ("203.0.113.9/29", FormError::HostBits),
            ("203.0.113.0/33", FormError::Prefix),
            ("203.0.113.0", FormError::Prefix),
            ("here/32", FormError::Prefix),
        ] {
            assert_eq!(text.parse::<Prefix>(), Err(error), "{text}");
        }
    }

    #[test]
    fn a_host_and_port_reads_as_it_is_written() {
        for text in ["edge-1.internal:8490", "10.0.0.1:1", "[2001:db8::1]:443"] {
            assert_eq!(text.parse::<HostPort>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "host",
            ":80",
            "host:0",
            "host:70000",
            "[x]:1",
            "a b:1",
            "::1:80",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text}");
        }
    }
}
