//! What follows from the topology for one edge: parts of its configuration, and BIRD's.
//!
//! Secrets are not the topology's: keys, banks' secrets and passwords are added where the edge runs.

use std::fmt::Write as _;
use std::net::IpAddr;

use crate::region::{Anycast, Edge, PostgresRole, RedisRole, Region, Topology};

/// How long an edge that is announced goes on taking connections once it is told to stop, so that its
/// announcer can withdraw it first; milliseconds.
pub const LEAVE_MS: u64 = 3_000;
/// The name of BIRD's protocol that holds the announced prefixes.
pub const BIRD_PROTOCOL: &str = "standin_prefix";

/// The user and the database of the ledger.
const LEDGER_USER: &str = "standin";

/// Why nothing follows.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DerivedError {
    /// No edge has this name.
    #[error("there is no edge {0:?}")]
    NoEdge(String),
    /// Its region is not announced.
    #[error("region {0} is not announced: it has no [anycast]")]
    NotAnnounced(String),
    /// BIRD takes its identity from an IPv4 address.
    #[error("{0} has no IPv4 address to be known by: its announcer's is taken")]
    NoIdentity(String),
}

/// Parts of an edge's TOML as `standin-edge` reads them: who and where it is, its keepers, ledger and
/// trip cache.
///
/// # Errors
/// When there is no such edge.
pub fn edge_config(topology: &Topology, name: &str) -> Result<String, DerivedError> {
    let found = topology.edge(name);
    let (region, edge) = found.ok_or_else(|| DerivedError::NoEdge(name.to_owned()))?;
    Ok(written(|page| {
        head(page, region, edge)?;
        keepers(page, region, edge)?;
        ledger(page, topology, region)?;
        trip_cache(page, topology, region)?;
        match region.anycast {
            Some(_) => writeln!(page, "\n[limits]\nleave_ms = {LEAVE_MS}"),
            None => Ok(()),
        }
    }))
}

fn head(page: &mut String, region: &Region, edge: &Edge) -> std::fmt::Result {
    writeln!(
        page,
        "# {} of region {}: what the topology says.",
        edge.name, region.name
    )?;
    writeln!(
        page,
        "# To be added: deployment_key_file, [wal], [[banks]] for {:?}.",
        region.banks
    )?;
    writeln!(page, "listen = \"{}\"", edge.listen)?;
    if region.certificates.is_none() && !edge.listen.ip().is_loopback() {
        writeln!(page, "listen_plain = \"anywhere\"")?;
    }
    writeln!(page, "admin_listen = \"{}\"", edge.admin)?;
    writeln!(page, "region = \"{}\"\nedge_id = {}", region.name, edge.id)?;
    let Some(dir) = &region.certificates else {
        return Ok(());
    };
    let file = |name: &str| toml_text(&dir.join(name).display().to_string());
    writeln!(page, "\n[tls]\ncertificate = {}", file("door.pem"))?;
    writeln!(page, "key = {}", file("door.key"))?;
    writeln!(page, "banks_ca = {}", file("banks-ca.pem"))?;
    writeln!(page, "\n[admin_tls]\ncertificate = {}", file("admin.pem"))?;
    writeln!(page, "key = {}", file("admin.key"))?;
    writeln!(page, "operators_ca = {}", file("operators-ca.pem"))
}

fn keepers(page: &mut String, region: &Region, edge: &Edge) -> std::fmt::Result {
    if region.edges.len() == 1 {
        return Ok(());
    }
    let founders: Vec<String> = region
        .keepers()
        .map(|keeper| format!("\"{}={}\"", keeper.id, keeper.link))
        .collect();
    let listen = match edge.link.ip() {
        Some(ip) => std::net::SocketAddr::new(ip, edge.link.port).to_string(),
        None => format!("0.0.0.0:{}", edge.link.port),
    };
    writeln!(page, "\n[keepers]\nlisten = \"{listen}\"")?;
    writeln!(page, "address = \"{}\"", edge.link)?;
    writeln!(page, "founders = [{}]", founders.join(", "))?;
    let Some(dir) = &region.certificates else {
        return Ok(());
    };
    let file = |name: String| toml_text(&dir.join(name).display().to_string());
    writeln!(page, "ca = {}", file("keepers-ca.pem".to_owned()))?;
    writeln!(
        page,
        "certificate = {}",
        file(format!("edge-{}.pem", edge.id))
    )?;
    writeln!(page, "key = {}", file(format!("edge-{}.key", edge.id)))
}

/// The string names every server: which one is the primary shows when it is connected to. Nearest
/// come last, because a standby next door is still no primary.
fn ledger(page: &mut String, topology: &Topology, region: &Region) -> std::fmt::Result {
    let mut hosts: Vec<_> = topology
        .regions
        .iter()
        .flat_map(|region| &region.postgres)
        .collect();
    if hosts.is_empty() {
        return writeln!(
            page,
            "\n[ledger]\n# No Postgres in the topology: the ledger is embedded."
        );
    }
    hosts.sort_by_key(|host| match host.role {
        PostgresRole::Primary => 0,
        PostgresRole::Synchronous => 1,
        PostgresRole::Asynchronous => 2,
    });
    let names: Vec<&str> = hosts.iter().map(|host| host.at.host.as_str()).collect();
    let ports: Vec<String> = hosts.iter().map(|host| host.at.port.to_string()).collect();
    let secure = region.certificates.as_ref();
    let mode = if secure.is_some() {
        " sslmode=require"
    } else {
        ""
    };
    writeln!(
        page,
        "\n[ledger]\n# With a password: the same text in a file that postgres_file names."
    )?;
    writeln!(
        page,
        "postgres = \"host={} port={} user={LEDGER_USER} dbname={LEDGER_USER} \
         target_session_attrs=read-write{mode}\"",
        names.join(","),
        ports.join(",")
    )?;
    match secure {
        None => Ok(()),
        Some(dir) => {
            let ca = dir.join("postgres-ca.pem").display().to_string();
            writeln!(page, "ca = {}", toml_text(&ca))
        }
    }
}

/// Reads go to the region's own nodes first, then to the other regions' replicas, then to the home.
fn trip_cache(page: &mut String, topology: &Topology, region: &Region) -> std::fmt::Result {
    let mut nodes: Vec<_> = topology
        .regions
        .iter()
        .flat_map(|of| {
            of.redis
                .iter()
                .map(move |node| (of.name != region.name, node))
        })
        .collect();
    let Some((_, home)) = nodes
        .iter()
        .find(|(_, node)| node.role == RedisRole::Home)
        .copied()
    else {
        return writeln!(
            page,
            "\n[trip_cache]\n# No Redis in the topology: the trip cache is embedded."
        );
    };
    nodes.sort_by_key(|(is_far, node)| (*is_far, *is_far && node.role == RedisRole::Home));
    let secure = region.certificates.as_ref();
    let scheme = if secure.is_some() { "rediss" } else { "redis" };
    let urls: Vec<String> = nodes
        .iter()
        .map(|(_, node)| format!("\"{scheme}://{}\"", node.at))
        .collect();
    writeln!(page, "\n[trip_cache]\nredis = [{}]", urls.join(", "))?;
    writeln!(page, "redis_home = \"{scheme}://{}\"", home.at)?;
    match secure {
        None => Ok(()),
        Some(dir) => {
            let ca = dir.join("redis-ca.pem").display().to_string();
            writeln!(page, "ca = {}", toml_text(&ca))
        }
    }
}

/// BIRD's configuration for the machine of an edge: the prefixes as static routes under a protocol
/// that the announcer switches, and BGP with BFD to each router, exporting exactly them.
///
/// # Errors
/// When there is no such edge, or its region is not announced.
pub fn bird_config(topology: &Topology, name: &str) -> Result<String, DerivedError> {
    let found = topology.edge(name);
    let (region, edge) = found.ok_or_else(|| DerivedError::NoEdge(name.to_owned()))?;
    let not_announced = || DerivedError::NotAnnounced(region.name.clone());
    let anycast = region.anycast.as_ref().ok_or_else(not_announced)?;
    let identity = match edge.announcer.map(|at| at.ip()) {
        Some(IpAddr::V4(address)) => address,
        Some(IpAddr::V6(_)) | None => return Err(DerivedError::NoIdentity(name.to_owned())),
    };
    Ok(written(|page| {
        bird_page(page, anycast, &identity.to_string())
    }))
}

fn bird_page(page: &mut String, anycast: &Anycast, identity: &str) -> std::fmt::Result {
    writeln!(
        page,
        "# The prefixes are also addresses of this machine's loopback interface."
    )?;
    writeln!(page, "log syslog all;\nrouter id {identity};")?;
    writeln!(page, "protocol device {{ scan time 1; }}")?;
    // Three times 100 ms of silence: a link that carries nothing is left before a bank notices.
    writeln!(
        page,
        "protocol bfd {{ interface \"*\" {{ min rx interval 100 ms; min tx interval 100 ms; \
         idle tx interval 300 ms; multiplier 3; }}; }}"
    )?;
    for (family, word) in [(false, "ipv4"), (true, "ipv6")] {
        let of: Vec<_> = anycast
            .prefixes
            .iter()
            .filter(|prefix| prefix.address.is_ipv6() == family)
            .collect();
        if of.is_empty() {
            continue;
        }
        let suffix = if family { "_6" } else { "" };
        writeln!(
            page,
            "protocol static {BIRD_PROTOCOL}{suffix} {{\n  {word};"
        )?;
        for prefix in &of {
            writeln!(page, "  route {prefix} blackhole;")?;
        }
        writeln!(page, "}}")?;
        let nets: Vec<_> = of.iter().map(ToString::to_string).collect();
        let routers = anycast
            .routers
            .iter()
            .filter(|router| router.address.is_ipv6() == family);
        for (number, router) in (1_usize..).zip(routers) {
            // Short times: a session that was lost comes back within seconds, not minutes.
            writeln!(
                page,
                "protocol bgp upstream{suffix}_{number} {{\n  local as {};\n  neighbor {} as {};\n  \
                 hold time 9;\n  keepalive time 3;\n  connect delay time 1;\n  connect retry time 2;\n  \
                 error wait time 1, 4;\n  bfd on;\n  {word} {{\n    import none;\n    \
                 export where net ~ [ {} ];\n  }};\n}}",
                anycast.local_as,
                router.address,
                router.remote_as,
                nets.join(", ")
            )?;
        }
    }
    Ok(())
}

/// A page that is written to; a String takes everything.
pub(crate) fn written(write: impl FnOnce(&mut String) -> std::fmt::Result) -> String {
    let mut page = String::new();
    if write(&mut page).is_err() {
        tracing::error!("a page was not written to its end");
    }
    page
}

fn toml_text(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
