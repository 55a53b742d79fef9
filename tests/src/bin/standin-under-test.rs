//! The `standin` command, built beside the tests so that they find it.

use std::process::ExitCode;

use clap::Parser;
use standin_cli::command::Cli;

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    match Box::pin(cli.run()).await {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("standin: {error:#}");
            ExitCode::from(1)
        }
    }
}
