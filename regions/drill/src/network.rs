//! Machines on one machine: network namespaces on a bridge, whose links are cut one way or both.
//!
//! A cut drops packets silently, on both ends nothing is closed: as a switch that loses its table
//! would. What a cut dropped is counted, so that a drill can prove that it happened. The bridge
//! itself has an address for each service of the machine ([`Service`]), so that a host can lose one
//! of them alone. Needs root, `ip`, `nft`, `nsenter` and `socat`.
//! Deliberately absent: delay and loss by chance ([`proxy`](crate::proxy) delays).

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::process::{Process, ProcessError};
use crate::tool::{ToolError, need_root, run};

/// Hosts on one network.
pub const HOSTS_MAX: u8 = 20;
/// A host's number is its address' last byte less this.
const HOST_BASE: u8 = 100;
/// The second byte of addresses; with the third one from the process, networks side by side differ.
const SECOND_MIN: u32 = 200;
const SECOND_COUNT: u32 = 50;
/// Another network took the addresses first: the next are tried.
const TRIES: u32 = 16;

/// What the machine itself offers to its hosts, each at an address of its own.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Service {
    /// Where banks and operators come from.
    Clients,
    /// The ledger of record.
    Postgres,
    /// The trip cache.
    Redis,
}

/// An end of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// A host, by its number.
    Host(u8),
    /// A service of the machine.
    Service(Service),
}

/// A bridge with hosts. Dropping it removes both, when what ran there has ended.
#[derive(Debug)]
pub struct Network {
    name: String,
    prefix: [u8; 3],
    hosts: Vec<u8>,
}

// === impl Service ===

impl Service {
    const ALL: [Self; 3] = [Self::Clients, Self::Postgres, Self::Redis];

    const fn last_byte(self) -> u8 {
        match self {
            Self::Clients => 1,
            Self::Postgres => 2,
            Self::Redis => 3,
        }
    }
}

// === impl Network ===

impl Network {
    /// A bridge without hosts.
    ///
    /// # Errors
    /// When this process is not root's or a tool is missing.
    pub fn new() -> Result<Self, ToolError> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        need_root("a network of namespaces")?;
        let mut last = None;
        for _ in 0..TRIES {
            let number = std::process::id()
                .wrapping_mul(7_919)
                .wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
            let second = SECOND_MIN.saturating_add(number.checked_rem(SECOND_COUNT).unwrap_or(0));
            let third = number.wrapping_shr(8) & 0xff;
            let byte = |number: u32| u8::try_from(number).unwrap_or(u8::MAX);
            let network = Self {
                name: format!("sn{second:x}{third:02x}"),
                prefix: [10, byte(second), byte(third)],
                hosts: Vec::new(),
            };
            match ip(&["link", "add", &network.name, "type", "bridge"]) {
                Ok(()) => return network.with_addresses(),
                Err(error) => {
                    // Its bridge is somebody else's.
                    std::mem::forget(network);
                    last = Some(error);
                }
            }
        }
        Err(last.unwrap_or(ToolError::NotRoot("a bridge")))
    }

    fn with_addresses(self) -> Result<Self, ToolError> {
        for service in Service::ALL {
            let address = format!("{}/24", self.address(End::Service(service)));
            ip(&["addr", "add", &address, "dev", &self.name])?;
        }
        ip(&["link", "set", &self.name, "up"])?;
        Ok(self)
    }

    /// Adds the host of this number, from 1 to [`HOSTS_MAX`].
    ///
    /// # Errors
    /// When a tool refuses.
    pub fn add_host(&mut self, number: u8) -> Result<(), ToolError> {
        let (namespace, outside) = (self.namespace(number), format!("{}{number}", self.name));
        ip(&["netns", "add", &namespace])?;
        self.hosts.push(number);
        let inside = ["peer", "name", "eth0", "netns", &namespace];
        ip(&[&["link", "add", &outside, "type", "veth"], &inside[..]].concat())?;
        ip(&["link", "set", &outside, "master", &self.name, "up"])?;
        let address = format!("{}/24", self.address(End::Host(number)));
        let within = |args: &[&str]| ip(&[&["-n", &namespace], args].concat());
        within(&["addr", "add", &address, "dev", "eth0"])?;
        within(&["link", "set", "eth0", "up"])?;
        within(&["link", "set", "lo", "up"])?;
        self.nft(
            number,
            "add table ip cuts; \
             add set ip cuts from { type ipv4_addr; }; \
             add set ip cuts to { type ipv4_addr; }; \
             add chain ip cuts input { type filter hook input priority 0; }; \
             add chain ip cuts output { type filter hook output priority 0; }; \
             add rule ip cuts input ip saddr @from counter drop; \
             add rule ip cuts output ip daddr @to counter drop",
        )
        .map(drop)
    }

    /// Gives a host one more address, as an announced one is: on its loopback interface.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn add_address(&self, host: u8, address: Ipv4Addr) -> Result<(), ToolError> {
        let (namespace, address) = (self.namespace(host), format!("{address}/32"));
        ip(&["-n", &namespace, "addr", "add", &address, "dev", "lo"])
    }

    /// Makes a host a router: it forwards, tells nobody of shorter ways, and spreads connections
    /// over equal ways by their addresses and ports.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make_router(&self, host: u8) -> Result<(), ToolError> {
        let namespace = format!("--net=/run/netns/{}", self.namespace(host));
        for (key, value) in [
            ("ip_forward", 1),
            ("conf/all/send_redirects", 0),
            ("conf/eth0/send_redirects", 0),
            ("fib_multipath_hash_policy", 1),
        ] {
            let set = format!("echo {value} > /proc/sys/net/ipv4/{key}");
            run("nsenter", "util-linux", &[&namespace, "sh", "-c", &set])?;
        }
        Ok(())
    }

    /// Sends the machine's own packets for an address to a host. The way goes with the network.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn route_by(&self, host: u8, address: Ipv4Addr) -> Result<(), ToolError> {
        let (to, by) = (
            format!("{address}/32"),
            self.address(End::Host(host)).to_string(),
        );
        ip(&["route", "add", &to, "via", &by, "dev", &self.name])
    }

    /// Where a host sends packets for an address: its ways, in no order.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub fn ways(&self, host: u8, address: Ipv4Addr) -> Result<Vec<Ipv4Addr>, ToolError> {
        let namespace = self.namespace(host);
        let to = format!("{address}/32");
        let shown = run("ip", "iproute2", &["-n", &namespace, "route", "show", &to])?;
        let mut words = shown.split_whitespace();
        let mut ways = Vec::new();
        while let Some(word) = words.next() {
            if word == "via" {
                ways.extend(words.next().and_then(|way| way.parse::<Ipv4Addr>().ok()));
            }
        }
        Ok(ways)
    }

    /// The address of an end.
    pub fn address(&self, end: End) -> Ipv4Addr {
        let [first, second, third] = self.prefix;
        let last = match end {
            End::Host(number) => HOST_BASE.saturating_add(number.min(HOSTS_MAX)),
            End::Service(service) => service.last_byte(),
        };
        Ipv4Addr::new(first, second, third, last)
    }

    /// What `program` is run as on a host: its process is the program's, not a shell's.
    pub fn command(&self, host: u8, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(host)));
        command.arg(program);
        command
    }

    /// Lets the machine reach a port that listens on the host's loopback only.
    ///
    /// # Errors
    /// When `socat` does not start.
    pub fn open_loopback(
        &self,
        host: u8,
        port: u16,
        log: &Path,
    ) -> Result<(Process, SocketAddr), ProcessError> {
        let address = self.address(End::Host(host));
        let mut command = self.command(host, Path::new("socat"));
        command.arg(format!(
            "TCP-LISTEN:{port},bind={address},fork,reuseaddr,max-children=64"
        ));
        command.arg(format!("TCP:127.0.0.1:{port}"));
        let process = Process::spawn("socat", command, log)?;
        Ok((process, SocketAddr::from((address, port))))
    }

    /// Drops what one end sends to the other. One of them is a host.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn cut(&self, from: End, to: End) -> Result<(), ToolError> {
        self.change("add", from, to)
    }

    /// Lets it pass again.
    ///
    /// # Errors
    /// When `nft` refuses: also when it was not cut.
    pub fn heal(&self, from: End, to: End) -> Result<(), ToolError> {
        self.change("delete", from, to)
    }

    /// Packets that cuts have dropped at a host so far.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub fn dropped(&self, host: u8) -> Result<u64, ToolError> {
        let listed = self.nft(host, "list table ip cuts")?;
        let counted = listed.lines().filter_map(|line| {
            let (_, rest) = line.split_once("counter packets ")?;
            rest.split_whitespace().next()?.parse::<u64>().ok()
        });
        Ok(counted.fold(0, u64::saturating_add))
    }

    fn change(&self, verb: &str, from: End, to: End) -> Result<(), ToolError> {
        // At the receiver, so that the sender has no sign of it; a service has no rules of its own.
        let (host, set, other) = match (from, to) {
            (from, End::Host(host)) => (host, "from", from),
            (End::Host(host), to) => (host, "to", to),
            (End::Service(_), End::Service(_)) => return Ok(()),
        };
        let other = self.address(other);
        self.nft(host, &format!("{verb} element ip cuts {set} {{ {other} }}"))
            .map(drop)
    }

    fn nft(&self, host: u8, what: &str) -> Result<String, ToolError> {
        let namespace = format!("--net=/run/netns/{}", self.namespace(host));
        run("nsenter", "nftables", &[&namespace, "nft", what])
    }

    fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.name)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut clean = true;
        for host in &self.hosts {
            clean &= ip(&["netns", "del", &self.namespace(*host)]).is_ok();
        }
        clean &= ip(&["link", "del", &self.name]).is_ok();
        if !clean {
            tracing::warn!(network = %self.name, "a network of namespaces is not wholly removed");
        }
    }
}

fn ip(args: &[&str]) -> Result<(), ToolError> {
    run("ip", "iproute2", args).map(drop)
}
