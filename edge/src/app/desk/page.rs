//! What the status page and the gauges say.

use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use standin_core::entry::StandInMode;
use standin_core::policy::Policy;
use standin_core::register::Register;
use standin_wal::GroupStatus;
use tokio::time::Instant;

use super::Desk;
use crate::breaker::Position;
use crate::links::PeerStatus;
use crate::metrics::{BreakerState, Exposure, LogPlace};

/// An edge whose log has no leader for so long is not sent payments.
const LEADERLESS_MAX: Duration = Duration::from_secs(1);

/// Since when nobody is known to lead the log.
#[derive(Debug, Default)]
pub(in crate::app) struct Leaderless(Mutex<Option<Instant>>);

/// The most the region may approve without a healthy ledger in one outage, minor units. The trips'
/// caps bound it further; how much depends on the trips.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct WorstCase {
    /// The banks' limits while standing in, together: the log holds the whole region to them.
    stand_in: i64,
    /// For trips that are too old, over the log.
    old_trips: i64,
    /// What was granted to all edges for when they are cut off.
    reserves: i64,
}

// === impl Leaderless ===

impl Leaderless {
    /// Hears how the log is.
    pub(in crate::app) fn look(&self, log: &GroupStatus, now: Instant) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if is_led(log) {
            *since = None;
        } else {
            since.get_or_insert(now);
        }
    }

    /// Whether nobody leads, and nobody has for too long.
    pub(super) fn too_long(&self, log: &GroupStatus, now: Instant) -> bool {
        self.look(log, now);
        let since = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        since.is_some_and(|since| now.saturating_duration_since(since) > LEADERLESS_MAX)
    }
}

/// Somebody leads, as far as this node knows. A leader that no majority answers leads nobody.
fn is_led(log: &GroupStatus) -> bool {
    let max_ms = u64::try_from(LEADERLESS_MAX.as_millis()).unwrap_or(u64::MAX);
    let alone = log.keepers.len() <= 1;
    log.leader.is_some() && (alone || log.quorum_age_ms.is_none_or(|age_ms| age_ms <= max_ms))
}

// === impl Desk ===

impl Desk {
    /// Everything on one page.
    pub async fn statusz(&self) -> Value {
        let trip_cache_age_ms = self.trip_cache_age_ms().await;
        let shared = &self.shared;
        let (counts, outage, outages, (mode, until_ms), answers, log_time_ms, conflicts) =
            shared.log.read(|register| {
                let outages: Vec<_> = register.outages().copied().collect();
                let conflicts: Vec<_> = register.conflicts().cloned().collect();
                (
                    register.counts(),
                    register.outage().copied(),
                    outages,
                    (register.mode(), register.mode_until_ms()),
                    register.len(),
                    register.log_time_ms(),
                    conflicts,
                )
            });
        let position = shared.primary.position();
        // Before the alarms: one whose fault is over by now is cleared.
        let drills = self.played();
        json!({
            "region": self.region,
            "edge": self.edge_id,
            "now": shared.clock.now().to_string(),
            "rung": rung(mode, position),
            "stand_in": {
                "mode": mode.as_str(),
                // By the log's time of the last entry.
                "mode_ends_in_ms": until_ms.map(|until| until.saturating_sub(log_time_ms)),
                "outage": outage.map(|outage| json!({
                    "why": outage.why.as_str(),
                    "age_ms": log_time_ms.saturating_sub(outage.from_ms),
                    "from_index": outage.from_index,
                })),
                "outages": outages,
            },
            "breaker": { "position": breaker(position), "changes": shared.primary.changes() },
            "wal": self.wal(),
            "certificates": shared.certificates.status(),
            "links": shared.links.as_ref().map(|links| links.status()),
            "register": {
                "answers": answers,
                "counts": counts,
                "in_flight": self.path.inflight.len(),
            },
            "advices": {
                "waiting": shared.advices.waiting(),
                "granted": shared.advices.granted(),
                "spent": shared.advices.spent(),
            },
            "conflicts": conflicts,
            "late": { "marked": counts.late, "released": counts.released },
            "drain": self.drain(),
            "exposure": self.exposure(counts.exposed_minor),
            "policy_version": self.path.policy.load().version,
            "proposed_policy": self.path.shadow.tried().map(|tried| tried.shown()),
            "trip_cache": {
                "age_ms": trip_cache_age_ms,
                "home_epoch": shared.cache.home_epoch(),
                "write_through_dropped": self.path.afterwards.dropped(),
            },
            "drills": drills,
            "stores": self.path.stores.load().len(),
            "alarms": shared.alarms.raised(),
        })
    }

    fn drain(&self) -> Value {
        let progress = &self.shared.progress;
        json!({
            "cursor": progress.cursor.load(Ordering::Relaxed),
            "backlog": self.shared.backlog(),
            "finalized": progress.finalized.load(Ordering::Relaxed),
            "already": progress.already.load(Ordering::Relaxed),
            "conflicts": progress.conflicts.load(Ordering::Relaxed),
        })
    }

    /// The node's status, with the name that its log has in the ledger and every member of its group.
    fn wal(&self) -> Value {
        let log = &self.shared.log;
        let status = log.status();
        let links = self.shared.links.as_ref().map(|links| links.status());
        let peers = links.map(|links| links.peers).unwrap_or_default();
        let members: Vec<Value> = log
            .members()
            .into_iter()
            .map(|(node, (member, votes))| {
                let peer = peers.iter().find(|peer| peer.node == node);
                let matched = status.matched.get(&node).copied();
                json!({
                    "node": node,
                    "role": if votes { "keeper" } else { "learner" },
                    "leads": status.leader == Some(node),
                    "is_this": status.node == node,
                    "address": member.address,
                    "log": member.log,
                    "link": peer.map(link),
                    "matched_index": matched,
                    "lag": matched.map(|matched| status.last_index.saturating_sub(matched)),
                })
            })
            .collect();
        let mut page = json!(status);
        if let Some(fields) = page.as_object_mut() {
            fields.insert("incarnation".to_owned(), json!(log.incarnation()));
            fields.insert("members".to_owned(), json!(members));
        }
        page
    }

    fn worst_case(&self) -> WorstCase {
        let grants = |register: &Register| {
            let amounts = register.grants().map(|(_, granted)| granted.reserve.amount);
            amounts.fold(0, i64::saturating_add)
        };
        let granted = self.shared.log.read(grants);
        WorstCase::new(&self.path.policy.load(), self.banks, granted)
    }

    fn exposure(&self, exposed_minor: i64) -> Value {
        let worst = self.worst_case();
        let reserves: Vec<Value> = self.shared.log.read(|register| {
            let grants = register.grants();
            grants
                .map(|(edge, granted)| json!({ "edge": edge, "reserve": granted.reserve }))
                .collect()
        });
        json!({
            "currency": self.path.policy.load().currency.code(),
            "approved_without_primary_minor": exposed_minor,
            "worst_case_minor": worst.sum(),
            "parts": {
                "stand_in_minor": worst.stand_in,
                "old_trips_minor": worst.old_trips,
                "reserves_minor": worst.reserves,
            },
            "reserves": reserves,
        })
    }

    pub(super) fn set_gauges(&self) {
        let shared = &self.shared;
        let metrics = &shared.metrics;
        let wal = shared.log.status();
        let (mode, counts) = shared
            .log
            .read(|register| (register.mode(), register.counts()));
        metrics.wal_space(wal.bytes_used, wal.budget_bytes);
        metrics.wal_place(&LogPlace {
            keepers: wal.keepers.len(),
            learners: wal.learners.len(),
            led: is_led(&wal),
            leads: wal.leader == Some(wal.node),
            term: wal.term,
            last_index: wal.last_index,
            applied_index: wal.applied_index,
            drained_index: shared.progress.cursor.load(Ordering::Relaxed),
            behind_max: wal
                .matched
                .values()
                .map(|matched| wal.last_index.saturating_sub(*matched))
                .max()
                .unwrap_or(0),
        });
        metrics.drain_backlog(shared.backlog());
        metrics.advices_waiting(shared.advices.waiting());
        metrics.corrections(counts.conflicts, counts.late, counts.released);
        metrics.stand_in_mode(mode);
        metrics.breaker(match shared.primary.position() {
            Position::Closed => BreakerState::Closed,
            Position::Open(_) => BreakerState::Open,
            Position::Ramp(_) => BreakerState::Ramping,
        });
        let currency = self.path.policy.load().currency;
        let worst = self.worst_case();
        let granted = shared.advices.granted().unwrap_or_default();
        for (which, minor) in [
            (Exposure::Now, counts.exposed_minor),
            (Exposure::WorstCase, worst.sum()),
            (Exposure::WorstStandIn, worst.stand_in),
            (Exposure::WorstOldTrips, worst.old_trips),
            (Exposure::WorstReserves, worst.reserves),
            (Exposure::Granted, granted.amount),
            (Exposure::Spent, shared.advices.spent().amount),
        ] {
            metrics.exposure(which, minor, currency);
        }
    }
}

// === impl WorstCase ===

impl WorstCase {
    fn new(policy: &Policy, banks: i64, granted: i64) -> Self {
        Self {
            stand_in: policy.stand_in.bank_outage.amount.saturating_mul(banks),
            old_trips: policy.isolated.reserve.amount,
            reserves: granted,
        }
    }

    fn sum(&self) -> i64 {
        let over_the_log = self.stand_in.saturating_add(self.old_trips);
        over_the_log.saturating_add(self.reserves)
    }
}

fn link(peer: &PeerStatus) -> Value {
    json!({
        "connected": peer.connected,
        "calls": peer.calls,
        "answered": peer.answered,
        "failed": peer.failed,
        "last_error": peer.last_error,
    })
}

/// The rung that the next request is likely answered on.
fn rung(mode: StandInMode, position: Position) -> &'static str {
    match (mode, position) {
        (StandInMode::Force, _) | (StandInMode::Auto, Position::Open(_)) => "stand_in",
        (StandInMode::Forbid, Position::Open(_)) => "refused",
        (StandInMode::Auto | StandInMode::Forbid, Position::Closed | Position::Ramp(_)) => {
            "primary"
        }
    }
}

fn breaker(position: Position) -> Value {
    match position {
        Position::Closed => json!({ "state": "closed", "admits_percent": 100 }),
        Position::Open(why) => json!({ "state": "open", "admits_percent": 0, "why": why.as_str() }),
        Position::Ramp(share) => json!({ "state": "ramp", "admits_percent": share }),
    }
}
