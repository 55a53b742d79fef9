//! An edge's admin listener, as a drill uses it: looks, and orders to play a fault and to end it.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use standin_edge::admin::Readiness;
use standin_edge::played::{Fault, Page, Shown};
use tokio::time::Instant;

use super::deployment::EdgeName;
use crate::admin::why_not;
use crate::client::{Call, Pool, Reply};
use crate::console::exposition::{Counters, sums};

/// How long a look may take.
const LOOK_WITHIN: Duration = Duration::from_secs(1);
/// How long an order may take.
const ORDER_WITHIN: Duration = Duration::from_secs(3);
/// How soon an order to end a fault is given again.
const AGAIN_AFTER: Duration = Duration::from_millis(300);
/// Requests without an answer for a reason of ours.
const OURS: [&str; 3] = ["unavailable", "internal", "faulted"];

/// An edge.
#[derive(Debug)]
pub(super) struct Desk {
    pool: Pool,
    /// Where it is, for what is said of it before it says its name.
    pub(super) at: String,
}

/// What an edge says at a moment.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    /// Its status page.
    pub(super) page: Value,
    /// Whether banks should be sent there.
    pub(super) ready: Readiness,
    /// What it plays.
    pub(super) drills: Page,
    /// What it has counted.
    pub(super) counters: Counters,
    /// Requests that got no answer for a reason of ours.
    pub(super) unanswered: u64,
}

/// An order that is given to several edges.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signed<'a> {
    pub(super) operator: &'a str,
    pub(super) reason: &'a str,
}

// === impl Desk ===

impl Desk {
    pub(super) const fn new(pool: Pool, at: String) -> Self {
        Self { pool, at }
    }

    /// Looks at everything.
    pub(super) async fn look(&self) -> anyhow::Result<Seen> {
        // Boxed: three exchanges in one future would be carried through every look.
        let get = |path: &'static str| {
            Box::pin(async move {
                let reply = self.pool.ask(Call::get(path), LOOK_WITHIN).await;
                reply.with_context(|| self.at.clone())
            })
        };
        let (page, ready, metrics) =
            tokio::try_join!(get("/statusz"), get("/readyz"), get("/metrics"))?;
        Seen::read(&page, &ready, &metrics).with_context(|| self.at.clone())
    }

    /// Has it play a fault.
    pub(super) async fn begin(
        &self,
        fault: Fault,
        lasts: Duration,
        by: Signed<'_>,
    ) -> anyhow::Result<Shown> {
        let mut order = json!(fault);
        order["for_ms"] = json!(lasts.as_millis());
        let reply = self.order("/drill/begin", order, by).await?;
        match reply.status {
            200 => Ok(serde_json::from_slice(&reply.body)?),
            status => bail!("{} refuses ({status}): {}", self.at, why(&reply)),
        }
    }

    /// Has it end the fault of this number, or whichever it plays, and hears it say that it plays none any
    /// more: again and again until `deadline`. Gives the fault as it was at its end.
    pub(super) async fn end(
        &self,
        number: Option<u64>,
        by: Signed<'_>,
        deadline: Instant,
    ) -> anyhow::Result<Option<Shown>> {
        loop {
            let tried = self.try_to_end(number, by).await;
            match tried {
                Ok(ended) => return Ok(ended),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(error) => tracing::debug!(%error, "a fault has not ended yet"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        }
    }

    async fn try_to_end(
        &self,
        number: Option<u64>,
        by: Signed<'_>,
    ) -> anyhow::Result<Option<Shown>> {
        let reply = self
            .order("/drill/end", json!({ "number": number }), by)
            .await?;
        if reply.status == 200 {
            return Ok(Some(serde_json::from_slice(&reply.body)?));
        }
        // None is played, or another one: this one is over.
        ensure!(
            reply.status == 409,
            "{} refuses ({}): {}",
            self.at,
            reply.status,
            why(&reply)
        );
        let last = self.look().await?.drills.last;
        Ok(last.filter(|last| number.is_none_or(|number| last.number == number)))
    }

    async fn order(
        &self,
        path: &'static str,
        mut order: Value,
        by: Signed<'_>,
    ) -> anyhow::Result<Reply> {
        order["operator"] = json!(by.operator);
        order["reason"] = json!(by.reason);
        let call = Call::post(path, serde_json::to_vec(&order)?);
        let reply = Box::pin(self.pool.ask(call, ORDER_WITHIN)).await;
        reply.with_context(|| self.at.clone())
    }
}

fn why(reply: &Reply) -> String {
    let problem: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
    why_not(&problem).to_owned()
}

// === impl Seen ===

impl Seen {
    fn read(page: &Reply, ready: &Reply, metrics: &Reply) -> anyhow::Result<Self> {
        ensure!(
            page.status == 200,
            "its status page is answered with {}",
            page.status
        );
        ensure!(
            metrics.status == 200,
            "its metrics are answered with {}",
            metrics.status
        );
        let page: Value = serde_json::from_slice(&page.body).context("its status page")?;
        let drills = page
            .get("drills")
            .context("it is of a build that plays no faults")?;
        let drills = serde_json::from_value(drills.clone()).context("what it plays")?;
        let text = String::from_utf8_lossy(&metrics.body);
        let refusals = sums(&text, "standin_refusals_total", "problem");
        let ours = OURS.iter().filter_map(|problem| refusals.get(*problem));
        Ok(Self {
            ready: serde_json::from_slice(&ready.body).context("whether it is ready")?,
            drills,
            counters: Counters::read(&text),
            unanswered: ours.fold(0, |sum, count| sum.saturating_add(*count)),
            page,
        })
    }

    /// Its name.
    pub(super) fn name(&self) -> anyhow::Result<EdgeName> {
        let region = self.page.get("region").and_then(Value::as_str);
        let edge = self.page.get("edge").and_then(Value::as_u64);
        let (region, edge) = region
            .zip(edge)
            .context("its status page does not say which edge it is")?;
        Ok(EdgeName {
            region: region.to_owned(),
            edge,
        })
    }

    /// A word of its status page.
    pub(super) fn word(&self, path: &str) -> &str {
        self.page
            .pointer(path)
            .and_then(Value::as_str)
            .unwrap_or("unknown")
    }

    /// A number of its status page.
    pub(super) fn number(&self, path: &str) -> u64 {
        self.page.pointer(path).and_then(Value::as_u64).unwrap_or(0)
    }

    /// The alarms that are raised, by name.
    pub(super) fn alarms(&self) -> Vec<&str> {
        let alarms = self.page.get("alarms").and_then(Value::as_array);
        let names = alarms.into_iter().flatten().map(|alarm| alarm.get("name"));
        names
            .map(|name| name.and_then(Value::as_str).unwrap_or("unknown"))
            .collect()
    }

    /// What speaks against all being well there.
    pub(super) fn troubles(&self) -> Vec<String> {
        let mut troubles = Vec::new();
        let ready = &self.ready;
        if !ready.ok {
            let why = ready.why.as_deref().unwrap_or("it does not say why");
            troubles.push(format!("is not ready: {why}"));
        }
        if !ready.fresh_trips {
            troubles.push("its trips are not fresh".to_owned());
        }
        match self.word("/breaker/position/state") {
            "closed" => {}
            state => troubles.push(format!("its breaker is {state}")),
        }
        match self.word("/stand_in/mode") {
            "auto" => {}
            mode => troubles.push(format!("an operator ordered {mode}")),
        }
        if self
            .page
            .pointer("/stand_in/outage")
            .is_none_or(|outage| !outage.is_null())
        {
            troubles.push("its log knows of an outage".to_owned());
        }
        let alarms = self.alarms();
        if !alarms.is_empty() {
            troubles.push(format!("alarms: {}", alarms.join(", ")));
        }
        if let Some(play) = &self.drills.playing {
            let (fault, operator) = (play.fault.as_str(), &play.operator);
            troubles.push(format!("it plays {fault} already, for {operator}"));
        }
        troubles
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// An edge at which all is well.
    pub(in crate::drill::on) fn well(edge: u64) -> Seen {
        let page = json!({
            "region": "near",
            "edge": edge,
            "rung": "primary",
            "stand_in": { "mode": "auto", "outage": null },
            "breaker": { "position": { "state": "closed" }, "changes": 2 },
            "drills": { "consent": true, "playing": null, "last": null },
            "alarms": [],
        });
        Seen {
            ready: Readiness {
                ok: true,
                why: None,
                decide: true,
                write_ahead: true,
                fresh_trips: true,
                stopping: false,
            },
            drills: serde_json::from_value(page["drills"].clone()).unwrap(),
            counters: Counters::default(),
            unanswered: 0,
            page,
        }
    }

    #[test]
    fn each_thing_that_is_not_well_is_told() {
        assert_eq!(well(1).troubles(), [""; 0]);
        let with = |path: &str, value: Value| {
            let mut seen = well(1);
            *seen.page.pointer_mut(path).unwrap() = value;
            seen.troubles()
        };
        let open = with("/breaker/position/state", json!("open"));
        assert_eq!(open, ["its breaker is open"]);
        assert_eq!(
            with("/stand_in/mode", json!("force")),
            ["an operator ordered force"]
        );
        let outage = with("/stand_in/outage", json!({"why": "timeout"}));
        assert_eq!(outage, ["its log knows of an outage"]);
        let alarms = with("/alarms", json!([{"name": "policy"}, {}]));
        assert_eq!(alarms, ["alarms: policy, unknown"]);
        let mut seen = well(1);
        seen.ready.ok = false;
        seen.ready.fresh_trips = false;
        assert_eq!(seen.troubles().len(), 2);
        // A page that does not say is not one on which all is well.
        seen = well(1);
        seen.page = json!({});
        assert_eq!(seen.troubles().len(), 3);
    }

    #[test]
    fn requests_without_an_answer_for_a_reason_of_the_senders_do_not_count() {
        let reply = |body: &str| Reply {
            status: 200,
            replayed: None,
            retry_after: None,
            stripe_version: None,
            body: body.to_owned().into(),
        };
        let ready = json!(well(1).ready).to_string();
        let metrics = r#"
standin_refusals_total{cause="deadline",problem="unavailable"} 2
standin_refusals_total{cause="log_full",problem="unavailable"} 3
standin_refusals_total{cause="",problem="unauthorized"} 100
standin_refusals_total{cause="",problem="internal"} 1
"#;
        let page = well(4).page.to_string();
        let seen = Seen::read(&reply(&page), &reply(&ready), &reply(metrics)).unwrap();
        assert_eq!(seen.unanswered, 6);
        assert_eq!(seen.name().unwrap().to_string(), "near/4");
        let old = Seen::read(&reply("{}"), &reply(&ready), &reply(metrics)).unwrap_err();
        assert!(old.to_string().contains("plays no faults"), "{old}");
    }
}
