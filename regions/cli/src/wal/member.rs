//! `standin wal member`: gives a learner a vote, or takes a member out.

use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use standin_edge::admin::{MemberChange, MembersChanged};

use crate::admin::{Desk, Signature, why_not};
use crate::client::Call;
use crate::out::{say, say_json};

/// How long a change may take: an election, the entries of the members, and the audit's.
const CHANGE_MAX: Duration = Duration::from_secs(20);

/// Changes who keeps the region's log, one member at a time.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Add(AddArgs),
    Remove(RemoveArgs),
}

/// Gives an edge a vote in its region's log.
///
/// Start the edge first, with a number that was never used and the region's [keepers] in its
/// configuration: it joins by itself and learns. Once it has caught up, it can be added. Three
/// keepers go on without one of them, five without two; a fourth adds nothing but work.
///
/// Ask any edge of the region. It refuses while the primary is unreachable, or when those who would
/// vote could not commit; --force overrides both, and the audit says so.
///
/// Exit code: 0 done and audited, 4 refused and nothing changed, 1 no word of it came in time: look
/// with `standin wal status`, and give the order again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  standin wal member add 4 --operator ada --reason 'replaces edge 3'")]
struct AddArgs {
    #[command(flatten)]
    change: Change,
}

/// Takes an edge out of its region's log.
///
/// Its number is spent: an edge that comes back needs another one. Ask any other edge of the region.
/// It refuses while the primary is unreachable, or when the keepers that are left and answer would be
/// no majority; --force overrides both, and the audit says so. The last keeper is never removed.
///
/// Exit code: 0 done and audited, 4 refused and nothing changed, 1 no word of it came in time: look
/// with `standin wal status`, and give the order again.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  standin wal member remove 3 --operator ada --reason 'its disk is lost'")]
struct RemoveArgs {
    #[command(flatten)]
    change: Change,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// The edge's number.
    node: u64,
    #[command(flatten)]
    signature: Signature,
    /// Also when something speaks against it.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    desk: Desk,
}

/// What an edge replied to an order.
#[derive(Debug)]
pub(super) enum Ordered {
    Done(MembersChanged),
    /// Nothing changed; the reason is in the problem that was replied.
    Refused(Value),
    /// It may be done or not.
    Unknown(Value),
}

// === impl Args ===

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let (kind, change) = match self.command {
            Command::Add(args) => (MemberChange::Add, args.change),
            Command::Remove(args) => (MemberChange::Remove, args.change),
        };
        let Change {
            node,
            signature,
            force,
            desk,
        } = change;
        let ordered = desk.change(kind, node, &signature, force).await?;
        if desk.json {
            match &ordered {
                Ordered::Done(changed) => say_json(changed)?,
                Ordered::Refused(problem) | Ordered::Unknown(problem) => say_json(problem)?,
            }
        } else {
            match &ordered {
                Ordered::Done(changed) => say(done(changed)),
                Ordered::Refused(problem) => eprintln!("refused: {}", why_not(problem)),
                Ordered::Unknown(problem) => eprintln!(
                    "no word of it in time ({}): it may be done; look with `standin wal status`, and \
                     give the order again",
                    why_not(problem)
                ),
            }
        }
        Ok(match ordered {
            Ordered::Done(_) => 0,
            Ordered::Refused(_) => 4,
            Ordered::Unknown(_) => 1,
        })
    }
}

// === impl Desk ===

impl Desk {
    /// Orders a change of the members.
    pub(super) async fn change(
        &self,
        change: MemberChange,
        node: u64,
        signature: &Signature,
        force: bool,
    ) -> anyhow::Result<Ordered> {
        let Signature { operator, reason } = signature;
        let order = json!({ "node": node, "operator": operator, "reason": reason, "force": force });
        let path = match change {
            MemberChange::Add => "/wal/members/add",
            MemberChange::Remove => "/wal/members/remove",
        };
        let call = Call::post(path, serde_json::to_vec(&order)?);
        let reply = self.ask_within(call, CHANGE_MAX).await?;
        if reply.status == 200 {
            let changed = serde_json::from_slice(&reply.body);
            return Ok(Ordered::Done(changed.context("the reply does not read")?));
        }
        let problem = serde_json::from_slice(&reply.body).unwrap_or(Value::Null);
        Ok(if (400..500).contains(&reply.status) {
            Ordered::Refused(problem)
        } else {
            Ordered::Unknown(problem)
        })
    }
}

/// What changed, in a line.
pub(super) fn done(changed: &MembersChanged) -> String {
    let MembersChanged {
        change,
        node,
        changed,
        forced,
        keepers,
        tolerates,
    } = changed;
    let what = match (change, changed) {
        (MemberChange::Add, true) => "has a vote now",
        (MemberChange::Add, false) => "had a vote already",
        (MemberChange::Remove, true) => "is out",
        (MemberChange::Remove, false) => "was out already",
    };
    let forced = if *forced { ", by force" } else { "" };
    format!(
        "edge {node} {what}{forced}; keepers {keepers:?}, of which {tolerates} may fail; audited"
    )
}
