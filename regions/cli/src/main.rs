//! The `standin` command.

use std::process::ExitCode;

use clap::Parser;
use standin_cli::command::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if !cli.logs_itself() {
        log_to_stderr();
    }
    match Box::pin(cli.run()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("standin: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// What `STANDIN_LOG` asks for (`warn`, `standin_edge=debug`, ...); without it, errors.
fn log_to_stderr() {
    let filter = tracing_subscriber::EnvFilter::builder()
        .with_env_var("STANDIN_LOG")
        .with_default_directive(tracing_subscriber::filter::LevelFilter::ERROR.into())
        .from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
