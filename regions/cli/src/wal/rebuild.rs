//! `standin wal rebuild`: puts another edge in the place of a keeper whose disk is damaged or lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::Value;
use standin_core::clock::{Clock, SystemClock};
use standin_edge::admin::{MemberChange, MembersChanged};
use standin_wal::disk::SegmentDir;
use standin_wal::disk::real::RealDir;
use standin_wal::inspect;
use tokio::time::Instant;

use super::member::{Ordered, done};
use crate::admin::{Desk, Signature, why_not};
use crate::out::{live_line, say_json};

/// How often the group is looked at while the newcomer is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Puts a new keeper in the place of one whose disk is damaged or lost, while the region serves.
///
/// A keeper that lost what it had promised must not vote again, so it never comes back: a new number
/// takes its place and gets everything from the others. Stop the damaged edge, then run this on its
/// machine. It
///
///   1. sets the old folder aside, beside its place (renamed; nothing is deleted),
///   2. waits until edge --new has joined: start it now, with edge_id = NEW, an empty folder and the
///      region's [keepers]; with TLS it needs a certificate of its own number,
///   3. gives it a vote once it has caught up, and takes edge --old out; both are audited.
///
/// Interrupted, it may be run again: what is done is found done.
///
/// What the damaged edge had answered without the log and not carried to it yet is in the folder set
/// aside, in `advices`; if there may be any, it is said.
///
/// Exit code: 0 the newcomer keeps the log, 4 refused, 1 it could not be done, or not in time.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Example:
  standin wal rebuild --dir /var/lib/standin/wal --old 3 --new 4 \\
    --admin http://10.0.0.1:8481 --operator ada --reason 'segment 12 is damaged'")]
pub(super) struct Args {
    /// The folder of the damaged edge's log; it need not be there any more.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The number of the edge whose disk is damaged or lost.
    #[arg(long, value_name = "NUMBER")]
    old: u64,
    /// A number that was never used, for the edge that takes its place.
    #[arg(long, value_name = "NUMBER")]
    new: u64,
    /// How long to wait for the newcomer, seconds.
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    within: u64,
    /// Also when the primary is unreachable, or too few keepers answer.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    signature: Signature,
    /// `--admin` is that of a healthy edge of the region.
    #[command(flatten)]
    desk: Desk,
}

/// What was done.
#[derive(Debug, Serialize)]
pub(super) struct Rebuilt {
    /// Where the old folder is now; absent when there was nothing to set aside.
    pub(super) set_aside: Option<PathBuf>,
    /// The old edge may have answered payments that the log has not heard of.
    pub(super) advices_may_be_lost: bool,
    pub(super) added: MembersChanged,
    pub(super) removed: MembersChanged,
}

/// It was refused.
#[derive(Debug, thiserror::Error)]
#[error("refused: {0}")]
pub(super) struct Refused(pub(super) String);

/// What an edge is in its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    Keeper,
    Learner,
    None,
}

// === impl Args ===

impl Args {
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let rebuilt = match self.rebuild(&mut |line| eprintln!("{line}")).await {
            Ok(rebuilt) => rebuilt,
            Err(error) => match error.downcast::<Refused>() {
                Ok(refused) => {
                    eprintln!("standin: {refused}");
                    return Ok(4);
                }
                Err(error) => return Err(error),
            },
        };
        if self.desk.json {
            say_json(&rebuilt)?;
        }
        Ok(0)
    }

    /// Does what is left to do, and tells of each step.
    pub(super) async fn rebuild(&self, tell: &mut dyn FnMut(String)) -> anyhow::Result<Rebuilt> {
        let page = self.check().await?;
        let lost = advices_may_be_lost(&self.dir);
        let set_aside = self.set_aside(role(&page, self.new))?;
        if let Some(aside) = &set_aside {
            tell(format!(
                "the folder of edge {} is set aside: {}",
                self.old,
                aside.display()
            ));
            if lost {
                tell(format!(
                    "it may have answered payments that the log has not heard of: {}",
                    super::own_log(aside).display()
                ));
            }
        }
        let deadline = Instant::now().checked_add(Duration::from_secs(self.within));
        let deadline = deadline.context("--within is too long")?;
        self.await_newcomer(&page, deadline, tell).await?;
        let added = self.change(MemberChange::Add, self.new, deadline).await?;
        tell(done(&added));
        let removed = self
            .change(MemberChange::Remove, self.old, deadline)
            .await?;
        tell(done(&removed));
        Ok(Rebuilt {
            advices_may_be_lost: lost && set_aside.is_some(),
            set_aside,
            added,
            removed,
        })
    }

    /// Looks whether any of it makes sense, before anything is touched.
    async fn check(&self) -> anyhow::Result<Value> {
        ensure!(
            self.old != self.new,
            Refused(
                "a keeper that lost its disk never comes back: give --new another number".into()
            )
        );
        let page = self.desk.page().await?;
        ensure!(
            page.pointer("/edge").and_then(Value::as_u64) != Some(self.old),
            Refused(format!(
                "edge {} itself answers at {}: stop it, and name a healthy edge with --admin",
                self.old, self.desk.admin
            ))
        );
        if role(&page, self.old) == Role::None && role(&page, self.new) == Role::None {
            // It may have been removed by hand before: the newcomer is what is left to wait for.
            return Ok(page);
        }
        let keepers = page.pointer("/wal/keepers").and_then(Value::as_array);
        let only = keepers.is_some_and(|keepers| keepers.len() == 1);
        ensure!(
            !(only && role(&page, self.old) == Role::Keeper),
            Refused(format!(
                "edge {} is the only keeper of its log: there is nobody to rebuild it from",
                self.old
            ))
        );
        Ok(page)
    }

    /// Renames the folder, unless it is the newcomer's already or there is none.
    fn set_aside(&self, newcomer: Role) -> anyhow::Result<Option<PathBuf>> {
        let is_empty = |dir: &Path| {
            let files = std::fs::read_dir(dir).map(|mut files| files.next().is_none());
            files.with_context(|| format!("cannot read {}", dir.display()))
        };
        if !self.dir.exists() || is_empty(&self.dir)? {
            return Ok(None);
        }
        match inspect::examine(&self.dir) {
            Ok(report) if report.node == self.new => return Ok(None),
            Ok(report) => ensure!(
                report.node == self.old,
                Refused(format!(
                    "{} is of edge {}, not of edge {}",
                    self.dir.display(),
                    report.node,
                    self.old
                ))
            ),
            // Too damaged to say whose it is; the operator does.
            Err(_) if newcomer == Role::None => {}
            Err(error) => bail!(
                "{} does not say whose it is ({error}), and edge {} is a member already: is it its \
                 folder?",
                self.dir.display(),
                self.new
            ),
        }
        let cannot = || format!("cannot set {} aside", self.dir.display());
        let dir = RealDir::create(&self.dir).with_context(cannot)?;
        // Held while it is renamed: no edge writes here.
        let guard = dir.lock();
        let in_use = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        if guard.as_ref().is_err_and(in_use) {
            let stop = format!("{} is in use: stop edge {}", self.dir.display(), self.old);
            bail!(Refused(stop));
        }
        let _guard = guard.with_context(cannot)?;
        let aside = self.aside()?;
        std::fs::rename(&self.dir, &aside).with_context(cannot)?;
        Ok(Some(aside))
    }

    /// A name beside the folder that is not taken.
    fn aside(&self) -> anyhow::Result<PathBuf> {
        let whole = self.dir.canonicalize()?;
        let name = whole.file_name().context("the folder has no name")?;
        let now = SystemClock.now().as_secs();
        let mut aside = name.to_os_string();
        aside.push(format!(".edge-{}-{now}", self.old));
        let aside = whole.with_file_name(aside);
        ensure!(!aside.exists(), "{} is there already", aside.display());
        Ok(aside)
    }

    async fn await_newcomer(
        &self,
        page: &Value,
        deadline: Instant,
        tell: &mut dyn FnMut(String),
    ) -> anyhow::Result<()> {
        let mut newcomer = role(page, self.new);
        if newcomer == Role::None {
            tell(format!(
                "start edge {new} now: edge_id = {new}, [wal] dir = {dir:?} or any empty folder, and \
                 this region's [keepers]; waiting for it to join",
                new = self.new,
                dir = self.dir.display().to_string(),
            ));
        }
        let live = live_line();
        live.set_message(format!("waiting for edge {} to join", self.new));
        while newcomer == Role::None {
            self.rest(deadline, "edge did not join").await?;
            // An edge that does not answer for a moment is asked again.
            if let Ok(page) = self.desk.page().await {
                newcomer = role(&page, self.new);
            }
        }
        live.finish_and_clear();
        tell(format!("edge {} has joined", self.new));
        Ok(())
    }

    /// Orders a change until it is done: the newcomer has to catch up first.
    async fn change(
        &self,
        change: MemberChange,
        node: u64,
        deadline: Instant,
    ) -> anyhow::Result<MembersChanged> {
        let live = live_line();
        loop {
            let ordered = self
                .desk
                .change(change, node, &self.signature, self.force)
                .await;
            let why = match ordered {
                Ok(Ordered::Done(changed)) => {
                    live.finish_and_clear();
                    return Ok(changed);
                }
                Ok(Ordered::Refused(problem)) => {
                    let why = why_not(&problem).to_owned();
                    if change == MemberChange::Remove || !why.contains("catch up") {
                        bail!(Refused(why));
                    }
                    why
                }
                Ok(Ordered::Unknown(problem)) => why_not(&problem).to_owned(),
                Err(error) => error.to_string(),
            };
            live.set_message(why.clone());
            self.rest(deadline, &why).await?;
        }
    }

    /// Waits a little, unless the time is up.
    async fn rest(&self, deadline: Instant, why: &str) -> anyhow::Result<()> {
        let now = Instant::now();
        ensure!(
            now < deadline,
            "not done within {} s: {why}; run it again",
            self.within
        );
        let next = now.checked_add(LOOK_EVERY).unwrap_or(deadline);
        tokio::time::sleep_until(next.min(deadline)).await;
        Ok(())
    }
}

fn role(page: &Value, node: u64) -> Role {
    let has = |pointer: &str| {
        let nodes = page.pointer(pointer).and_then(Value::as_array);
        nodes.is_some_and(|nodes| nodes.iter().any(|it| it.as_u64() == Some(node)))
    };
    if has("/wal/keepers") {
        Role::Keeper
    } else if has("/wal/learners") {
        Role::Learner
    } else {
        Role::None
    }
}

/// Whether an edge's own log has more than its last word that everything was carried.
fn advices_may_be_lost(dir: &Path) -> bool {
    let own = super::own_log(dir);
    if !own.is_dir() {
        return false;
    }
    inspect::examine(&own).map_or(true, |report| {
        !report.damage.is_empty() || report.proposals > 1
    })
}
