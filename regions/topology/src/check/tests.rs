#![allow(clippy::too_many_lines, reason = "a table of cases")]

use std::collections::BTreeMap;

use crate::derived::{bird_config, edge_config};
use crate::drawing::draw;
use crate::read::{Read, Weight};

const EAST: &str = include_str!("../../../examples/three/east.toml");
const WEST: &str = include_str!("../../../examples/three/west.toml");
const SOUTH: &str = include_str!("../../../examples/three/south.toml");

fn example() -> BTreeMap<&'static str, String> {
    [
        ("east.toml", EAST),
        ("south.toml", SOUTH),
        ("west.toml", WEST),
    ]
    .map(|(name, text)| (name, text.to_owned()))
    .into()
}

fn read(files: &BTreeMap<&'static str, String>) -> Read {
    Read::files(files.iter().map(|(name, text)| (*name, text.as_str())))
}

/// Findings after `from` became `to` in a file of the example, without those it has anyway.
fn after(file: &'static str, from: &str, to: &str) -> Vec<String> {
    let mut files = example();
    let usual = read(&files).findings;
    let text = files.get_mut(file).unwrap();
    assert!(text.contains(from), "{file} has no {from:?}");
    *text = text.replace(from, to);
    let found = read(&files).findings.into_iter();
    found
        .filter(|found| !usual.contains(found))
        .map(|found| found.to_string())
        .collect()
}

#[test]
fn the_example_has_no_error_and_reads_in_order() {
    let read = read(&example());
    let errors: Vec<_> = read.of(Weight::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}");
    let topology = read.topology.unwrap();
    let names: Vec<_> = topology
        .regions
        .iter()
        .map(|region| region.name.as_str())
        .collect();
    assert_eq!(names, ["east", "south", "west"]);
    assert_eq!(topology.edges().count(), 8);
    assert_eq!(topology.other_announcers("east-1").len(), 7);
    assert_eq!(topology.region("west").unwrap().keepers().count(), 3);
}

#[test]
fn each_thing_that_is_wrong_is_found_with_its_file_and_key() {
    // file, what stands there, what is written instead, what is found
    let table = [
        (
            "east.toml",
            "name = \"east\"",
            "name = \"East\"",
            "error: east.toml: name: must be 1 to 32 characters",
        ),
        (
            "east.toml",
            "name = \"east\"",
            "name = \"north\"",
            "error: east.toml: name: is \"north\"",
        ),
        (
            "east.toml",
            "as = 64511",
            "as = 64512",
            "error: east.toml: anycast.as: 64512 is west's",
        ),
        (
            "east.toml",
            "as = 64511",
            "as = 64500",
            "error: east.toml: anycast.routers: 10.1.0.1 is in the region's own AS",
        ),
        (
            "east.toml",
            "as = 64511",
            "as = 0",
            "error: east.toml: anycast.as: must be a whole number",
        ),
        (
            "east.toml",
            "203.0.113.10/32",
            "203.0.113.10/31x",
            "error: east.toml: anycast.prefixes.1: ",
        ),
        (
            "east.toml",
            "[\"203.0.113.10/32\"]",
            "[]",
            "error: east.toml: anycast.prefixes: at least one",
        ),
        (
            "east.toml",
            "rack-b",
            "rack-a",
            "error: east.toml: edges.2.failure_domain: east-1 and east-2 are keepers in one failure domain",
        ),
        ("east.toml", "id = 2", "id = 1", "has number 1"),
        (
            "east.toml",
            "id = 2\n",
            "",
            "error: east.toml: edges.2.id: is needed",
        ),
        (
            "east.toml",
            "east-2\"",
            "west-2\"",
            "\"west-2\" is an edge of east too",
        ),
        (
            "east.toml",
            "10.1.0.12:8481",
            "10.1.0.11:8481",
            "10.1.0.11:8481 is taken by east-1",
        ),
        (
            "east.toml",
            "failure_domain = \"rack-c\"",
            "failure_domain = \"rack-c\"\nrole = \"learner\"",
            "error: east.toml: edges: 2 edges are keepers",
        ),
        (
            "east.toml",
            "role = \"home\"",
            "role = \"replica\"",
            "redis: no region has the home",
        ),
        (
            "west.toml",
            "role = \"replica\"",
            "role = \"home\"",
            "redis: a deployment has one home",
        ),
        (
            "west.toml",
            "role = \"asynchronous\"",
            "role = \"primary\"",
            "postgres: a deployment has one primary",
        ),
        (
            "west.toml",
            "role = \"asynchronous\"",
            "role = \"backup\"",
            "must be one of primary, synchronous, asynchronous",
        ),
        (
            "east.toml",
            "failure_domain = \"rack-b\"\n\n[[edges]]\nid = 3",
            "failure_domain = \"rack-b\"\ncolour = \"red\"\n\n[[edges]]\nid = 3",
            "error: east.toml: edges.2.colour: no such key",
        ),
        (
            "west.toml",
            "peers = [\"east\", \"south\"]",
            "peers = [\"mars\", \"west\"]",
            "there is no region \"mars\"",
        ),
        (
            "west.toml",
            "peers = [\"east\", \"south\"]",
            "peers = [\"mars\", \"west\"]",
            "a region is no peer of itself",
        ),
        (
            "south.toml",
            "trial = true\n",
            "",
            "error: south.toml: edges: one keeper loses",
        ),
        (
            "south.toml",
            "announcer = \"10.3.0.11:8495\"\n",
            "",
            "edges.1.announcer: is needed",
        ),
        (
            "south.toml",
            "certificates = \"/etc/standin/certs\"\n",
            "",
            "error: south.toml: edges.1.admin: must be on loopback",
        ),
        (
            "south.toml",
            "= \"/etc/standin/certs\"",
            "= \"certs\"",
            "certificates: must be an absolute path",
        ),
        (
            "south.toml",
            "south-1.internal:8490",
            "south-1.internal",
            "edges.1.link: \"south-1.internal\": must be host:port",
        ),
        (
            "south.toml",
            "[anycast]",
            "[anycast",
            "error: south.toml: is not TOML at line 8",
        ),
        (
            "east.toml",
            "USD",
            "dollar",
            "reserve.currency: must be an ISO 4217 code",
        ),
        (
            "east.toml",
            "banks = [\"first\", \"acme\"]",
            "banks = [\"first\", \"first\"]",
            "names \"first\" twice",
        ),
    ];
    for (file, from, to, expected) in table {
        let found = after(file, from, to);
        assert!(
            found.iter().any(|found| found.contains(expected)),
            "{to:?}: {found:#?}"
        );
    }
}

#[test]
fn what_can_be_used_and_will_hurt_is_a_warning() {
    let table = [
        ("west.toml", "at = \"pg-west-1", "at = \"pg-east-9", None),
        (
            "east.toml",
            "role = \"synchronous\"",
            "role = \"asynchronous\"",
            Some("no synchronous standby beside it"),
        ),
        (
            "west.toml",
            "role = \"asynchronous\"",
            "role = \"synchronous\"",
            Some("every commit waits for"),
        ),
        (
            "east.toml",
            "peers = [\"west\", \"south\"]",
            "peers = [\"west\"]",
            Some("warning: south.toml: peers: east does not name south"),
        ),
        (
            "east.toml",
            "203.0.113.10",
            "203.0.113.11",
            Some("no other region takes it over"),
        ),
        (
            "east.toml",
            "10.1.0.11:8495",
            "127.0.0.1:8495",
            Some("will believe itself the last one"),
        ),
        (
            "west.toml",
            "banks = [\"first\", \"acme\"]",
            "banks = [\"first\"]",
            Some("\"acme\" has no other region"),
        ),
        (
            "east.toml",
            "routers = [\"10.1.0.1=64500\"]",
            "floor = 9\nrouters = []",
            Some("east-1 is never withdrawn"),
        ),
    ];
    for (file, from, to, expected) in table {
        let found = after(file, from, to);
        let errors: Vec<_> = found
            .iter()
            .filter(|found| found.starts_with("error"))
            .collect();
        assert!(errors.is_empty(), "{to:?}: {errors:#?}");
        match expected {
            None => assert!(found.is_empty(), "{found:?}"),
            Some(expected) => {
                assert!(
                    found.iter().any(|found| found.contains(expected)),
                    "{to:?}: {found:#?}"
                );
            }
        }
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    let mut files = example();
    files.insert(
        "east.toml",
        EAST.replace("id = 2", "id = 0").replace("64511", "\"x\""),
    );
    files.insert("west.toml", WEST.replace("listen =", "listens ="));
    let read = read(&files);
    assert!(read.topology.is_none());
    let keys: Vec<_> = read
        .of(Weight::Error)
        .map(|found| format!("{} {}", found.file, found.key))
        .collect();
    for expected in [
        "east.toml anycast.as",
        "east.toml edges.2.id",
        "west.toml edges.1.listen",
        "west.toml edges.4.listens",
    ] {
        assert!(
            keys.iter().any(|key| key == expected),
            "{expected}: {keys:#?}"
        );
    }
    assert!(Read::files([]).topology.is_none());
}

#[test]
fn the_drawing_has_every_edge_and_server() {
    let topology = read(&example()).topology.unwrap();
    let page = draw(&topology);
    for (region, edge) in topology.edges() {
        assert!(page.contains(&edge.name) && page.contains(&region.name));
    }
    for host in topology.regions.iter().flat_map(|region| &region.postgres) {
        assert!(page.contains(&host.at.to_string()), "{page}");
    }
    assert!(page.contains("3 keepers, 1 may fail at once"), "{page}");
    assert!(page.contains("150000 for all"), "{page}");
}

#[test]
fn an_edge_reads_its_own_region_first_and_the_home_last() {
    let topology = read(&example()).topology.unwrap();
    let text = edge_config(&topology, "west-4").unwrap();
    let table: toml::Table = text.parse().unwrap();
    let redis: Vec<_> = table["trip_cache"]["redis"]
        .as_array()
        .unwrap()
        .iter()
        .map(|url| url.as_str().unwrap())
        .collect();
    assert_eq!(redis.first(), Some(&"rediss://redis-west-1.internal:6379"));
    assert_eq!(redis.last(), Some(&"rediss://redis-east-1.internal:6379"));
    assert!(edge_config(&topology, "nobody").is_err());
}

#[test]
fn bird_is_told_the_prefix_and_every_router() {
    let topology = read(&example()).topology.unwrap();
    let text = bird_config(&topology, "south-1").unwrap();
    for part in [
        "route 203.0.113.10/32 blackhole;",
        "neighbor 10.3.0.1 as 64500;",
        "local as 64513;",
        "bfd on;",
        "router id 10.3.0.11;",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
