//! A scenario over HTTP.

use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use standin_core::answer::Verdict;
use standin_core::money::Money;
use standin_core::signature::Scheme;

use super::super::format::{self, Format, Heard, Written, native, stripe};
use super::super::{Door, Payment, key_in_letters, listen};
use super::step::{Got, Sent, Step};
use super::{AGAIN_AFTER, AGAIN_MAX, Args, PARTIAL_MAX, Scenario};
use crate::client::{Call, CallError, Pool, Reply, Signer, Target};

/// One scenario against one edge.
pub(super) struct Play<'a> {
    door: &'a Door,
    target: Target,
    format: Format,
    scheme: Scheme,
    signer: Signer,
    pool: Pool,
    payment: Payment,
    key: String,
    patience: Duration,
    wait: Duration,
    /// What was done so far.
    pub(super) steps: Vec<Step>,
}

/// A reply, as a promise looks at it.
struct Seen<'a> {
    heard: &'a Heard,
    reply: &'a Reply,
}

// === impl Play ===

impl<'a> Play<'a> {
    pub(super) fn new(
        args: &'a Args,
        (format, target): (Format, Target),
        payment: Payment,
    ) -> anyhow::Result<Self> {
        let door = &args.door;
        Ok(Self {
            door,
            format,
            scheme: door.scheme(format),
            signer: door.signer(format, &target)?,
            pool: door.tls.pool(&target, 1)?,
            target,
            key: format::fresh_key(format),
            payment,
            patience: args.patience(),
            wait: Duration::from_millis(args.wait_ms),
            steps: Vec::new(),
        })
    }

    pub(super) async fn act(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        match scenario {
            Scenario::Approve => {
                if self.approve().await?.is_some() {
                    self.give_back(self.payment.money()?).await?;
                }
            }
            Scenario::Duplicate => self.duplicate().await?,
            Scenario::Reuse => self.reuse().await?,
            Scenario::OverCap => self.declined(&["over_cap", "INSUFFICIENT_FUNDS"]).await?,
            Scenario::WrongStore => {
                let reasons = ["wrong_store", "unknown_merchant", "UNAUTHORIZED_MERCHANT"];
                self.declined(&reasons).await?;
            }
            Scenario::UnknownCard => self.declined(&["unknown_card", "CARD_PAUSED"]).await?,
            Scenario::Forged => self.forged().await?,
            Scenario::Late => self.late().await?,
            Scenario::Timeout => self.timeout().await?,
            Scenario::Reversal => self.reversal().await?,
            Scenario::Partial => self.partial().await?,
        }
        Ok(())
    }

    async fn approve(&mut self) -> anyhow::Result<Option<Reply>> {
        let (format, written) = (self.format, self.asking()?);
        let call = self.call(written);
        let promised = match format {
            Format::Stripe => "approved, with Stripe-Version",
            Format::Native | Format::Lithic | Format::Marqeta => "approved",
        };
        self.step("a payment that fits", call, promised, |seen| {
            let version = seen.reply.stripe_version.as_deref();
            seen.is(Verdict::Approved)
                && !seen.is_replayed()
                && (format != Format::Stripe || version == Some(stripe::VERSION))
        })
        .await
    }

    async fn duplicate(&mut self) -> anyhow::Result<()> {
        let Some(first) = self.approve().await? else {
            return Ok(());
        };
        let written = self.asking()?;
        let call = self.call(written);
        let promised = "the same bytes, with Idempotent-Replayed: true";
        self.step("the same message again", call, promised, |seen| {
            seen.reply.body == first.body && seen.reply.status == first.status && seen.is_replayed()
        })
        .await?;
        self.give_back(self.payment.money()?).await
    }

    async fn reuse(&mut self) -> anyhow::Result<()> {
        if self.approve().await?.is_none() {
            return Ok(());
        }
        let (first, money) = (self.payment.clone(), self.payment.money()?);
        let more = Money::from_minor(money.minor().saturating_add(1), money.currency());
        self.payment.amount = more.to_decimal();
        let written = self.asking()?;
        let call = self.call(written);
        let format = self.format;
        let promised = match format {
            Format::Native => "422, transaction-id-reused",
            Format::Stripe => "approved: false, transaction-id-reused",
            Format::Lithic => "VELOCITY_EXCEEDED",
            Format::Marqeta => "402, DUPLICATE_TRANSACTION",
        };
        self.step("the same key, another amount", call, promised, |seen| {
            let reason = seen.reason();
            match format {
                Format::Native => {
                    seen.reply.status == 422 && reason.starts_with("transaction-id-reused")
                }
                Format::Stripe | Format::Marqeta => {
                    seen.is(Verdict::Declined) && reason == "transaction-id-reused"
                }
                Format::Lithic => seen.is(Verdict::Declined) && reason == "VELOCITY_EXCEEDED",
            }
        })
        .await?;
        self.payment = first;
        self.give_back(money).await
    }

    /// A decline for one of these reasons.
    async fn declined(&mut self, reasons: &[&str]) -> anyhow::Result<()> {
        let written = self.asking()?;
        let call = self.call(written);
        let promised = match reasons.first() {
            Some(&"over_cap") => "declined: more than the cap",
            Some(&"wrong_store") => "declined: not the trip's store",
            _ => "declined: nobody carries the card",
        };
        self.step("a payment that may not be", call, promised, |seen| {
            seen.is(Verdict::Declined) && reasons.contains(&seen.reason())
        })
        .await?;
        Ok(())
    }

    async fn forged(&mut self) -> anyhow::Result<()> {
        let secret = self.scheme.secret(&listen::fresh_secret(self.scheme));
        let forger = self.door.signer_with(self.scheme, secret?, &self.target);
        let written = self.asking()?;
        let call = self.call_by(&forger, written);
        let promised = "401, which says no more";
        self.step("signed with another secret", call, promised, |seen| {
            seen.reply.status == 401 && seen.reason() == "unauthorized"
        })
        .await?;
        Ok(())
    }

    async fn timeout(&mut self) -> anyhow::Result<()> {
        let written = self.asking()?;
        let call = self.call(written);
        let outcome = self.pool.stall(&call, self.patience).await;
        let promised = "408, and the connection closed";
        self.keep(
            "half of a body, and no more",
            &call,
            outcome,
            promised,
            |seen| seen.reply.status == 408,
        )?;
        Ok(())
    }

    async fn late(&mut self) -> anyhow::Result<()> {
        let written = self.asking()?;
        let call = self.call(written);
        self.pool
            .abandon(&call, self.wait)
            .await
            .context("the payment that the bank does not wait for")?;
        self.steps.push(Step {
            what: "a payment that the bank does not wait for",
            sent: Sent::request(&call),
            got: None,
            no_reply: None,
            promised: "decided all the same",
            kept: true,
        });
        match self.format {
            Format::Native => {
                let (tail, body) = native::timed_out(&self.key)?;
                let id = format!("msg_{}", key_in_letters());
                let told = Written { tail, body, id };
                let promised = "reversed, or forbidden where it had not come";
                self.take_back("the bank says that it gave up", told, promised)
                    .await
            }
            Format::Marqeta => self.give_back(self.payment.money()?).await,
            Format::Stripe | Format::Lithic => {
                let written = self.asking()?;
                let call = self.call(written);
                let promised = "approved: the answer that it did not wait for";
                self.step("the same message again", call, promised, |seen| {
                    seen.is(Verdict::Approved)
                })
                .await?;
                Ok(())
            }
        }
    }

    async fn reversal(&mut self) -> anyhow::Result<()> {
        if self.approve().await?.is_none() {
            return Ok(());
        }
        let money = self.payment.money()?;
        let half = Money::from_minor(money.minor() / 2, money.currency());
        let rest = money.minor().saturating_sub(half.minor());
        let (part, other) = (key_in_letters(), key_in_letters());
        let mut first = None;
        for (what, key, amount) in [
            ("half of it is taken back", &part, half.minor()),
            ("the same reversal again", &part, half.minor()),
            ("the rest is taken back", &other, rest),
        ] {
            let amount = Money::from_minor(amount, money.currency());
            let written = self.taking_back(key, amount)?;
            let call = self.call(written);
            let before = first.take();
            let promised = "as much came back; the same again says the same";
            let reply = self.step(what, call, promised, |seen| {
                let same = before.as_ref().is_none_or(|before: &Bytes| {
                    what != "the same reversal again" || *before == seen.reply.body
                });
                seen.gave_back() && seen.heard.says(amount) && same
            });
            let Some(reply) = reply.await? else {
                return Ok(());
            };
            first = Some(reply.body);
        }
        Ok(())
    }

    async fn partial(&mut self) -> anyhow::Result<()> {
        let what = "more than fits, by a bank that takes less";
        let promised = "approved for less (where the bank's partial_approvals is taken)";
        let mut reply = None;
        for again in 0..PARTIAL_MAX {
            if again > 0 {
                // What was given back a moment ago may not have reached the primary.
                tokio::time::sleep(AGAIN_AFTER).await;
                self.steps.clear();
                self.key = format::fresh_key(self.format);
            }
            let written = self.asking()?;
            let call = self.call(written);
            let kept = |seen: &Seen<'_>| seen.is(Verdict::Approved) && seen.heard.amount.is_some();
            reply = self.step(what, call, promised, kept).await?;
            if reply.is_some() {
                break;
            }
        }
        let heard = reply.map(|reply| format::heard(self.format, &reply));
        let Some(amount) = heard.and_then(|heard| heard.amount) else {
            return Ok(());
        };
        if matches!(self.format, Format::Native | Format::Marqeta) {
            let currency = self.payment.money()?.currency();
            self.give_back(Money::parse(&amount, currency)?).await?;
        }
        Ok(())
    }

    /// So that it can be done again; formats without the words leave it.
    async fn give_back(&mut self, amount: Money) -> anyhow::Result<()> {
        let reversal = key_in_letters();
        let (format, payment) = (self.format, &self.payment);
        let Some(told) = format::reversal(format, payment, &self.key, &reversal, amount)? else {
            return Ok(());
        };
        let promised = "it comes back to the cart, or is forbidden where it had not come";
        self.take_back("the payment is taken back", told, promised)
            .await
    }

    /// Until the edge knows what it is about.
    async fn take_back(
        &mut self,
        what: &'static str,
        written: Written,
        promised: &'static str,
    ) -> anyhow::Result<()> {
        let mut call = self.call(written.clone());
        let mut outcome = self.pool.ask(call.clone(), self.patience).await;
        for _ in 0..AGAIN_MAX {
            if !matches!(&outcome, Ok(reply) if reply.status == 503) {
                break;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            call = self.call(written.clone());
            outcome = self.pool.ask(call.clone(), self.patience).await;
        }
        self.keep(what, &call, outcome, promised, |seen| {
            seen.gave_back() || seen.reason() == "forbidden"
        })?;
        Ok(())
    }

    fn asking(&self) -> anyhow::Result<Written> {
        format::authorization(self.format, &self.payment, &self.key)
    }

    fn taking_back(&self, key: &str, amount: Money) -> anyhow::Result<Written> {
        let written = format::reversal(self.format, &self.payment, &self.key, key, amount)?;
        written.context("nothing is taken back in this format")
    }

    fn call(&self, written: Written) -> Call {
        self.call_by(&self.signer, written)
    }

    fn call_by(&self, signer: &Signer, written: Written) -> Call {
        let Written { tail, body, id } = written;
        Call::post(format!("{}{tail}", self.door.path()), body).signed_as(signer, &id)
    }

    async fn step(
        &mut self,
        what: &'static str,
        call: Call,
        promised: &'static str,
        kept: impl Fn(&Seen<'_>) -> bool,
    ) -> anyhow::Result<Option<Reply>> {
        let outcome = self.pool.ask(call.clone(), self.patience).await;
        self.keep(what, &call, outcome, promised, kept)
    }

    /// Writes a step down; gives its reply, if that was what is promised.
    fn keep(
        &mut self,
        what: &'static str,
        call: &Call,
        outcome: Result<Reply, CallError>,
        promised: &'static str,
        kept: impl Fn(&Seen<'_>) -> bool,
    ) -> anyhow::Result<Option<Reply>> {
        if let Err(error @ CallError::Request(_)) = outcome {
            return Err(error.into());
        }
        let (heard, no_reply) = match &outcome {
            Ok(reply) => (format::heard(self.format, reply), None),
            Err(error) => (Heard::default(), Some(error.to_string())),
        };
        let reply = outcome.ok();
        let kept = reply.as_ref().is_some_and(|reply| {
            kept(&Seen {
                heard: &heard,
                reply,
            })
        });
        self.steps.push(Step {
            what,
            sent: Sent::request(call),
            got: reply.as_ref().map(|reply| Got::reply(reply, heard)),
            no_reply,
            promised,
            kept,
        });
        Ok(reply.filter(|_| kept))
    }
}

// === impl Seen ===

impl Seen<'_> {
    fn is(&self, verdict: Verdict) -> bool {
        self.heard.verdict == Some(verdict)
    }

    fn is_replayed(&self) -> bool {
        self.reply.replayed.as_deref() == Some("true")
    }

    fn reason(&self) -> &str {
        self.heard.reason.as_deref().unwrap_or_default()
    }

    /// Money came back.
    fn gave_back(&self) -> bool {
        self.reply.status == 200 && matches!(self.reason(), "reversed" | "taken_back")
    }
}
