//! `standin bank listen`: an edge to try one's messages on, which tells what it made of them.

mod sandbox;
mod show;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::ensure;
use standin_core::signature::Scheme;
use standin_edge::app::Hooks;
use standin_edge::observer::Observer;
use tokio::signal::unix::{SignalKind, signal};

use self::sandbox::Sandbox;
use self::show::Shown;
use super::format::Words;
use super::format::iso8583::Agreed;
use super::{LOOPBACK, scheme};
use crate::client::{Signer, Target};
use crate::out::{live_line, say};
use crate::platform_client::PlatformClient;
use crate::world::{Setup, World};

pub(super) use self::sandbox::fresh_secret;

/// Exit code when the write-ahead log failed.
const EXIT_POISONED: u8 = 74;

/// Runs an edge for whoever connects a bank, and prints a line for each request it receives.
///
/// The edge is a whole one, embedded, on loopback, and knows one bank: it answers as one in
/// production does. Beside that it prints what no edge tells a sender: why a request is not
/// authentic, what was understood of it, and which rule answered. Never a secret, a card number or a
/// position.
///
/// Shoppers 123 and up are at Target, 123 Main St, Cincinnati, each with items for 300.00 USD in the cart
/// and a card: ic_example_123 (stripe), card-example-123 (marqeta) or 5e0a1b7c-3f42-4d68-9a1e-000000000123
/// (lithic); `standin bank send` and `trigger` use the first unless --shopper says another. The bank takes
/// partial approvals, and the example policy holds without its limit of six approvals in five minutes.
///
/// At the start it makes a secret for the bank, prints it once, and with it what to export and a signed
/// request for curl. Marqeta signs nothing and sends user and password, so that format is served over
/// TLS, with certificates made at the start. Everything is gone at the end, unless --data keeps it.
///
/// With --format iso8583 the bank speaks ISO 8583:1987 over TCP, plain on loopback, or over TLS with --tls, as
/// elsewhere it must. Its shoppers carry test cards: the first 4111111111111111, as the networks publish it;
/// what comes is shown with the card's token.
///
/// Exit code: 0 stopped by a signal, 1 could not start or stop, 74 the write-ahead log failed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin bank listen                          our own format, on port 8080
  standin bank listen --format stripe
  standin bank listen --format marqeta --listen 127.0.0.1:8443
  standin bank listen --format lithic --json | jq .   one JSON object a line; the first says how to connect
  standin bank listen --format stripe --shopper-by cardholder
  standin bank listen --format iso8583         on port 8583; `standin bank send --format iso8583` asks it
  standin bank listen --format iso8583 --tls --encoding ascii-binary")]
pub struct Args {
    /// The bank's format: native, stripe, lithic, marqeta or iso8583.
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
    /// How the bank signs: standard-webhooks, stripe, http-message or basic. Left out, as its format's
    /// platform does.
    #[arg(long, value_name = "SCHEME", value_parser = scheme)]
    signature: Option<Scheme>,
    /// Whose token stands for the shopper: card or cardholder.
    #[arg(long, value_name = "WHOSE", default_value = "card",
          value_parser = ["card", "cardholder"])]
    shopper_by: String,
    /// Where the bank connects; loopback. Left out, 127.0.0.1:8080, for iso8583 127.0.0.1:8583.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Over TLS, with certificates made at the start; the bank has to show its own.
    #[arg(long)]
    tls: bool,
    /// How many shoppers are shopping.
    #[arg(long, value_name = "NUMBER", default_value_t = 5,
          value_parser = clap::value_parser!(u64).range(1..=100))]
    shoppers: u64,
    /// Where the edge's log and the certificates lie; left out, a folder that is removed at the end.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// One JSON object a line on standard output.
    #[arg(long)]
    json: bool,
}

// === impl Args ===

impl Args {
    /// Runs until a signal.
    pub(super) async fn run(self) -> anyhow::Result<u8> {
        ensure!(
            self.address().ip().is_loopback(),
            "--listen must be a loopback address: this edge is for trying things out"
        );
        ensure!(
            self.format != Words::Iso8583 || self.signature.is_none(),
            "--signature: messages of ISO 8583 are not signed"
        );
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let live = live_line();
        live.set_message("starting an edge");
        let sandbox = Sandbox::new(&self)?;
        let observer: Arc<dyn Observer> = Arc::new(Shown { json: self.json });
        let edge = sandbox.config(&self)?;
        let key = edge.deployment_key.clone();
        let setup = Setup {
            edge,
            hooks: Hooks {
                observer: Some(observer),
                ..Hooks::default()
            },
            trips_listen: SocketAddr::from((LOOPBACK, 0)),
            platform_secret: sandbox.platform_secret.parse()?,
            queue: None,
            wrap_cache: None,
        };
        let world = Box::pin(World::start(setup)).await?;
        let signer = Signer::new(sandbox.platform_secret.parse()?);
        let client = PlatformClient::new(Target::from(world.trips_address()), 1, signer);
        live.set_message("shoppers go shopping");
        sandbox
            .furnish(&world, &client, self.shoppers, &key)
            .await?;
        client.close().await;
        live.finish_and_clear();
        say(if self.json {
            serde_json::to_string(&sandbox.ready(&world))?
        } else {
            sandbox.how_to(&world)?
        });
        let poisoned = tokio::select! {
            _ = interrupt.recv() => false,
            _ = terminate.recv() => false,
            () = world.edge().poisoned() => true,
        };
        if poisoned {
            eprintln!("standin: the write-ahead log failed; nobody is answered any more");
            return Ok(EXIT_POISONED);
        }
        world.stop().await?;
        Ok(0)
    }

    /// Where the bank connects.
    fn address(&self) -> SocketAddr {
        let port = match self.format {
            Words::Http(_) => 8080,
            Words::Iso8583 => 8583,
        };
        let usual = SocketAddr::from((LOOPBACK, port));
        self.listen.unwrap_or(usual)
    }
}
