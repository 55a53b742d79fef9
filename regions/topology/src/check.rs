//! What is wrong or risky about regions, looked at together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::read::{Finding, Weight};
use crate::region::{Anycast, Edge, EdgeRole, PostgresRole, RedisRole, Region, Topology};

/// How many keepers may keep a log.
const KEEPERS: [usize; 3] = [1, 3, 5];

struct Findings(Vec<Finding>);

/// Everything that is found.
pub fn check(topology: &Topology) -> Vec<Finding> {
    let mut found = Findings(Vec::new());
    for region in &topology.regions {
        found.name(region);
        found.keepers(region);
        found.edges(region);
        found.certificates(region);
        if let Some(anycast) = &region.anycast {
            found.anycast(topology, region, anycast);
        }
        found.peers(topology, region);
    }
    found.unique(topology);
    found.banks(topology);
    found.redis(topology);
    found.postgres(topology);
    found.0
}

// === impl Findings ===

impl Findings {
    fn error(&mut self, region: &Region, key: impl Into<String>, what: impl Into<String>) {
        let finding = Finding::new(Weight::Error, &region.file, key, what);
        self.0.push(finding);
    }

    fn warn(&mut self, region: &Region, key: impl Into<String>, what: impl Into<String>) {
        let finding = Finding::new(Weight::Warning, &region.file, key, what);
        self.0.push(finding);
    }

    fn name(&mut self, region: &Region) {
        if region.file.strip_suffix(".toml") != Some(region.name.as_str()) {
            let what = format!(
                "is {:?}, and its file is not {}.toml",
                region.name, region.name
            );
            self.error(region, "name", what);
        }
    }

    fn keepers(&mut self, region: &Region) {
        let keepers: Vec<&Edge> = region.keepers().collect();
        if !KEEPERS.contains(&keepers.len()) {
            let what = format!(
                "{} edges are keepers; a log has 3 or 5 of them (1 to try things out: trial = true)",
                keepers.len()
            );
            self.error(region, "edges", what);
        }
        if keepers.len() == 1 && !region.trial {
            let what =
                "one keeper loses what was answered when its disk is lost: 3 or 5, or trial = true";
            self.error(region, "edges", what);
        }
        if keepers.len() > 1 && region.trial {
            self.error(region, "trial", "is for a region of one keeper");
        }
        let mut domains: BTreeMap<&str, &Edge> = BTreeMap::new();
        for keeper in keepers {
            if let Some(first) = domains.insert(&keeper.failure_domain, keeper) {
                let what = format!(
                    "{} and {} are keepers in one failure domain, {:?}",
                    first.name, keeper.name, keeper.failure_domain
                );
                self.error(region, key(region, keeper, "failure_domain"), what);
            }
        }
    }

    fn edges(&mut self, region: &Region) {
        if region.edges.is_empty() {
            self.error(region, "edges", "a region has at least one edge");
        }
        let alone = region.edges.len() <= 1;
        let mut numbers = BTreeSet::new();
        for edge in &region.edges {
            if !numbers.insert(edge.id) {
                let what = format!("another edge of the region has number {}", edge.id);
                self.error(region, key(region, edge, "id"), what);
            }
            let is_far = edge.link.ip().is_none_or(|ip| !ip.is_loopback());
            if !alone && is_far && region.certificates.is_none() {
                let what = "a link that is not on loopback needs the region's certificates";
                self.error(region, key(region, edge, "link"), what);
            }
            let plain = region.certificates.is_none();
            if plain && !edge.admin.ip().is_loopback() {
                let what = "must be on loopback, or the region has certificates";
                self.error(region, key(region, edge, "admin"), what);
            }
            if plain && !edge.listen.ip().is_loopback() {
                let what = "banks connect off loopback without TLS: the region has no certificates";
                self.warn(region, key(region, edge, "listen"), what);
            }
        }
        if region.keepers().count() == 0
            && region
                .edges
                .iter()
                .any(|edge| edge.role == EdgeRole::Learner)
        {
            self.error(
                region,
                "edges",
                "learners hear from keepers, and there is none",
            );
        }
    }

    fn certificates(&mut self, region: &Region) {
        if region
            .certificates
            .as_ref()
            .is_some_and(|dir| !dir.is_absolute())
        {
            self.error(region, "certificates", "must be an absolute path");
        }
    }

    fn anycast(&mut self, topology: &Topology, region: &Region, anycast: &Anycast) {
        if anycast.prefixes.is_empty() {
            self.error(
                region,
                "anycast.prefixes",
                "at least one prefix is announced",
            );
        }
        if anycast.routers.is_empty() {
            let what = "no router hears of it: in Kubernetes the readiness switch is enough";
            self.warn(region, "anycast.routers", what);
        }
        for router in &anycast.routers {
            if router.remote_as == anycast.local_as {
                let what = format!(
                    "{} is in the region's own AS: external BGP is spoken",
                    router.address
                );
                self.error(region, "anycast.routers", what);
            }
        }
        let others: Vec<&Region> = topology
            .regions
            .iter()
            .filter(|other| other.name != region.name)
            .collect();
        for prefix in &anycast.prefixes {
            let shared = others.iter().any(|other| {
                other
                    .anycast
                    .as_ref()
                    .is_some_and(|theirs| theirs.prefixes.contains(prefix))
            });
            if !shared {
                let what = format!("{prefix}: no other region takes it over");
                self.warn(region, "anycast.prefixes", what);
            }
        }
        let same = others.iter().find(|other| {
            other
                .anycast
                .as_ref()
                .is_some_and(|theirs| theirs.local_as == anycast.local_as)
        });
        if let Some(other) = same {
            let what = format!("{} is {}'s AS number too", anycast.local_as, other.name);
            self.error(region, "anycast.as", what);
        }
        self.announcers(topology, region, anycast);
    }

    fn announcers(&mut self, topology: &Topology, region: &Region, anycast: &Anycast) {
        let mut all = 0_u32;
        for edge in &region.edges {
            let held = |ip: IpAddr| anycast.prefixes.iter().any(|prefix| prefix.holds(ip));
            let listens = edge.listen.ip();
            if !listens.is_unspecified() && !held(listens) {
                let what = format!("{listens} is not in a prefix that the region announces");
                self.warn(region, key(region, edge, "listen"), what);
            }
            match edge.announcer {
                None => {
                    let what =
                        "is needed where the region is announced: other announcers ask there";
                    self.error(region, key(region, edge, "announcer"), what);
                }
                Some(announcer) if announcer.ip().is_loopback() && topology.regions.len() > 1 => {
                    let what =
                        "no other region reaches loopback: each will believe itself the last one";
                    self.warn(region, key(region, edge, "announcer"), what);
                }
                Some(_) => all = all.saturating_add(1),
            }
            let others = topology.other_announcers(&edge.name).len();
            let others = u32::try_from(others).unwrap_or(u32::MAX);
            if anycast.floor > others {
                let what = format!(
                    "{} others announce: {} is never withdrawn",
                    others, edge.name
                );
                self.warn(region, "anycast.floor", what);
            }
        }
    }

    fn peers(&mut self, topology: &Topology, region: &Region) {
        for peer in &region.peers {
            if *peer == region.name {
                self.error(region, "peers", "a region is no peer of itself");
                continue;
            }
            match topology.region(peer) {
                None => self.error(region, "peers", format!("there is no region {peer:?}")),
                Some(other) if !other.peers.contains(&region.name) => {
                    let what = format!("{peer} does not name {} as its peer", region.name);
                    self.warn(region, "peers", what);
                }
                Some(_) => {}
            }
        }
    }

    fn unique(&mut self, topology: &Topology) {
        let mut names: BTreeMap<&str, &Region> = BTreeMap::new();
        for region in &topology.regions {
            if let Some(first) = names.insert(&region.name, region) {
                let what = format!("{:?} is the region of {} too", region.name, first.file);
                self.error(region, "name", what);
            }
        }
        let mut edges: BTreeMap<&str, &Region> = BTreeMap::new();
        let mut places: BTreeMap<String, &Edge> = BTreeMap::new();
        for (region, edge) in topology.edges() {
            if let Some(first) = edges.insert(&edge.name, region) {
                let what = format!("{:?} is an edge of {} too", edge.name, first.name);
                self.error(region, key(region, edge, "name"), what);
            }
            let announcer = edge.announcer.map(|at| ("announcer", at.to_string()));
            let own = [
                ("listen", edge.listen.to_string()),
                ("admin", edge.admin.to_string()),
                ("link", edge.link.to_string()),
            ];
            for (what, place) in own.into_iter().chain(announcer) {
                if is_shared(region, &place) {
                    continue;
                }
                if let Some(first) = places.insert(place.clone(), edge) {
                    let words = format!("{place} is taken by {}", first.name);
                    self.error(region, key(region, edge, what), words);
                }
            }
        }
    }

    fn banks(&mut self, topology: &Topology) {
        let serving = |bank: &String| {
            let serves = |region: &&Region| region.banks.contains(bank);
            topology.regions.iter().filter(serves).count()
        };
        for region in &topology.regions {
            if region.banks.is_empty() {
                self.warn(region, "banks", "no bank is served here");
            }
            let mut seen = BTreeSet::new();
            for bank in &region.banks {
                if !seen.insert(bank) {
                    self.error(region, "banks", format!("names {bank:?} twice"));
                }
                if serving(bank) < 2 && topology.regions.len() > 1 {
                    let what = format!("{bank:?} has no other region when this one is lost");
                    self.warn(region, "banks", what);
                }
            }
        }
    }

    fn redis(&mut self, topology: &Topology) {
        let nodes = || {
            let of = |region| move |node| (region, node);
            topology
                .regions
                .iter()
                .flat_map(move |region| region.redis.iter().map(of(region)))
        };
        let homes: Vec<&Region> = nodes()
            .filter(|(_, node)| node.role == RedisRole::Home)
            .map(|(region, _)| region)
            .collect();
        let any = nodes().next().is_some();
        match (homes.as_slice(), topology.regions.first()) {
            ([], Some(first)) if any => {
                self.error(
                    first,
                    "redis",
                    "no region has the home: trips are written nowhere",
                );
            }
            ([_, others @ ..], _) => {
                for other in others {
                    self.error(
                        other,
                        "redis",
                        "a deployment has one home, and there is another",
                    );
                }
            }
            _ => {}
        }
        if any {
            for region in topology
                .regions
                .iter()
                .filter(|region| region.redis.is_empty())
            {
                self.warn(
                    region,
                    "redis",
                    "no node here: trips are read in another region",
                );
            }
        }
        let mut places = BTreeSet::new();
        for (region, node) in nodes() {
            if !places.insert(&node.at) {
                self.error(region, "redis", format!("{} is named twice", node.at));
            }
        }
    }

    fn postgres(&mut self, topology: &Topology) {
        let hosts: Vec<_> = topology
            .regions
            .iter()
            .flat_map(|region| region.postgres.iter().map(move |host| (region, host)))
            .collect();
        let (Some((first, _)), of) = (hosts.first(), |role: PostgresRole| {
            let is = move |(_, host): &&(&Region, &crate::region::PostgresHost)| host.role == role;
            hosts.iter().filter(is).copied().collect::<Vec<_>>()
        }) else {
            return;
        };
        let primaries = of(PostgresRole::Primary);
        for (region, _) in primaries.iter().skip(1) {
            self.error(
                region,
                "postgres",
                "a deployment has one primary, and there is another",
            );
        }
        let Some((home, primary)) = primaries.first() else {
            self.error(first, "postgres", "no server is the primary");
            return;
        };
        let beside: Vec<_> = of(PostgresRole::Synchronous)
            .into_iter()
            .filter(|(region, _)| region.name == home.name)
            .collect();
        if beside.is_empty() {
            let what = "the primary has no synchronous standby beside it: commits are on one disk";
            self.warn(home, "postgres", what);
        }
        for (region, standby) in beside {
            if standby.failure_domain == primary.failure_domain {
                let what = format!(
                    "{} fails as one with the primary: both are in {:?}",
                    standby.at, primary.failure_domain
                );
                self.error(region, "postgres", what);
            }
        }
        for (region, standby) in of(PostgresRole::Synchronous) {
            if region.name != home.name {
                let what = format!("every commit waits for {} in another region", standby.at);
                self.warn(region, "postgres", what);
            }
        }
        let elsewhere = hosts.iter().any(|(region, _)| region.name != home.name);
        if !elsewhere && topology.regions.len() > 1 {
            let what = "no server outside the primary's region: the ledger is lost with it";
            self.warn(home, "postgres", what);
        }
        let mut places = BTreeSet::new();
        for (region, host) in &hosts {
            if !places.insert(&host.at) {
                self.error(region, "postgres", format!("{} is named twice", host.at));
            }
        }
    }
}

/// The key of an edge's field; edges are numbered as they are sorted.
fn key(region: &Region, edge: &Edge, name: &str) -> String {
    let at = region
        .edges
        .iter()
        .position(|other| std::ptr::eq(other, edge));
    let number = at.map_or(0, |at| at.saturating_add(1));
    format!("edges.{number}.{name}")
}

/// The announced address is every edge's own, and so are any address and loopback: each machine has
/// them.
fn is_shared(region: &Region, place: &str) -> bool {
    let Ok(at) = place.parse::<std::net::SocketAddr>() else {
        return false;
    };
    let ip = at.ip();
    let announced = region.anycast.iter().flat_map(|anycast| &anycast.prefixes);
    ip.is_unspecified() || ip.is_loopback() || announced.into_iter().any(|prefix| prefix.holds(ip))
}

#[cfg(test)]
mod tests;
