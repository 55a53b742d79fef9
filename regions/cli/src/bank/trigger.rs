//! `standin bank trigger`: one case of the contract with banks, acted out and judged.

mod line;
mod play;
mod step;

use std::time::Duration;

use anyhow::bail;
use clap::ValueEnum;
use serde::Serialize;
use standin_edge::iso8583::Mti;

use self::play::Play;
use self::step::Step;
use super::format::iso8583::{self, Agreed, Name};
use super::format::{Format, Words};
use super::{Charged, Door, Payment, key_in_letters};
use crate::out::{live_line, say, say_json};

/// How often a reversal that is too early is said again.
const AGAIN_MAX: u32 = 10;
/// How often less is asked for.
const PARTIAL_MAX: u32 = 3;
/// Rest before either.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// More than any cart holds.
const TOO_MUCH: &str = "100000";

/// Acts one case of the contract out against an edge, and says whether the edge kept it.
///
/// Each scenario has a fresh key. It needs a shopper who is shopping with something in the cart, as
/// `standin bank listen` and `standin serve --example` have one. What was approved is given back at the
/// end; stripe and lithic have no words for that, so that after `partial` there is nothing left for this
/// shopper: take another with --shopper.
///
/// --format iso8583 sends messages of ISO 8583:1987. Whether less than was asked for will do is agreed on
/// for the whole bank there: where its partial_approvals is taken, `over-cap` may be approved in part, and
/// where it is refused, `partial` is not kept.
///
/// Exit code: 0 as the contract promises, 4 not, 1 no reply, 2 wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin bank trigger duplicate
  standin bank trigger over-cap --format stripe
  standin bank trigger late --wait-ms 20
  standin bank trigger reversal --format iso8583 --url iso8583://127.0.0.1:8583
  standin bank trigger wrong-store --other-name 'Corner Hardware' --other-address '9 Elm St'
  for s in approve duplicate reuse over-cap wrong-store forged late timeout; do standin bank trigger $s || break; done")]
pub struct Args {
    /// Which case.
    scenario: Scenario,
    #[command(flatten)]
    door: Door,
    /// Whose words: native, stripe, lithic, marqeta or iso8583.
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "native",
        env = "STANDIN_FORMAT",
        value_enum
    )]
    format: Words,
    #[command(flatten)]
    agreed: Agreed,
    #[command(flatten)]
    charged: Charged,
    /// How much, in major units; left out, a little that is new each time (over-cap and partial: very
    /// much).
    #[arg(long, value_name = "DECIMAL")]
    amount: Option<String>,
    /// For wrong-store: the merchant's name.
    #[arg(long, value_name = "TEXT", default_value = "Corner Hardware")]
    other_name: String,
    /// For wrong-store: its street address.
    #[arg(long, value_name = "TEXT", default_value = "9 Elm St")]
    other_address: String,
    /// For late: how long the bank waits.
    #[arg(long, value_name = "MS", default_value_t = 50,
          value_parser = clap::value_parser!(u64).range(1..=60_000))]
    wait_ms: u64,
    /// How long to wait for each reply.
    #[arg(long, value_name = "MS", default_value_t = 15_000,
          value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeout_ms: u64,
    /// One JSON object on standard output.
    #[arg(long)]
    json: bool,
}

/// A case of the contract.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
enum Scenario {
    /// A payment that fits the cart: approved.
    Approve,
    /// The same message twice: the same bytes, marked Idempotent-Replayed; iso8583: the same codes.
    Duplicate,
    /// The same key for another amount: refused.
    Reuse,
    /// More than the cart allows: declined.
    OverCap,
    /// A merchant that is not the trip's store: declined.
    WrongStore,
    /// A card that nobody carries: declined. Not native, which names no cards.
    UnknownCard,
    /// Signed with another secret: 401. iso8583, over iso8583s:// only: without a certificate, closed.
    Forged,
    /// The bank leaves after --wait-ms without the answer, and says so (native by an outcome, marqeta by a
    /// reversal, iso8583 by a 0420); stripe and lithic ask again and get the stored answer.
    Late,
    /// Half of a body, and no more: 408. iso8583: closed without an answer.
    Timeout,
    /// An approval taken back in two parts, one of them said twice. Native, marqeta and iso8583.
    Reversal,
    /// More than the cart allows, by a bank that takes less: approved for less.
    Partial,
}

#[derive(Serialize)]
struct Report<'a> {
    scenario: &'a str,
    format: &'a str,
    kept: bool,
    steps: &'a [Step],
}

// === impl Args ===

impl Args {
    /// Runs it.
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        let payment = self.payment();
        if let Err(error) = self.check(&payment) {
            eprintln!("standin: {error:#}");
            return Ok(2);
        }
        let live = live_line();
        live.set_message("waiting for the edge");
        let steps = self.act(payment).await;
        live.finish_and_clear();
        let steps = steps?;
        let kept = steps.iter().all(Step::is_kept);
        if self.json {
            say_json(&Report {
                scenario: self.scenario.as_str(),
                format: self.format.as_str(),
                kept,
                steps: &steps,
            })?;
        } else {
            steps.iter().for_each(Step::show);
            let verdict = if kept { "kept" } else { "not kept" };
            say(format_args!("{}: {verdict}", self.scenario.as_str()));
        }
        Ok(match kept {
            true => 0,
            false if steps.iter().any(Step::is_unanswered) => 1,
            false => 4,
        })
    }

    /// Whether it can be acted at all.
    fn check(&self, payment: &Payment) -> anyhow::Result<()> {
        let secure = match self.format {
            Words::Http(_) => self.door.http()?.is_secure(),
            Words::Iso8583 => self.door.line()?.is_secure(),
        };
        if let Some(why_not) = self.scenario.not_in(self.format, secure) {
            bail!(why_not);
        }
        payment.money()?;
        if self.format == Words::Iso8583 {
            let (mti, layout) = (Mti::AuthorizationRequest, self.agreed.card_acceptor);
            iso8583::authorization(mti, payment, &Name::fresh(), layout)?;
        }
        Ok(())
    }

    async fn act(&self, payment: Payment) -> anyhow::Result<Vec<Step>> {
        match self.format {
            Words::Http(format) => {
                let mut play = Play::new(self, (format, self.door.http()?), payment)?;
                play.act(self.scenario).await?;
                Ok(play.steps)
            }
            Words::Iso8583 => {
                let mut play = line::Play::new(self, &self.door.line()?, payment)?;
                play.act(self.scenario).await?;
                Ok(play.steps)
            }
        }
    }

    fn payment(&self) -> Payment {
        let amount = self.amount.clone().unwrap_or_else(|| match self.scenario {
            Scenario::OverCap | Scenario::Partial => TOO_MUCH.to_owned(),
            _ => a_little(),
        });
        let mut charged = self.charged.clone();
        if self.scenario == Scenario::WrongStore {
            charged.merchant_name = self.other_name.clone();
            charged.merchant_address = self.other_address.clone();
            charged.network_id = Some("HARDWARE-0007".to_owned());
        }
        if self.scenario == Scenario::UnknownCard {
            charged.card = Some(match self.format {
                Words::Http(_) => format!("nobodys-{}", key_in_letters()),
                Words::Iso8583 => iso8583::nobodys_number(),
            });
            charged.cardholder = charged.card.clone();
        }
        Payment {
            charged,
            amount,
            transaction_id: None,
            partial: self.scenario == Scenario::Partial,
        }
    }

    fn patience(&self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }
}

/// From 2.00 to 9.98, new each time: the same amount twice in a moment would be a double swipe. Even
/// cents, so that it has two halves.
fn a_little() -> String {
    let [byte, other, ..] = uuid::Uuid::new_v4().into_bytes();
    let cents = u32::from(u16::from_be_bytes([byte, other])) % 400;
    let cents = cents.saturating_mul(2).saturating_add(200);
    format!("{}.{:02}", cents / 100, cents % 100)
}

// === impl Scenario ===

impl Scenario {
    fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Duplicate => "duplicate",
            Self::Reuse => "reuse",
            Self::OverCap => "over-cap",
            Self::WrongStore => "wrong-store",
            Self::UnknownCard => "unknown-card",
            Self::Forged => "forged",
            Self::Late => "late",
            Self::Timeout => "timeout",
            Self::Reversal => "reversal",
            Self::Partial => "partial",
        }
    }

    /// Why a format does not have it, over TLS or not.
    const fn not_in(self, format: Words, secure: bool) -> Option<&'static str> {
        match (self, format) {
            (Self::UnknownCard, Words::Http(Format::Native)) => {
                Some("the native format names shoppers, no cards: unknown-card is for the others")
            }
            (Self::Reversal, Words::Http(Format::Stripe | Format::Lithic)) => Some(
                "nothing is taken back in this format: reversal is for native, marqeta and iso8583",
            ),
            (Self::Forged, Words::Iso8583) if !secure => Some(
                "ISO 8583 is not signed, and without TLS nothing tells who sends: forged is for iso8583s://",
            ),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_little_is_an_amount_with_two_halves() {
        for _ in 0..1_000 {
            let amount = a_little();
            let money = Payment {
                amount: amount.clone(),
                ..Payment::default()
            }
            .money()
            .unwrap();
            assert!((200..1_000).contains(&money.minor()), "{amount}");
            assert_eq!(money.minor() % 2, 0, "{amount}");
        }
    }
}
