//! The command line: it parses, calls the library and prints. What it means is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
