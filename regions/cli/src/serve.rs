//! `standin serve`: one edge and the trips API in one process.

mod data;
pub(crate) mod example;

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use standin_edge::app::Hooks;
use standin_edge::config::Config;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use data::{DataDir, kept};

use crate::client::{Signer, Target};
use crate::out::say;
use crate::platform_client::PlatformClient;
use crate::world::{Setup, World};

/// Exit code when the write-ahead log failed: start again, on this disk or another.
const EXIT_POISONED: u8 = 74;

/// Runs one edge and the trips API in this process, with the ledger and the trip cache embedded.
///
/// Banks connect to --listen, operators to --admin-listen, the platform to --trips-listen. What
/// must last lies in --data: the write-ahead log, from which everything is rebuilt at the next
/// start, the deployment key and the secrets. It is made at the first start.
///
/// --example adds a store and shopper 123's trip there, with items for 300.00 picked, and prints
/// what to try. Its secrets are public: do not let strangers reach it.
///
/// Exit code: 0 stopped by a signal with everything begun finished, 1 could not start or stop,
/// 74 the write-ahead log failed.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  standin serve --example
  standin serve --data /var/lib/standin --policy policy.toml
  standin serve --example --listen 127.0.0.1:9080 --admin-listen 127.0.0.1:9081 \\
      --trips-listen 127.0.0.1:9082 --data /tmp/standin")]
pub struct Args {
    /// Adds a store, a trip and items to try with.
    #[arg(long)]
    example: bool,
    /// Where banks connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where operators connect.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8081")]
    admin_listen: SocketAddr,
    /// Where the platform connects.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8082")]
    trips_listen: SocketAddr,
    /// Where everything that lasts lies; left out, a folder of yours.
    #[arg(long, value_name = "DIR", env = "STANDIN_DATA")]
    data: Option<PathBuf>,
    /// The policy; left out, the built-in example.
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
}

// === impl Args ===

impl Args {
    /// Runs until a signal.
    ///
    /// # Errors
    /// When it cannot start, or not everything ended in time.
    pub async fn run(self) -> anyhow::Result<u8> {
        let data = DataDir::open(self.data.clone(), self.example)?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let setup = Setup {
            edge: self.config(&data)?,
            hooks: Hooks::default(),
            trips_listen: self.trips_listen,
            platform_secret: data
                .platform_secret
                .parse()
                .context("the platform's secret")?,
            queue: None,
            wrap_cache: None,
        };
        let world = Box::pin(World::start(setup)).await?;
        if self.example {
            let signer = Signer::new(data.platform_secret.parse()?);
            let client = PlatformClient::new(Target::from(world.trips_address()), 1, signer);
            example::prepare(&world, &client).await?;
            client.close().await;
            say(example::what_to_try(&world));
        } else {
            say(data.places(&world));
        }
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

    fn config(&self, data: &DataDir) -> anyhow::Result<Config> {
        let mut text = data.config(&self.listen, &self.admin_listen)?;
        if let Some(policy) = &self.policy {
            text.insert("policy".to_owned(), policy.display().to_string().into());
        }
        let (config, _settings) = Config::load(Some(&toml::to_string(&text)?), [])?;
        Ok(config)
    }
}
