//! What the console reads of an edge's `/statusz`. What is not there is left out, and what is not
//! known here is passed over: edges of other builds can be looked at.

use serde::{Deserialize, Serialize};

/// Alarms of one edge that are shown; further ones are not.
const ALARMS_MAX: usize = 32;
/// Characters shown of a text of an edge's.
pub const TEXT_MAX: usize = 300;

/// An edge's page.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct EdgePage {
    /// Its region.
    pub region: String,
    /// Its number there.
    pub edge: u64,
    /// The rung that its next request is likely answered on.
    pub rung: String,
    /// Whether it stands in, and since when.
    pub stand_in: StandIn,
    /// Whether the primary is asked.
    pub breaker: Breaker,
    /// The log.
    pub wal: Wal,
    /// Answers given without the log.
    pub advices: Advices,
    /// From the log to the ledger.
    pub drain: Drain,
    /// Money at risk, of its region.
    pub exposure: Exposure,
    /// The trip cache.
    pub trip_cache: TripCache,
    /// What somebody should know of.
    pub alarms: Vec<Alarm>,
}

/// Who decides about standing in, and the outage that the log knows of.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct StandIn {
    /// `auto`, `force`, `forbid`.
    pub mode: String,
    /// The outage under way.
    pub outage: Option<Outage>,
    /// Recent outages, the oldest first; that one among them.
    pub outages: Vec<PastOutage>,
}

/// An outage of the primary as the log has it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PastOutage {
    /// Where in the log it began.
    pub from_index: u64,
    /// Where it ended, and when; absent while it is on.
    pub until: Option<(u64, u64)>,
}

/// An outage of the primary.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Outage {
    /// Why it began.
    pub why: String,
}

/// The breaker.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Breaker {
    /// Where it stands.
    pub position: Position,
}

/// Where the breaker stands.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Position {
    /// `closed`, `open`, `ramp`.
    pub state: String,
    /// Share of requests on which the primary is asked.
    pub admits_percent: u64,
    /// Why it is open.
    pub why: Option<String>,
}

/// The log, as this edge knows it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Wal {
    /// Which log.
    pub incarnation: String,
    /// This edge's number in it.
    pub node: u64,
    /// Its term.
    pub term: u64,
    /// Who leads.
    pub leader: Option<u64>,
    /// Who votes.
    pub keepers: Vec<u64>,
    /// Who only hears.
    pub learners: Vec<u64>,
    /// Last entry here.
    pub last_index: u64,
    /// Last entry applied here.
    pub applied_index: u64,
    /// Bytes in use.
    pub bytes_used: u64,
    /// Bytes it may use.
    pub budget_bytes: u64,
}

/// Answers given without the log.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Advices {
    /// That the log does not have yet.
    pub waiting: u64,
}

/// From the log to the ledger.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Drain {
    /// The last entry that the ledger has.
    pub cursor: u64,
    /// Committed entries that it does not have.
    pub backlog: u64,
    /// Outcomes that did not fit the ledger, since this edge started.
    pub conflicts: u64,
}

/// Money at risk, minor units.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Exposure {
    /// Their currency.
    pub currency: String,
    /// Approved beyond what a healthy ledger would have allowed.
    pub approved_without_primary_minor: i64,
    /// The most that one outage can come to.
    pub worst_case_minor: i64,
    /// What that is made of.
    pub parts: Parts,
}

/// Parts of the worst case, minor units.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Parts {
    /// The banks' limits while standing in.
    pub stand_in_minor: i64,
    /// For trips that are too old.
    pub old_trips_minor: i64,
    /// Granted to edges for when they are cut off.
    pub reserves_minor: i64,
}

/// The trip cache.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TripCache {
    /// How old its heartbeat is; absent when it gave none.
    pub age_ms: Option<u64>,
}

/// An alarm that is raised.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Alarm {
    /// Its name.
    pub name: String,
    /// Since when, RFC 3339.
    pub since: String,
    /// What is the matter.
    pub detail: String,
}

// === impl EdgePage ===

impl EdgePage {
    /// Reads a page, with its texts cut to what is shown.
    ///
    /// # Errors
    /// When it is not JSON, or a field is not what it should be.
    pub fn read(body: &[u8]) -> Result<Self, serde_json::Error> {
        let mut page: Self = serde_json::from_slice(body)?;
        page.alarms.truncate(ALARMS_MAX);
        for alarm in &mut page.alarms {
            for text in [&mut alarm.name, &mut alarm.since, &mut alarm.detail] {
                *text = cut(text);
            }
        }
        for text in [&mut page.region, &mut page.rung, &mut page.stand_in.mode] {
            *text = cut(text);
        }
        Ok(page)
    }
}

/// The first characters of a text.
pub fn cut(text: &str) -> String {
    text.chars().take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_build_reads() {
        let page = EdgePage::read(br#"{"region":"east","new":{"a":1},"alarms":[{}]}"#).unwrap();
        assert_eq!(page.region, "east");
        assert_eq!(page.alarms, [Alarm::default()]);
        assert_eq!(page.trip_cache.age_ms, None);
        assert!(EdgePage::read(b"<html>").is_err());
        assert!(EdgePage::read(br#"{"edge":"one"}"#).is_err());
    }

    #[test]
    fn what_is_shown_of_an_edge_is_bounded() {
        let alarm = serde_json::json!({"name": "x", "detail": "y".repeat(5_000)});
        let page = serde_json::json!({"alarms": vec![alarm; 100]}).to_string();
        let page = EdgePage::read(page.as_bytes()).unwrap();
        assert_eq!(page.alarms.len(), 32);
        assert_eq!(page.alarms[0].detail.len(), 300);
    }
}
