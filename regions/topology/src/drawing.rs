//! A picture of the regions, in text.

use std::fmt::Write as _;

use crate::derived::written;
use crate::region::{Edge, EdgeRole, PostgresHost, RedisNode, Region, Topology};

/// Draws every region: edges, keepers and their domains, data plane, how it is announced.
pub fn draw(topology: &Topology) -> String {
    written(|page| {
        for region in &topology.regions {
            region_box(page, topology, region)?;
        }
        footer(page, topology)
    })
}

fn region_box(page: &mut String, topology: &Topology, region: &Region) -> std::fmt::Result {
    writeln!(page, "┌─ {}", region.name)?;
    if let Some(anycast) = &region.anycast {
        let prefixes: Vec<_> = anycast.prefixes.iter().map(ToString::to_string).collect();
        let routers: Vec<_> = anycast
            .routers
            .iter()
            .map(|router| format!("{} (AS {})", router.address, router.remote_as))
            .collect();
        let to = if routers.is_empty() {
            "by readiness".to_owned()
        } else {
            format!("to {}", routers.join(", "))
        };
        writeln!(
            page,
            "│ announces {} from AS {} {to}",
            prefixes.join(", "),
            anycast.local_as
        )?;
    }
    let keepers = region.keepers().count();
    let majority = keepers.checked_div(2).unwrap_or(0).saturating_add(1);
    let survives = keepers.saturating_sub(majority);
    writeln!(
        page,
        "│ log: {keepers} keeper{}, {} may fail at once{}",
        plural(keepers),
        survives,
        if region.trial {
            " (for trying out)"
        } else {
            ""
        }
    )?;
    for edge in &region.edges {
        writeln!(page, "│   {}", edge_line(edge))?;
    }
    for node in &region.redis {
        writeln!(page, "│ redis    {}", redis_line(node))?;
    }
    for host in &region.postgres {
        writeln!(page, "│ postgres {}", postgres_line(host))?;
    }
    writeln!(page, "│ banks: {}", list(&region.banks))?;
    writeln!(page, "│ peers: {}", list(&region.peers))?;
    if let Some(reserve) = &region.reserve {
        let edges = i64::try_from(region.edges.len()).unwrap_or(i64::MAX);
        writeln!(
            page,
            "│ reserve: {} minor units of {} in {} approvals for each start of an edge, {} for all",
            reserve.amount_minor,
            reserve.currency,
            reserve.count,
            reserve.amount_minor.saturating_mul(edges)
        )?;
    }
    let heirs = topology
        .regions
        .iter()
        .filter(|other| other.name != region.name)
        .filter(|other| {
            let theirs = other.anycast.iter().flat_map(|anycast| &anycast.prefixes);
            let own = region.anycast.iter().flat_map(|anycast| &anycast.prefixes);
            let own: Vec<_> = own.collect();
            theirs.into_iter().any(|prefix| own.contains(&prefix))
        });
    let heirs: Vec<_> = heirs.map(|other| other.name.clone()).collect();
    writeln!(page, "└─ when it withdraws: {}\n", list(&heirs))
}

fn footer(page: &mut String, topology: &Topology) -> std::fmt::Result {
    let edges = topology.edges().count();
    writeln!(
        page,
        "{} region{}, {edges} edge{}",
        topology.regions.len(),
        plural(topology.regions.len()),
        plural(edges)
    )
}

fn edge_line(edge: &Edge) -> String {
    let role = match edge.role {
        EdgeRole::Keeper => "keeper ",
        EdgeRole::Learner => "learner",
    };
    format!(
        "{:>3} {:<16} {role} in {:<12} banks {}  link {}  admin {}",
        edge.id, edge.name, edge.failure_domain, edge.listen, edge.link, edge.admin
    )
}

fn redis_line(node: &RedisNode) -> String {
    format!("{:<12} {}", node.role.to_string(), node.at)
}

fn postgres_line(host: &PostgresHost) -> String {
    format!(
        "{:<12} {} in {}",
        host.role.to_string(),
        host.at,
        host.failure_domain
    )
}

fn list(words: &[String]) -> String {
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}

const fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}
