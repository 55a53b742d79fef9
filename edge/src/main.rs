//! The `standin-edge` program; all of it is [`standin_edge::command`].

use std::process::ExitCode;

fn main() -> ExitCode {
    standin_edge::command::main()
}
