//! `standin wal status`: how a log is, asked of its edge or read from its folder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};
use standin_wal::inspect::{self, LogReport};

use crate::admin::Desk;
use crate::client::Call;
use crate::out::{say, say_json, table};

/// What of the status page is about the log.
const PARTS: [&str; 9] = [
    "region",
    "edge",
    "wal",
    "drain",
    "advices",
    "conflicts",
    "late",
    "exposure",
    "alarms",
];

/// Shows how a log is: members, terms, indexes, lag, drain, space, exposure.
///
/// Asked of a running edge, it shows the whole group as that edge sees it; how far behind each
/// member is, the edge that leads knows. With --dir it reads a folder, in use or not, damaged or not,
/// and shows what one edge has on its disk. Money is in minor units (cents).
///
/// Exit code: 0 shown, 1 no reply, or the folder cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin wal status --admin http://127.0.0.1:8481
  standin wal status --dir /var/lib/standin/wal --json")]
pub(super) struct Args {
    /// The folder of a log, instead of an edge.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    desk: Desk,
}

// === impl Args ===

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        match &self.dir {
            Some(dir) => self.folder(dir)?,
            None => self.edge().await?,
        }
        Ok(0)
    }

    fn folder(&self, dir: &Path) -> anyhow::Result<()> {
        let report = inspect::examine(dir)?;
        if self.desk.json {
            return say_json(&report);
        }
        for line in of_folder(&report) {
            say(line);
        }
        Ok(())
    }

    async fn edge(&self) -> anyhow::Result<()> {
        let page = self.desk.page().await?;
        if self.desk.json {
            return say_json(&part(&page));
        }
        let mut members = table(["edge", "role", "address", "link", "behind", "last error"]);
        for row in members_of(&page) {
            members.add_row(row);
        }
        say(members);
        for line in of_edge(&page) {
            say(line);
        }
        Ok(())
    }
}

// === impl Desk ===

impl Desk {
    /// The status page.
    pub(super) async fn page(&self) -> anyhow::Result<Value> {
        let reply = self.ask(Call::get("/statusz")).await?;
        anyhow::ensure!(reply.status == 200, "/statusz replied {}", reply.status);
        Ok(serde_json::from_slice(&reply.body)?)
    }
}

fn part(page: &Value) -> Value {
    let parts = PARTS.iter().filter_map(|name| {
        let value = page.get(name)?.clone();
        Some(((*name).to_owned(), value))
    });
    Value::Object(parts.collect::<Map<_, _>>())
}

/// A value as people read it: `-` where there is none.
fn text(page: &Value, pointer: &str) -> String {
    match page.pointer(pointer) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
    }
}

/// A row for each member of the group.
pub(super) fn members_of(page: &Value) -> Vec<[String; 6]> {
    let members = page.pointer("/wal/members").and_then(Value::as_array);
    let rows = members.into_iter().flatten().map(|member| {
        let is = |name: &str| member.get(name) == Some(&Value::Bool(true));
        let this = if is("is_this") { " (asked)" } else { "" };
        let leads = if is("leads") { ", leads" } else { "" };
        let link = match member.pointer("/link/connected") {
            Some(Value::Bool(true)) => "connected",
            Some(_) => "not connected",
            None => "-",
        };
        [
            format!("{}{this}", text(member, "/node")),
            format!("{}{leads}", text(member, "/role")),
            text(member, "/address"),
            link.to_owned(),
            text(member, "/lag"),
            text(member, "/link/last_error"),
        ]
    });
    rows.collect()
}

/// What else there is to say.
pub(super) fn of_edge(page: &Value) -> Vec<String> {
    let at = |pointer: &str| text(page, pointer);
    let mut lines = vec![
        format!(
            "log: term {}, led by {}; last entry {}, applied {}, snapshot {}, kept from {}",
            at("/wal/term"),
            at("/wal/leader"),
            at("/wal/last_index"),
            at("/wal/applied_index"),
            at("/wal/snapshot_index"),
            at("/wal/first_index"),
        ),
        format!(
            "drain: the ledger has everything up to {}; {} entries wait",
            at("/drain/cursor"),
            at("/drain/backlog"),
        ),
        format!(
            "disk: {} of {} bytes in {} segments, {} spare; written {}",
            at("/wal/bytes_used"),
            at("/wal/budget_bytes"),
            at("/wal/segments"),
            at("/wal/spares"),
            at("/wal/write_mode"),
        ),
        format!(
            "without the log: {} answers wait to be carried; granted {} in {} approvals, spent {} in {}",
            at("/advices/waiting"),
            at("/advices/granted/amount"),
            at("/advices/granted/count"),
            at("/advices/spent/amount"),
            at("/advices/spent/count"),
        ),
        format!(
            "afterwards: {} marked late, {} of them given back",
            at("/late/marked"),
            at("/late/released"),
        ),
        format!(
            "exposure of the region, {}: {} now; at worst {} = {} standing in + {} on old trips + {} \
             in reserves",
            at("/exposure/currency"),
            at("/exposure/approved_without_primary_minor"),
            at("/exposure/worst_case_minor"),
            at("/exposure/parts/stand_in_minor"),
            at("/exposure/parts/old_trips_minor"),
            at("/exposure/parts/reserves_minor"),
        ),
    ];
    if let Some(damage) = page.pointer("/wal/damage").filter(|it| !it.is_null()) {
        lines.push(format!(
            "DAMAGED: {} at byte {}: {}. Rebuild this keeper: standin wal rebuild --help",
            text(damage, "/file"),
            text(damage, "/offset"),
            text(damage, "/what"),
        ));
    }
    if page.pointer("/wal/poisoned") == Some(&Value::Bool(true)) {
        lines.push("FAILED: a write failed; this edge has to end".to_owned());
    }
    let lists = [("conflict", "/conflicts"), ("alarm", "/alarms")];
    for (name, pointer) in lists {
        let list = page.pointer(pointer).and_then(Value::as_array);
        let items = list.into_iter().flatten();
        lines.extend(items.map(|item| format!("{name}: {item}")));
    }
    lines
}

/// What there is to say of a folder.
pub(super) fn of_folder(report: &LogReport) -> Vec<String> {
    let or_none = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let kind = if report.replicated {
        "a region's log"
    } else {
        "one edge's own log"
    };
    let used = |of: fn(&inspect::SegmentDetail) -> u64| {
        let bytes = report.segments.iter().map(of);
        bytes.fold(0, u64::saturating_add)
    };
    let mut lines = vec![
        format!(
            "{kind}: edge {} of {:?}, log {}; {}",
            report.node,
            report.group,
            report.incarnation,
            if report.clean {
                "stopped cleanly"
            } else {
                "in use, or its process was killed"
            }
        ),
        format!(
            "entries: {} from {} to {}, committed at least to {}, given up below {}; {} proposals, {} bytes",
            report.entries,
            report.first_index,
            or_none(report.last_index),
            report.committed_index,
            report.trim_index,
            report.proposals,
            report.proposal_bytes,
        ),
        format!(
            "disk: {} bytes in {} segments, {} of them in use",
            used(|segment| segment.bytes),
            report.segments.len(),
            used(|segment| segment.bytes_used),
        ),
    ];
    if let Some(vote) = report.vote {
        let whom = or_none(vote.node);
        let how = if vote.committed {
            "given by a majority"
        } else {
            "given"
        };
        lines.push(format!("vote: term {}, for {whom}, {how}", vote.term));
    }
    for term in &report.terms {
        let (term, from, to) = (term.term, term.first_index, term.last_index);
        lines.push(format!("term {term}: entries {from} to {to}"));
    }
    if let Some(snapshot) = &report.snapshot {
        lines.push(format!(
            "snapshot: up to {}, {} bytes; keepers {:?}, learners {:?}",
            or_none(snapshot.last_index),
            snapshot.bytes,
            snapshot.keepers,
            snapshot.learners,
        ));
    }
    lines.extend(super::verify::troubles(report));
    lines
}
