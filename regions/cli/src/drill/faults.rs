//! What a drill breaks, how it is known to be broken, and how it is put right.

mod clocks;
mod edges;
mod links;
mod postgres;
mod redis;

use std::time::Duration;

use standin_drill::network::End;
use standin_drill::proxy::Counts;
use standin_reconcile::report::drill::Proof;

use super::bank::Bank;
use super::world::World;
use crate::chance::Chance;
use crate::killed::Killed;

/// Something to break.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fault {
    /// SIGKILL to the whole of Postgres.
    PrimaryKilled,
    /// SIGSTOP to the whole of Postgres.
    PrimaryHung,
    /// The link between edges and primary.
    PrimaryLink(Trouble),
    /// Every new transaction on the primary is read-only.
    PrimaryReadOnly,
    /// The primary's disk has no byte left.
    PrimaryFull,
    /// The primary dies, its standby is promoted, and the old one comes back.
    PrimaryLost,
    /// The standby hangs that commits wait for.
    StandbyHung,
    /// SIGKILL to the edges' own replica of the trip cache.
    ReplicaKilled,
    /// SIGSTOP to it.
    ReplicaHung,
    /// It hears nothing from its home any more.
    ReplicaStale,
    /// It loses every key, and goes on.
    ReplicaWiped,
    /// SIGKILL to the edge that leads the log.
    LeaderKilled,
    /// SIGSTOP to it.
    LeaderHung,
    /// A keeper dies, and its disk with it.
    KeeperDiskLost,
    /// SIGKILL to every edge of the region.
    RegionLost,
    /// An edge starts with a certificate that is good no more.
    CertificateExpired,
    /// The clock of the edge that leads the log goes an hour ahead, another edge's an hour back.
    ClocksStepped,
    /// The leader is cut off from the other edges.
    LeaderCut {
        /// It does not hear them either.
        both_ways: bool,
    },
    /// Links between edges are cut one by one, and healed in another order.
    Swizzle,
    /// More requests than usual; the schedule of the load makes them.
    Flood {
        /// How many times as many.
        times: u64,
    },
}

/// Where a fault is, and who knows how to break it, prove it and put it right.
enum Place {
    Postgres,
    PostgresLink(Trouble),
    Redis,
    Edges,
    Clocks,
    CutLeader { both_ways: bool },
    Swizzle,
    Load { times: u64 },
}

/// What a link does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Trouble {
    /// Nothing passes, nothing is closed.
    Blackhole,
    /// Everything is so late.
    Slow(Duration),
    /// So many of a hundred pieces are so late.
    Sometimes(u8, Duration),
}

/// What is broken, and what is remembered of it.
pub(super) struct Broken {
    /// Edges that were killed; one that did not come back yet has no log here.
    pub(super) killed: Vec<Killed>,
    /// The one that is down, and since when.
    down: Option<(u64, standin_core::clock::Timestamp)>,
    hung: Option<u64>,
    /// What a proxy had counted before.
    before: Counts,
    /// What hosts had dropped, and the bank had sent, before.
    counted: u64,
    cut: Vec<(End, End)>,
    /// Edges whose clock was stepped, and by how many milliseconds.
    pub(super) stepped: Vec<(u64, i64)>,
    chance: Chance,
    /// Final rows that the old primary had and the new one had not, by payment.
    pub(super) lost: Vec<String>,
    /// Worth a line in the report.
    pub(super) notes: Vec<String>,
    /// What was seen at the moment of breaking.
    pub(super) proofs: Vec<Proof>,
}

// === impl Broken ===

impl Broken {
    /// Nothing yet.
    pub(super) const fn new(seed: u64) -> Self {
        Self {
            killed: Vec::new(),
            down: None,
            hung: None,
            before: Counts {
                connections: 0,
                forwarded: 0,
                stalled: 0,
                delayed: 0,
                cut: 0,
            },
            counted: 0,
            cut: Vec::new(),
            stepped: Vec::new(),
            chance: Chance::new(seed),
            lost: Vec::new(),
            notes: Vec::new(),
            proofs: Vec::new(),
        }
    }

    fn saw(&mut self, ok: bool, seen: impl Into<String>) {
        let seen = seen.into();
        self.proofs.push(Proof { seen, ok });
    }
}

// === impl Fault ===

impl Fault {
    fn place(self) -> Place {
        match self {
            Self::PrimaryKilled
            | Self::PrimaryHung
            | Self::PrimaryReadOnly
            | Self::PrimaryFull
            | Self::PrimaryLost
            | Self::StandbyHung => Place::Postgres,
            Self::PrimaryLink(trouble) => Place::PostgresLink(trouble),
            Self::ReplicaKilled | Self::ReplicaHung | Self::ReplicaStale | Self::ReplicaWiped => {
                Place::Redis
            }
            Self::LeaderKilled
            | Self::LeaderHung
            | Self::KeeperDiskLost
            | Self::RegionLost
            | Self::CertificateExpired => Place::Edges,
            Self::ClocksStepped => Place::Clocks,
            Self::LeaderCut { both_ways } => Place::CutLeader { both_ways },
            Self::Swizzle => Place::Swizzle,
            Self::Flood { times } => Place::Load { times },
        }
    }

    /// Breaks it.
    pub(super) async fn inject(
        self,
        world: &mut World,
        bank: &Bank,
        broken: &mut Broken,
    ) -> anyhow::Result<()> {
        match self.place() {
            Place::Postgres => postgres::inject(self, world, broken).await,
            Place::PostgresLink(trouble) => {
                links::trouble(world, trouble, broken);
                Ok(())
            }
            Place::Redis => redis::inject(self, world, broken).await,
            Place::Edges => edges::inject(self, world, broken).await,
            Place::Clocks => clocks::inject(world, broken).await,
            Place::CutLeader { both_ways } => links::cut_leader(world, both_ways, broken).await,
            Place::Swizzle => links::swizzle(world, broken).await,
            Place::Load { .. } => {
                broken.counted = bank.sent();
                Ok(())
            }
        }
    }

    /// Looks for signs that it is broken; `rate` and `lasted` say what the load was to be meanwhile.
    pub(super) async fn prove(
        self,
        world: &mut World,
        bank: &Bank,
        (rate, lasted): (u64, Duration),
        broken: &mut Broken,
    ) -> anyhow::Result<()> {
        match self.place() {
            Place::Postgres => postgres::prove(self, world, broken).await,
            Place::PostgresLink(trouble) => links::prove(world, trouble, broken),
            Place::Redis => {
                redis::prove(self, world, broken).await?;
            }
            Place::Edges => {
                edges::prove(self, world, broken).await?;
            }
            Place::Clocks => clocks::prove(world, broken).await?,
            Place::CutLeader { .. } | Place::Swizzle => links::prove_cut(world, broken)?,
            Place::Load { times } => {
                let sent = bank.sent().saturating_sub(broken.counted);
                let ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
                let usual = rate.saturating_mul(ms) / 1_000;
                let least = usual.saturating_mul(times).saturating_mul(9) / 10;
                let words = format!("{sent} requests where {usual} are usual");
                broken.saw(sent >= least, words);
            }
        }
        Ok(())
    }

    /// Puts it right.
    pub(super) async fn heal(self, world: &mut World, broken: &mut Broken) -> anyhow::Result<()> {
        match self.place() {
            Place::Postgres => postgres::heal(self, world, broken).await,
            Place::PostgresLink(_) => {
                links::untrouble(world);
                Ok(())
            }
            Place::Redis => redis::heal(self, world).await,
            Place::Edges => edges::heal(self, world, broken).await,
            Place::Clocks => clocks::heal(world, broken).await,
            Place::CutLeader { .. } | Place::Swizzle => links::heal_cut(world, broken).await,
            Place::Load { .. } => Ok(()),
        }
    }
}

/// The states of a family, in words, and whether all are stopped. One that is dead and that its stopped
/// parent has not buried does nothing either.
fn all_stopped(whose: &str, states: &[char]) -> (bool, String) {
    let alive = || states.iter().filter(|state| **state != 'Z');
    let stopped = alive().filter(|state| **state == 'T').count();
    let all = alive().count();
    (
        all > 0 && stopped == all,
        format!("{stopped} of {all} processes of {whose} are stopped (state T)"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_is_stopped_when_nobody_alive_in_it_runs() {
        for (states, stopped) in [
            (vec!['T', 'T', 'Z'], true),
            (vec!['T', 'S'], false),
            (vec!['Z'], false),
            (vec![], false),
        ] {
            assert_eq!(all_stopped("x", &states).0, stopped, "{states:?}");
        }
    }
}
