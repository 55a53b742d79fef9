//! One edge of the demo, in a process of its own: it begins, fails and ends as it is told.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use standin_core::ledger::Ledger;
use standin_edge::app::{Edge, Hooks, Stopped};
use standin_edge::config::Config;
use standin_reconcile::reconcile::all_rows;
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::net::unix::pipe;

use super::fault::Switch;
use super::judge::finals_digest;
use super::words::{Order, Word};
use crate::out::say;

/// How often the edge looks who leads.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// What somebody hears who runs it by hand.
const WRONG_USE: &str = "this command is for standin demo, which tells it what to do";
/// For one call to the ledger.
const CALL_MAX: Duration = Duration::from_secs(30);

/// Runs one edge that reads its orders from standard input: for `standin demo`.
#[derive(Clone, Debug, clap::Args)]
pub struct EdgeArgs {}

/// What the edge is told, line by line.
type Orders = Lines<BufReader<pipe::Receiver>>;

/// A running edge and who drives it.
struct Driven {
    edge: Edge,
    switch: Option<Switch>,
    /// Who was said to lead, in which term.
    leader: (u64, Option<u64>),
}

// === impl EdgeArgs ===

impl EdgeArgs {
    /// Runs until standard input ends.
    ///
    /// # Errors
    /// When the edge does not start, or its input is no order.
    pub async fn run(self) -> anyhow::Result<u8> {
        let input = std::io::stdin().as_fd().try_clone_to_owned()?;
        let input = pipe::Receiver::from_owned_fd(input).context(WRONG_USE)?;
        let mut orders = BufReader::new(input).lines();
        let Some(Order::Begin { config, primary }) = next(&mut orders).await? else {
            anyhow::bail!(WRONG_USE);
        };
        let (config, _settings) = Config::load(Some(&config), [])?;
        let switch = primary.map(|state| {
            let switch = Switch::new();
            switch.set(state);
            switch
        });
        let hooks = Hooks {
            wrap_ledger: switch.clone().map(|switch| {
                let wrap: standin_edge::app::WrapLedger =
                    Box::new(move |ledger: Arc<dyn Ledger>| switch.wrap(ledger));
                wrap
            }),
            ..Hooks::default()
        };
        let edge = Box::pin(Edge::start(config, hooks)).await?;
        tell(&Word::Open)?;
        let driven = Driven {
            edge,
            switch,
            leader: (0, None),
        };
        driven.drive(orders).await
    }
}

// === impl Driven ===

impl Driven {
    async fn drive(mut self, mut orders: Orders) -> anyhow::Result<u8> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.tell_leader()?,
                order = next(&mut orders) => match order? {
                    Some(order) => self.obey(order).await?,
                    None => break,
                },
                () = self.edge.poisoned() => anyhow::bail!("the write-ahead log failed"),
            }
        }
        let clean = self.edge.stop().await == Stopped::Clean;
        tell(&Word::Stopped { clean })?;
        Ok(u8::from(!clean))
    }

    async fn obey(&self, order: Order) -> anyhow::Result<()> {
        match order {
            Order::Begin { .. } => anyhow::bail!("the edge has begun already"),
            Order::Primary(state) => {
                if let Some(switch) = &self.switch {
                    switch.set(state);
                }
            }
            Order::Moved { shopper, position } => {
                self.edge.cache().moved(shopper, position).await?;
            }
            Order::Settle => tell(&Word::Settled)?,
            Order::Ledger => {
                let rows = all_rows(self.edge.ledger().as_ref(), CALL_MAX).await?;
                let (finals, digest) = finals_digest(&rows);
                tell(&Word::Ledger { finals, digest })?;
            }
        }
        Ok(())
    }

    fn tell_leader(&mut self) -> anyhow::Result<()> {
        let status = self.edge.log().status();
        let now = (status.term, status.leader);
        if now != self.leader {
            self.leader = now;
            let (term, leader) = now;
            tell(&Word::Leader { term, leader })?;
        }
        Ok(())
    }
}

async fn next(orders: &mut Orders) -> anyhow::Result<Option<Order>> {
    let Some(line) = orders.next_line().await? else {
        return Ok(None);
    };
    Ok(Some(serde_json::from_str(&line).context("no order")?))
}

fn tell(word: &Word) -> anyhow::Result<()> {
    say(serde_json::to_string(word)?);
    Ok(())
}
