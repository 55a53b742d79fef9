//! The command line: one enum of commands, and what they return to the shell.

use clap::Parser;

/// Authorizes card payments of gig shoppers, and keeps answering while the database is gone.
///
/// `standin demo` shows the whole of it in half a minute, with nothing installed.
/// `standin serve --example` starts something to send requests to.
///
/// STANDIN_LOG=info, or any tracing filter, shows on standard error what goes on inside.
#[derive(Debug, Parser)]
#[command(
    name = "standin",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    Demo(Box<crate::demo::Args>),
    #[command(hide = true)]
    DemoEdge(crate::demo::EdgeArgs),
    Drill(Box<crate::drill::Args>),
    #[command(hide = true)]
    DrillEdge(crate::drill::EdgeArgs),
    Serve(Box<crate::serve::Args>),
    Bank(Box<crate::bank::Args>),
    Trips(Box<crate::trips::Args>),
    Status(crate::admin::StatusArgs),
    StandIn(crate::admin::StandInArgs),
    Answer(crate::admin::AnswerArgs),
    Reconcile(Box<crate::reconcile::Args>),
    Policy(crate::policy::Args),
    Thresholds(crate::thresholds::Args),
    Certs(crate::certs::Args),
    Wal(crate::wal::Args),
    Console(Box<crate::console::Args>),
    Topology(crate::topology::Args),
    Announce(Box<crate::announce::Args>),
}

// === impl Cli ===

impl Cli {
    /// Whether the command sets up logs by itself: an edge's configuration says what it writes down.
    pub const fn logs_itself(&self) -> bool {
        matches!(self.command, Command::DrillEdge(_))
    }

    /// Runs the command; gives the process' exit code.
    ///
    /// # Errors
    /// When the command could not do what it was asked; exit code 1.
    pub async fn run(self) -> anyhow::Result<u8> {
        match self.command {
            Command::Demo(args) => Box::pin(args.run()).await,
            Command::DemoEdge(args) => Box::pin(args.run()).await,
            Command::Drill(args) => Box::pin(args.run()).await,
            Command::DrillEdge(args) => Ok(Box::pin(args.run()).await),
            Command::Serve(args) => Box::pin(args.run()).await,
            Command::Bank(args) => Box::pin(args.run()).await,
            Command::Trips(args) => Box::pin(args.run()).await,
            Command::Status(args) => args.run().await,
            Command::StandIn(args) => args.run().await,
            Command::Answer(args) => args.run().await,
            Command::Reconcile(args) => Box::pin(args.run()).await,
            Command::Policy(args) => args.run().await,
            Command::Thresholds(args) => Box::pin(args.run()).await,
            Command::Certs(args) => args.run(),
            Command::Wal(args) => Box::pin(args.run()).await,
            Command::Console(args) => Box::pin(args.run()).await,
            Command::Topology(args) => args.run(),
            Command::Announce(args) => Box::pin(args.run()).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
