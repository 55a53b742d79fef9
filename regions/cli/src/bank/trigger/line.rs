//! A scenario in messages of ISO 8583.

use std::time::Duration;

use anyhow::Context;
use standin_core::money::Money;
use standin_edge::iso8583::{Message, Mti};

use super::super::Payment;
use super::super::format::iso8583::{
    self, APPROVED, APPROVED_IN_PART, Agreed, AnswerError, INOPERATIVE, Name,
};
use super::step::{Got, Sent, Step};
use super::{AGAIN_AFTER, AGAIN_MAX, Args, PARTIAL_MAX, Scenario};
use crate::client::line::{LineError, LineTarget, Lines};

/// One scenario against one edge.
pub(super) struct Play {
    lines: Lines,
    /// Who has no certificate.
    nobodys: Lines,
    agreed: Agreed,
    payment: Payment,
    /// Of the payment.
    name: Name,
    patience: Duration,
    wait: Duration,
    /// What was done so far.
    pub(super) steps: Vec<Step>,
}

type Replied = Result<Message, NoReply>;

/// Why there is no reply.
#[derive(Debug, thiserror::Error)]
enum NoReply {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Odd(#[from] AnswerError),
}

// === impl Play ===

impl Play {
    pub(super) fn new(args: &Args, target: &LineTarget, payment: Payment) -> anyhow::Result<Self> {
        let tls = &args.door.tls;
        Ok(Self {
            lines: tls.lines(target)?,
            nobodys: tls.of_nobody().lines(target)?,
            agreed: args.agreed,
            payment,
            name: Name::fresh(),
            patience: args.patience(),
            wait: Duration::from_millis(args.wait_ms),
            steps: Vec::new(),
        })
    }

    pub(super) async fn act(&mut self, scenario: Scenario) -> anyhow::Result<()> {
        match scenario {
            Scenario::Approve => {
                if self.approve().await?.is_some() {
                    self.give_back().await?;
                }
                Ok(())
            }
            Scenario::Duplicate => self.duplicate().await,
            Scenario::Reuse => self.reuse().await,
            Scenario::OverCap => self.over_cap().await,
            Scenario::WrongStore => self.declined("03", "03: not the trip's store").await,
            Scenario::UnknownCard => self.declined("14", "14: nobody carries the card").await,
            Scenario::Forged => self.forged().await,
            Scenario::Late => self.late().await,
            Scenario::Timeout => self.timeout().await,
            Scenario::Reversal => self.reversal().await,
            Scenario::Partial => self.partial().await,
        }
    }

    async fn approve(&mut self) -> anyhow::Result<Option<Message>> {
        let asked = self.asking(Mti::AuthorizationRequest)?;
        let promised = "00, with an approval code";
        self.step("a payment that fits", &asked, promised, |reply| {
            has_code(reply, APPROVED) && reply.text(38).is_some()
        })
        .await
    }

    async fn duplicate(&mut self) -> anyhow::Result<()> {
        let Some(first) = self.approve().await? else {
            return Ok(());
        };
        for (what, mti) in [
            ("the same message again", Mti::AuthorizationRequest),
            ("the same as a repeat", Mti::AuthorizationRepeat),
        ] {
            let asked = self.asking(mti)?;
            let promised = "the same answer, bit by bit";
            self.step(what, &asked, promised, |reply| *reply == first)
                .await?;
        }
        self.give_back().await
    }

    async fn reuse(&mut self) -> anyhow::Result<()> {
        if self.approve().await?.is_none() {
            return Ok(());
        }
        let (first, money) = (self.payment.clone(), self.payment.money()?);
        let more = Money::from_minor(money.minor().saturating_add(1), money.currency());
        self.payment.amount = more.to_decimal();
        let asked = self.asking(Mti::AuthorizationRequest)?;
        let what = "the same trace number and time, another amount";
        self.step(what, &asked, "94", |reply| has_code(reply, "94"))
            .await?;
        self.payment = first;
        self.give_back().await
    }

    /// Whether less will do is the bank's configuration's to say, so that both may be right.
    async fn over_cap(&mut self) -> anyhow::Result<()> {
        let money = self.payment.money()?;
        let asked = self.asking(Mti::AuthorizationRequest)?;
        let promised = "61; or 10 and less, where the bank's partial_approvals is taken";
        let reply = self.step("a payment that may not be", &asked, promised, |reply| {
            has_code(reply, "61") || is_for_less(reply, money)
        });
        match reply.await? {
            Some(reply) if is_for_less(&reply, money) => self.give_part_back(&reply).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn declined(&mut self, code: &str, promised: &'static str) -> anyhow::Result<()> {
        let asked = self.asking(Mti::AuthorizationRequest)?;
        let what = "a payment that may not be";
        self.step(what, &asked, promised, |reply| has_code(reply, code))
            .await?;
        Ok(())
    }

    /// First with the certificate, so that what follows is not for want of an edge.
    async fn forged(&mut self) -> anyhow::Result<()> {
        let echo = iso8583::echo(&Name::fresh())?;
        let heard = self.step(
            "an echo, with the bank's certificate",
            &echo,
            "00",
            |reply| has_code(reply, APPROVED),
        );
        if heard.await?.is_none() {
            return Ok(());
        }
        let asked = self.asking(Mti::AuthorizationRequest)?;
        let what = "a payment, with no certificate";
        let replied = self.sent_by(&self.nobodys, &asked).await;
        self.keep_cut(what, &asked, replied);
        Ok(())
    }

    async fn timeout(&mut self) -> anyhow::Result<()> {
        let asked = self.asking(Mti::AuthorizationRequest)?;
        let bytes = asked.encode(self.agreed.encoding);
        let came = self.lines.stall(&bytes, self.patience).await;
        let replied = self.read(&asked, came);
        self.keep_cut("half of a message, and no more", &asked, replied);
        Ok(())
    }

    async fn late(&mut self) -> anyhow::Result<()> {
        let asked = self.asking(Mti::AuthorizationRequest)?;
        let bytes = asked.encode(self.agreed.encoding);
        let what = "a payment that the bank does not wait for";
        let left = self.lines.abandon(&bytes, self.wait, self.patience).await;
        let no_reply = left.err().map(|error| error.to_string());
        let is_sent = no_reply.is_none();
        self.steps.push(Step {
            what,
            sent: Sent::message(&asked),
            got: None,
            no_reply,
            promised: "decided all the same",
            kept: is_sent,
        });
        if !is_sent {
            return Ok(());
        }
        let told = self.taking_back(Mti::ReversalAdvice, &Name::fresh(), None)?;
        let promised = "00: it comes back to the cart, or is forbidden where it had not come";
        self.take_back("the bank says that it gave up", &told, promised)
            .await
    }

    async fn reversal(&mut self) -> anyhow::Result<()> {
        if self.approve().await?.is_none() {
            return Ok(());
        }
        let money = self.payment.money()?;
        let half = Money::from_minor(money.minor() / 2, money.currency());
        let (part, rest) = (Name::fresh(), Name::fresh());
        for (what, mti, name, left) in [
            (
                "half of it is taken back",
                Mti::ReversalRequest,
                &part,
                Some(half),
            ),
            (
                "the same reversal again",
                Mti::ReversalRepeat,
                &part,
                Some(half),
            ),
            ("the rest is taken back", Mti::ReversalRequest, &rest, None),
        ] {
            let told = self.taking_back(mti, name, left)?;
            let kept = self.step(what, &told, "00", |reply| has_code(reply, APPROVED));
            if kept.await?.is_none() {
                break;
            }
        }
        Ok(())
    }

    async fn partial(&mut self) -> anyhow::Result<()> {
        let what = "more than fits, by a bank that takes less";
        let promised = "10 and less (where the bank's partial_approvals is taken)";
        let money = self.payment.money()?;
        for again in 0..PARTIAL_MAX {
            if again > 0 {
                // What was given back a moment ago may not have reached the primary.
                tokio::time::sleep(AGAIN_AFTER).await;
                self.steps.clear();
                self.name = Name::fresh();
            }
            let asked = self.asking(Mti::AuthorizationRequest)?;
            let reply = self.step(what, &asked, promised, |reply| is_for_less(reply, money));
            if let Some(reply) = reply.await? {
                return self.give_part_back(&reply).await;
            }
        }
        Ok(())
    }

    /// So that it can be done again.
    async fn give_back(&mut self) -> anyhow::Result<()> {
        let told = self.taking_back(Mti::ReversalRequest, &Name::fresh(), None)?;
        let promised = "00: it comes back to the cart, or is forbidden where it had not come";
        self.take_back("the payment is taken back", &told, promised)
            .await
    }

    /// What was approved is the payment's amount from then on.
    async fn give_part_back(&mut self, reply: &Message) -> anyhow::Result<()> {
        let part = iso8583::money(reply).context("the approval has no amount")?;
        self.payment.amount = part.to_decimal();
        self.give_back().await
    }

    /// Until the edge knows what it is about.
    async fn take_back(
        &mut self,
        what: &'static str,
        told: &Message,
        promised: &'static str,
    ) -> anyhow::Result<()> {
        let mut replied = self.sent_by(&self.lines, told).await;
        for _ in 0..AGAIN_MAX {
            if !matches!(&replied, Ok(reply) if has_code(reply, INOPERATIVE)) {
                break;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            replied = self.sent_by(&self.lines, told).await;
        }
        self.keep(what, told, replied, promised, |reply| {
            has_code(reply, APPROVED)
        });
        Ok(())
    }

    fn asking(&self, mti: Mti) -> anyhow::Result<Message> {
        let layout = self.agreed.card_acceptor;
        iso8583::authorization(mti, &self.payment, &self.name, layout)
    }

    fn taking_back(&self, mti: Mti, name: &Name, left: Option<Money>) -> anyhow::Result<Message> {
        let layout = self.agreed.card_acceptor;
        iso8583::reversal(mti, &self.payment, &self.name, name, left, layout)
    }

    async fn sent_by(&self, lines: &Lines, message: &Message) -> Replied {
        let bytes = message.encode(self.agreed.encoding);
        let came = lines.ask(&bytes, self.patience).await;
        self.read(message, came)
    }

    fn read(&self, asked: &Message, came: Result<Vec<u8>, LineError>) -> Replied {
        Ok(iso8583::answer(asked, &came?, self.agreed)?)
    }

    async fn step(
        &mut self,
        what: &'static str,
        message: &Message,
        promised: &'static str,
        kept: impl Fn(&Message) -> bool,
    ) -> anyhow::Result<Option<Message>> {
        let replied = self.sent_by(&self.lines, message).await;
        Ok(self.keep(what, message, replied, promised, kept))
    }

    /// Writes a step down; gives its reply, if that was what is promised.
    fn keep(
        &mut self,
        what: &'static str,
        message: &Message,
        replied: Replied,
        promised: &'static str,
        kept: impl Fn(&Message) -> bool,
    ) -> Option<Message> {
        let (reply, no_reply) = match replied {
            Ok(reply) => (Some(reply), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let kept = reply.as_ref().is_some_and(kept);
        self.steps.push(Step {
            what,
            sent: Sent::message(message),
            got: reply.as_ref().map(Got::message),
            no_reply,
            promised,
            kept,
        });
        reply.filter(|_| kept)
    }

    /// The same where the promise is that nothing is answered.
    fn keep_cut(&mut self, what: &'static str, message: &Message, replied: Replied) {
        let (got, no_reply) = match &replied {
            Ok(reply) => (Some(Got::message(reply)), None),
            Err(error) if error.is_cut() => {
                let closed = error.to_string();
                (Some(Got::Closed { closed }), None)
            }
            Err(error) => (None, Some(error.to_string())),
        };
        self.steps.push(Step {
            what,
            sent: Sent::message(message),
            got,
            no_reply,
            promised: "no answer, and the connection is closed",
            kept: replied.is_err_and(|error| error.is_cut()),
        });
    }
}

// === impl NoReply ===

impl NoReply {
    const fn is_cut(&self) -> bool {
        matches!(self, Self::Line(error) if error.is_cut())
    }
}

fn has_code(reply: &Message, code: &str) -> bool {
    reply.text(39) == Some(code)
}

/// Approved for less than was asked for, and for something.
fn is_for_less(reply: &Message, asked: Money) -> bool {
    let part = iso8583::money(reply).map_or(0, Money::minor);
    has_code(reply, APPROVED_IN_PART) && (1..asked.minor()).contains(&part)
}
