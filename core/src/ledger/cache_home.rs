//! Which Redis is the home of the trip cache, and how another one becomes it.

use uuid::Uuid;

use super::AuditRow;
use super::rows::without_nul;
use crate::clock::Timestamp;

/// The home of the trip cache.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CacheHome {
    /// Raised with each promotion; 0 before the first. A Redis of a lower one is of the past.
    pub epoch: u64,
    /// Host and port, without secrets; empty before the first promotion.
    pub address: String,
}

/// An operator's order that another Redis be the home of the trip cache.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CachePromotion {
    /// Names the order in the audit.
    pub id: Uuid,
    /// Host and port of the new home.
    pub to: String,
    /// The epoch that this Redis shows.
    pub epoch_seen: u64,
    /// Who orders it.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// When.
    pub at: Timestamp,
}

// === impl CachePromotion ===

impl CachePromotion {
    /// The home after it. Ordered again, after a crash half way, it is the same home of the same epoch.
    pub(super) fn on(&self, home: &CacheHome) -> CacheHome {
        if home.address == self.to && home.epoch >= self.epoch_seen {
            return home.clone();
        }
        CacheHome {
            epoch: home.epoch.max(self.epoch_seen).saturating_add(1),
            address: without_nul(&self.to),
        }
    }

    /// Its row in the audit, of the home that came of it.
    pub(super) fn audit(&self, home: &CacheHome) -> AuditRow {
        let CacheHome { epoch, address } = home;
        AuditRow {
            at: self.at,
            operator: without_nul(&self.operator),
            action: format!("trips.promote_home {address} epoch {epoch}"),
            reason: without_nul(&self.reason),
        }
    }
}
