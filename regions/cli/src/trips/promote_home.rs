//! `standin trips promote-home`: another Redis becomes the home of the trip cache.
//!
//! The order of the steps is what makes it safe: the epoch goes up in the ledger first, so that whoever
//! hears of it refuses the old home before there is a new one. Each step done again changes nothing.

use std::path::PathBuf;

use anyhow::Context;
use serde::Serialize;
use standin_core::authorities::Authorities;
use standin_core::clock::{Clock, SystemClock};
use standin_core::ledger::{CacheHome, CachePromotion, Fate, Ledger, LedgerError};
use standin_core::trip_cache::redis::{RedisServer, ServerState};
use uuid::Uuid;

use crate::out::{say, say_json};
use crate::reconcile::BooksArgs;

/// Nothing was changed.
const EXIT_REFUSED: u8 = 4;
/// The home is promoted, and a replica does not follow it yet.
const EXIT_REPLICAS: u8 = 3;

/// Makes another Redis the home of the trip cache: the one that the platform writes to.
///
/// For when the home is lost, or is to be elsewhere. In this order: the home's epoch goes up in the
/// ledger, with who ordered it and why in the audit; the new home stops following and is told its epoch;
/// each replica named follows it. From the first step on, edges and the platform refuse the old home and
/// believe no copy of it, though it comes back and its heart beats: an edge asks the primary meanwhile.
///
/// Stopped half way, run it again with the same --to: it goes on with the same epoch. Name the old home
/// among the replicas when it can be reached. What a replica holds and the new home does not is gone,
/// and writes that had not reached the new home are lost: the platform feeds them again where its queue
/// has them, and `trip_cache_backwards` is raised until then.
///
/// Without the ledger nothing is promoted: two operators who cannot see each other would make two homes.
///
/// Exit code: 0 done, 3 promoted but not every replica follows (run it again), 4 refused with nothing
/// changed, 1 it could not be done (what was is said), 2 wrong usage.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  export STANDIN_POSTGRES=postgres://standin@db/standin
  standin trips promote-home --to redis://cache-b:6379 \\
      --replicas redis://cache-c:6379,redis://cache-d:6379 --operator ada --reason 'cache-a burned'
  export STANDIN_HOME_TO=rediss://:PASSWORD@cache-b:6380 STANDIN_HOME_REPLICAS=rediss://:PASSWORD@cache-c:6380
  standin trips promote-home --redis-ca ca.pem --as 10.0.0.7:6380 --operator ada --reason 'moving to region b'

Afterwards, set trip_cache.redis_home of every edge, and the platform's address, to the new home; until then
what they write is refused (standin_trip_cache_troubles{kind=\"past_home\"}) and nothing is lost by it but
freshness. Replicas follow with the masterauth of their own configuration.")]
pub(super) struct PromoteHomeArgs {
    /// The Redis that becomes the home. Others on this machine may see a command line: prefer the variables
    /// where an address holds a password.
    #[arg(
        long,
        value_name = "URL",
        env = "STANDIN_HOME_TO",
        hide_env_values = true
    )]
    to: String,
    /// Those that follow it from now on, with commas between.
    #[arg(
        long,
        value_name = "URL",
        value_delimiter = ',',
        env = "STANDIN_HOME_REPLICAS",
        hide_env_values = true
    )]
    replicas: Vec<String>,
    /// Where replicas reach the new home, if not where --to says.
    #[arg(long = "as", value_name = "HOST:PORT", value_parser = place)]
    reached_at: Option<Place>,
    /// Promotes it though it holds nothing: every trip is then gone until its next event.
    #[arg(long)]
    empty: bool,
    /// TLS at rediss:// addresses, to servers whose certificates are of an authority in this PEM file.
    #[arg(long, value_name = "FILE")]
    redis_ca: Option<PathBuf>,
    #[command(flatten)]
    books: BooksArgs,
    /// Who orders it, for the audit.
    #[arg(long, visible_alias = "by", value_name = "WHO", value_parser = words)]
    operator: String,
    /// Why, for the audit.
    #[arg(long, value_name = "TEXT", value_parser = words)]
    reason: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    host: String,
    port: u16,
}

/// What came of it.
#[derive(Debug, Serialize)]
struct Promoted {
    home: String,
    epoch: u64,
    /// Whether the epoch went up now, or the home was this one already.
    raised: bool,
    /// Whether the home remembers over a restart that it follows nobody.
    kept: bool,
    replicas: Vec<Pointed>,
}

#[derive(Debug, Serialize)]
struct Pointed {
    replica: String,
    follows: bool,
    /// Whether it remembers that over a restart.
    kept: bool,
    error: Option<String>,
}

// === impl PromoteHomeArgs ===

impl PromoteHomeArgs {
    /// Runs it.
    ///
    /// # Errors
    /// When a step of it cannot be done.
    pub(super) async fn run(self, json: bool) -> anyhow::Result<u8> {
        let authorities = match &self.redis_ca {
            Some(file) => Some(Authorities::read(file).context("--redis-ca")?),
            None => None,
        };
        let open = |url: &String| RedisServer::open(url, authorities.as_ref());
        let home = open(&self.to).context("--to")?;
        let replicas: Result<Vec<_>, _> = self.replicas.iter().map(open).collect();
        let replicas = replicas.context("--replicas")?;
        let address = home.address();
        let state = home.state().await;
        let state = state.with_context(|| format!("{address} (--to): nothing was changed"))?;
        if let Some(why) = self.refusal(&address, &state, &replicas) {
            return refuse(json, &why);
        }
        let before = self.raise(&address, &state).await?;
        let promoted = self.promote(&home, &replicas, before).await?;
        let done = promoted.replicas.iter().all(|replica| replica.follows);
        if json {
            say_json(&promoted)?;
        } else {
            promoted.show();
        }
        Ok(if done { 0 } else { EXIT_REPLICAS })
    }

    fn refusal(
        &self,
        address: &str,
        state: &ServerState,
        replicas: &[RedisServer],
    ) -> Option<String> {
        if replicas.iter().any(|replica| replica.address() == address) {
            return Some(format!(
                "{address} cannot follow itself: leave it out of --replicas"
            ));
        }
        (state.keys == 0 && !self.empty).then(|| {
            format!(
                "{address} holds nothing: with it as the home every replica would lose every trip. \
                 Name one that followed the old home, or say --empty"
            )
        })
    }

    /// Raises the epoch in the ledger; gives the home before, and the one from now on.
    async fn raise(
        &self,
        address: &str,
        state: &ServerState,
    ) -> anyhow::Result<(CacheHome, CacheHome)> {
        let ledger = self.books.connect()?;
        let before = ledger.cache_home().await.map_err(unasked)?;
        let promotion = CachePromotion {
            id: Uuid::now_v7(),
            to: address.to_owned(),
            epoch_seen: state.epoch,
            operator: self.operator.clone(),
            reason: self.reason.clone(),
            at: SystemClock.now(),
        };
        let home = ledger.promote_cache_home(promotion).await;
        ledger.close();
        Ok((before, home.map_err(unasked)?))
    }

    async fn promote(
        &self,
        home: &RedisServer,
        replicas: &[RedisServer],
        (before, now): (CacheHome, CacheHome),
    ) -> anyhow::Result<Promoted> {
        let CacheHome { epoch, address } = now;
        let told = home.become_home(epoch).await;
        told.with_context(|| {
            format!(
                "{address} was not told that it is the home of epoch {epoch}, which the ledger has: no home \
                 takes writes until you run this again, or promote another one"
            )
        })?;
        let (host, port) = match &self.reached_at {
            Some(place) => (place.host.as_str(), place.port),
            None => home.place(),
        };
        let mut pointed = Vec::new();
        for replica in replicas {
            pointed.push(Pointed::at(replica, host, port).await);
        }
        Ok(Promoted {
            home: address,
            epoch,
            raised: before.epoch < epoch,
            kept: home.keep_role().await,
            replicas: pointed,
        })
    }
}

// === impl Pointed ===

impl Pointed {
    async fn at(replica: &RedisServer, host: &str, port: u16) -> Self {
        let followed = replica.follow(host, port).await;
        Self {
            replica: replica.address(),
            follows: followed.is_ok(),
            kept: followed.is_ok() && replica.keep_role().await,
            error: followed.err().map(|error| error.to_string()),
        }
    }
}

// === impl Promoted ===

impl Promoted {
    fn show(&self) {
        let Self {
            home,
            epoch,
            raised,
            kept,
            replicas,
        } = self;
        let when = if *raised { "from now on" } else { "as before" };
        say(format_args!(
            "{home} is the home of the trip cache, of epoch {epoch}, {when}"
        ));
        for Pointed { replica, error, .. } in replicas {
            match error {
                None => say(format_args!("  {replica} follows it")),
                Some(error) => say(format_args!("  {replica} does not follow it: {error}")),
            }
        }
        let forgetful = replicas.iter().filter(|one| one.follows && !one.kept);
        let mut forgetful: Vec<&str> = forgetful.map(|one| one.replica.as_str()).collect();
        if !kept {
            forgetful.insert(0, home);
        }
        if !forgetful.is_empty() {
            let names = forgetful.join(", ");
            say(format_args!(
                "No configuration file to write this in, so that a restart undoes it: {names}"
            ));
        }
        say(format_args!(
            "Next: set trip_cache.redis_home of every edge, and the platform's address, to {home}"
        ));
    }
}

fn refuse(json: bool, why: &str) -> anyhow::Result<u8> {
    if json {
        say_json(&serde_json::json!({ "refused": why }))?;
    } else {
        say(format_args!("refused: {why}"));
    }
    Ok(EXIT_REFUSED)
}

fn unasked(error: LedgerError) -> anyhow::Error {
    let what = match error.fate {
        Fate::NotDone => "without the ledger no home is promoted; nothing was changed",
        Fate::Unknown => "the ledger did not say whether it raised the epoch; run this again",
    };
    anyhow::Error::new(error).context(what)
}

fn place(text: &str) -> Result<Place, String> {
    let wrong = || format!("{text}: write HOST:PORT");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() {
        return Err(wrong());
    }
    Ok(Place {
        host: host.to_owned(),
        port: port.parse().map_err(|_| wrong())?,
    })
}

fn words(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("say something: it is booked in the audit".to_owned());
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_host_and_a_port() {
        let read = |text| place(text).map(|place| (place.host, place.port));
        assert_eq!(read("cache-b:6379"), Ok(("cache-b".to_owned(), 6379)));
        assert_eq!(read("[::1]:7"), Ok(("::1".to_owned(), 7)));
        for wrong in ["cache-b", ":6379", "cache-b:many", "cache-b:65536"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_order_without_words_is_none() {
        assert!(words(" \t").is_err());
        assert_eq!(words(" ada "), Ok("ada".to_owned()));
    }
}
