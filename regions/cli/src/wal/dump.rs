//! `standin wal dump`: the entries of a log, one a line.

use std::path::PathBuf;

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use standin_core::clock::Timestamp;
use standin_core::entry::{Entry, OperatorOrder, PlatformEvent, Proposal};
use standin_wal::inspect::{self, FrameReport};

use super::verify::whole_text;
use crate::out::say;

/// Prints the entries of a log, one a line, as they were written.
///
/// Of a payment it prints who asked, what was proposed and how much; never what the bank wrote of the
/// merchant, what is in the cart or where the shopper was. The final answer of a payment is what
/// applying its first entry said: ask the edge, or the ledger. A line `truncation` takes back
/// everything from its index on that stands above it. The folder may be in use.
///
/// Exit code: 0 printed, 1 the log is damaged from some place on, 2 it cannot be read.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin wal dump --dir /var/lib/standin/wal --from 1000 --to 1010
  standin wal dump --dir /var/lib/standin/wal --payments --json | jq -r .transaction_id")]
pub(super) struct Args {
    /// The folder of a region's log.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// First index.
    #[arg(long, value_name = "INDEX", default_value_t = 0)]
    from: u64,
    /// Last index.
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
    /// Only what was said of payments: answers, advices, reversals, tombstones.
    #[arg(long)]
    payments: bool,
    /// JSON lines.
    #[arg(long)]
    json: bool,
}

/// One line.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    index: u64,
    /// Its place in the entry of the log.
    slot: usize,
    term: u64,
    /// Log time, RFC 3339; absent where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    pub(super) kind: &'static str,
    #[serde(flatten)]
    pub(super) about: Value,
    #[serde(skip)]
    is_payment: bool,
}

/// What an entry is, without anything that must not be printed.
struct About {
    kind: &'static str,
    is_payment: bool,
    fields: Value,
}

// === impl Args ===

impl Args {
    pub(super) fn run(self) -> anyhow::Result<u8> {
        self.lines(&mut |line| {
            if self.json {
                say(serde_json::to_string(line)?);
            } else {
                say(line.for_people());
            }
            Ok(())
        })
    }

    pub(super) fn lines(
        &self,
        print: &mut dyn FnMut(&Line) -> anyhow::Result<()>,
    ) -> anyhow::Result<u8> {
        let frames = match inspect::frames(&self.dir, 0) {
            Ok(frames) => frames,
            Err(error) => {
                eprintln!("standin: {}: {}", self.dir.display(), whole_text(&error));
                return Ok(2);
            }
        };
        for frame in frames {
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => {
                    eprintln!("standin: {}", whole_text(&error));
                    return Ok(1);
                }
            };
            if frame.index < self.from || frame.index > self.to {
                continue;
            }
            for line in lines_of(&frame) {
                if line.is_payment || !self.payments {
                    print(&line)?;
                }
            }
        }
        // In the last segment damage looks like the end of a log that is in use.
        let report = inspect::examine(&self.dir);
        let damage = report.map(|report| report.damage).unwrap_or_default();
        for damage in &damage {
            let (file, offset, what) = (&damage.file, damage.offset, &damage.what);
            eprintln!("standin: {file} is damaged at byte {offset}: {what}");
        }
        Ok(u8::from(!damage.is_empty()))
    }
}

// === impl Line ===

impl Line {
    fn for_people(&self) -> String {
        let Self {
            index,
            slot,
            term,
            kind,
            ..
        } = self;
        let time = self.time.as_deref().unwrap_or("-");
        let fields = self.about.as_object().into_iter().flatten();
        let fields =
            fields
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| match value {
                    Value::String(text) => format!(" {name}={text:?}"),
                    value => format!(" {name}={value}"),
                });
        let fields: String = fields.collect();
        format!("{index:>8}.{slot:<3} term {term:<3} {time:<24} {kind:<14}{fields}")
    }
}

fn lines_of(frame: &FrameReport) -> Vec<Line> {
    let line = |slot, about: About| Line {
        index: frame.index,
        slot,
        term: frame.term,
        time: time(frame.log_time_ms),
        kind: about.kind,
        is_payment: about.is_payment,
        about: about.fields,
    };
    if frame.kind != "proposals" {
        let about = About {
            kind: frame.kind,
            is_payment: false,
            fields: json!({}),
        };
        return vec![line(0, about)];
    }
    let contents = frame.contents.iter().enumerate();
    contents
        .map(|(slot, bytes)| line(slot, About::bytes(bytes)))
        .collect()
}

fn time(log_time_ms: u64) -> Option<String> {
    let millis = i64::try_from(log_time_ms).ok().filter(|millis| *millis > 0);
    millis.map(|millis| Timestamp::from_millis(millis).to_string())
}

// === impl About ===

impl About {
    fn bytes(bytes: &Bytes) -> Self {
        match Entry::decode(bytes) {
            Ok(entry) => Self::entry(&entry),
            // The edge's own log has records of its own; or a newer build wrote it.
            Err(_) => Self {
                kind: "unreadable",
                is_payment: false,
                fields: json!({ "bytes": bytes.len() }),
            },
        }
    }

    fn entry(entry: &Entry) -> Self {
        let payment = |kind, fields| Self {
            kind,
            is_payment: true,
            fields,
        };
        let other = |kind, fields| Self {
            kind,
            is_payment: false,
            fields,
        };
        match entry {
            Entry::Authorize(proposal) => payment("authorize", proposed(proposal)),
            Entry::Advice(advice) => {
                let mut fields = proposed(&advice.proposal);
                if let Some(fields) = fields.as_object_mut() {
                    let told = advice.answer.verdict.as_str();
                    fields.insert("told".to_owned(), json!(told));
                    let given_at = advice.given_at.to_string();
                    fields.insert("given_at".to_owned(), json!(given_at));
                }
                payment("advice", fields)
            }
            Entry::Late(mark) => payment(
                "late",
                json!({ "transaction_id": mark.transaction_id.to_string(), "edge": mark.edge }),
            ),
            Entry::Tombstone(id) => payment("tombstone", of_payment(id)),
            Entry::Faulted(id) => payment("faulted", of_payment(id)),
            Entry::Heard(id) => payment("heard", of_payment(id)),
            Entry::Told(id) => payment("told", of_payment(id)),
            Entry::Reverse(reversal) => payment(
                "reverse",
                json!({
                    "transaction_id": reversal.transaction_id.to_string(),
                    "amount": reversal.amount,
                    "cause": reversal.cause,
                }),
            ),
            Entry::TripClosed(trip) => other("trip_closed", json!({ "trip": trip.0 })),
            Entry::OutageStarted { edge, why } => other(
                "outage_started",
                json!({ "edge": edge, "why": why.as_str() }),
            ),
            Entry::OutageEnded { edge } => other("outage_ended", json!({ "edge": edge })),
            Entry::Drained(index) => other("drained", json!({ "up_to": index })),
            Entry::Operator(action) => other(
                "operator",
                json!({
                    "operator": action.operator,
                    "reason": action.reason,
                    "order": ordered(&action.what),
                }),
            ),
            Entry::Platform(event) => other("platform", json!({ "event": platform(event) })),
            Entry::Grant(grant) => other(
                "grant",
                json!({ "edge": grant.edge, "reserve": grant.reserve }),
            ),
            Entry::Founded(log) => other("founded", json!({ "log": log })),
            Entry::Settled(settlement) => other("settled", json!(settlement)),
            Entry::LedgerEpoch(epoch) => other("ledger_epoch", json!({ "epoch": epoch })),
        }
    }
}

fn of_payment(id: &standin_core::id::TransactionId) -> Value {
    json!({ "transaction_id": id.to_string() })
}

/// What was proposed of a payment: nothing of the merchant, the cart or the place.
fn proposed(proposal: &Proposal) -> Value {
    let amount = proposal.request.amount;
    json!({
        "transaction_id": proposal.transaction_id.to_string(),
        "bank": proposal.request.bank.as_str(),
        "shopper": proposal.request.shopper.to_string(),
        "amount_minor": amount.minor(),
        "currency": amount.currency().code(),
        "proposed": proposal.reason.verdict().as_str(),
        "reason": proposal.reason.as_str(),
        "rung": proposal.rung.as_str(),
        "why": proposal.why.map(|why| why.as_str()),
        "edge": proposal.edge,
        "trip": proposal.trip.as_ref().map(|trip| trip.id.0),
        "cap": proposal.cap,
        "approved_before": proposal.approved_before,
    })
}

fn ordered(order: &OperatorOrder) -> String {
    match order {
        OperatorOrder::StandIn(mode) => format!("stand_in.{}", mode.as_str()),
        OperatorOrder::ClearAnswer(id) => format!("answer.clear {id}"),
        OperatorOrder::Tombstone(id) => format!("hold.tombstone {id}"),
        OperatorOrder::AddKeeper { node, .. } => format!("keeper.add {node}"),
        OperatorOrder::RemoveKeeper { node, .. } => format!("keeper.remove {node}"),
        OperatorOrder::Policy { version, .. } => format!("policy.take {version}"),
    }
}

fn platform(event: &PlatformEvent) -> &'static str {
    match event {
        PlatformEvent::StorePut(_) => "store_put",
        PlatformEvent::OrderPlaced(_) => "order_placed",
        PlatformEvent::OrderClaimed { .. } => "order_claimed",
        PlatformEvent::TripStarted { .. } => "trip_started",
        PlatformEvent::TripChanged(_) => "trip_changed",
        PlatformEvent::TripCompleted { .. } => "trip_completed",
        PlatformEvent::CardSet { .. } => "card_set",
        PlatformEvent::MerchantIdPut(_) => "merchant_id_put",
        PlatformEvent::MerchantIdRemoved(_) => "merchant_id_removed",
    }
}
