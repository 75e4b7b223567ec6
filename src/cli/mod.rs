//! From arguments to exit code. Humans and progress go to stderr, data to stdout.

mod args;
mod bench;
mod calibrate;
mod devices;
mod dry_run;
mod eval;
mod hints;
mod output;
mod progress;
mod prune;
mod selftest;
mod settings;
mod summary;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use clap::Parser as _;

use swiftprune_wgpu::error::Kind;
use swiftprune_wgpu::{calibration, run, targets};

use args::{Args, Command, When};

/// Done.
const DONE: u8 = 0;
/// Something went wrong.
const FAILED: u8 = 1;
/// The command line asks for something impossible.
const USAGE: u8 = 2;
/// It ran, but the target was not met.
const NOT_MET: u8 = 3;

/// Whether stderr gets colour and a live line.
#[derive(Clone, Copy, Debug)]
struct Terminal {
    live: bool,
    color: bool,
    quiet: bool,
    verbose: bool,
}

pub(crate) fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // Help and version are errors to clap, and print to stdout; a closed pipe is no failure.
            let _ = error.print();
            return if error.use_stderr() {
                ExitCode::from(USAGE)
            } else {
                ExitCode::from(DONE)
            };
        }
    };
    let level = if args.verbose { "warn" } else { "off" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    let on_terminal = std::io::stderr().is_terminal();
    let terminal = Terminal {
        live: on_terminal && !args.quiet,
        color: match args.color {
            When::Always => true,
            When::Never => false,
            When::Auto => {
                on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            }
        },
        quiet: args.quiet,
        verbose: args.verbose,
    };
    let result = match args.command {
        Command::Selftest(selftest) => match selftest::run(&selftest, terminal) {
            Ok(selftest::Verdict::AllAlike) => Ok(()),
            Ok(selftest::Verdict::Different) => return ExitCode::from(NOT_MET),
            Ok(selftest::Verdict::Failed) => return ExitCode::from(FAILED),
            Err(error) => Err(error),
        },
        Command::Prune(prune) => prune::run(&prune, terminal),
        Command::Calibrate(calibrate) => calibrate::run(&calibrate, terminal),
        Command::Eval(eval) => eval::run(&eval, terminal),
        Command::Devices(devices) => devices::run(&devices, terminal),
        Command::Bench(bench) => bench::run(&bench, terminal),
    };
    match result {
        Ok(()) => ExitCode::from(DONE),
        Err(error) if is_broken_pipe(&error) => ExitCode::from(DONE),
        Err(error) => {
            let label = terminal.paint("31;1", "error:");
            eprintln!("{label} {error:#}");
            if let Some(hint) = hints::hint(&error) {
                eprintln!("{} {hint}", terminal.paint("36;1", "help:"));
            }
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &anyhow::Error) -> u8 {
    match kind(error) {
        Kind::Usage => USAGE,
        Kind::NotMet => NOT_MET,
        _ => FAILED,
    }
}

/// What the library makes of its error; anything else has failed.
fn kind(error: &anyhow::Error) -> Kind {
    if let Some(error) = error.downcast_ref::<run::Error>() {
        return error.kind();
    }
    if let Some(error) = error.downcast_ref::<calibration::Error>() {
        return error.kind();
    }
    if error.is::<targets::Error>() {
        return Kind::Usage;
    }
    Kind::Failed
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<std::io::Error>()
        .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

impl Terminal {
    fn paint(self, code: &str, text: &str) -> String {
        if self.color {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    /// A line for humans, unless they asked for none.
    fn say(self, line: impl std::fmt::Display) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    fn warn(self, line: impl std::fmt::Display) {
        self.say(format_args!("{} {line}", self.paint("33;1", "warning:")));
    }
}
