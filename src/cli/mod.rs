//! From arguments to exit code.
//!
//! Results go to stdout: tables, JSON, and what a flag asked to be measured or checked. What accompanies them (settings, progress,
//! warnings, the summary of a run) goes to stderr, and is left out with `--quiet`.

mod args;
mod bench;
mod calibrate;
mod devices;
mod dry_run;
mod ended;
mod eval;
mod hints;
mod inspect;
mod manual;
mod merge;
mod no_effect;
mod output;
mod progress;
mod prune;
mod records;
mod report;
mod selftest;
mod settings;
mod signals;
mod summary;
mod sweep;
mod sweep_args;
mod terminal;
mod values;
mod verify;

use std::process::ExitCode;

use clap::Parser as _;

use swiftprune_wgpu::error::Kind;
use swiftprune_wgpu::inspect::Error as InspectError;
use swiftprune_wgpu::prune::VerifyError;
use swiftprune_wgpu::{calibration, plan, run};

use args::{Args, Command};
use ended::{DONE, Ended, FAILED, NOT_MET, USAGE};
use no_effect::NoEffect;
use terminal::Terminal;

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
    let terminal = Terminal::new(&args);
    signals::ignore_size_limit();
    hide_panics_of_the_tokenizer();
    if let Err(error) = args.check() {
        return failed(&error.into(), terminal);
    }
    let result = match args.command {
        Command::Selftest(selftest) => selftest::run(&selftest, terminal),
        Command::Prune(prune) => prune::run(&prune, terminal),
        Command::Sweep(sweep) => sweep::run(&sweep, terminal),
        Command::Calibrate(calibrate) => calibrate::run(&calibrate, terminal),
        Command::Eval(eval) => eval::run(&eval, terminal),
        Command::Inspect(inspect) => inspect::run(&inspect, terminal),
        Command::Merge(merge) => merge::run(&merge, terminal),
        Command::Report(report) => report::run(&report, terminal),
        Command::Verify(verify) => verify::run(&verify, terminal),
        Command::Devices(devices) => devices::run(&devices, terminal),
        Command::Bench(bench) => bench::run(&bench, terminal),
        Command::Completions(completions) => manual::completions(&completions),
        Command::Man(man) => manual::man(&man),
    };
    match result {
        Ok(()) => ExitCode::from(DONE),
        Err(error) if is_broken_pipe(&error) => ExitCode::from(DONE),
        Err(error) => match error.downcast_ref() {
            Some(Ended { code, said }) => {
                if let Some(said) = said {
                    terminal::complain(said);
                }
                ExitCode::from(*code)
            }
            None => failed(&error, terminal),
        },
    }
}

/// Says what went wrong, and what helps.
fn failed(error: &anyhow::Error, terminal: Terminal) -> ExitCode {
    terminal.complain_as("31;1", "error:", format_args!("{error:#}"));
    if let Some(hint) = hints::hint(error) {
        terminal.complain_as("36;1", "help:", hint);
    }
    ExitCode::from(exit_code(error))
}

/// A panic of the tokenizers library is an error by the time it comes here; what it prints would only frighten.
fn hide_panics_of_the_tokenizer() {
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() != Some(calibration::TOKENIZER_THREAD) {
            print(panic);
        }
    }));
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
    if let Some(error) = error.downcast_ref::<swiftprune_wgpu::sweep::Error>() {
        return error.kind();
    }
    if let Some(error) = error.downcast_ref::<calibration::Error>() {
        return error.kind();
    }
    if let Some(error) = error.downcast_ref::<plan::Error>() {
        return error.kind();
    }
    if let Some(error) = error.downcast_ref::<VerifyError>() {
        return error.kind();
    }
    if let Some(error) = error.downcast_ref::<InspectError>() {
        return error.kind();
    }
    if error.is::<plan::GlobError>() || error.is::<NoEffect>() {
        return Kind::Usage;
    }
    Kind::Failed
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let of_io = error.downcast_ref().map(std::io::Error::kind);
    // A record is written by serde_json, whose error holds that of the pipe.
    let of_json = error.downcast_ref::<serde_json::Error>();
    let kind = of_io.or_else(|| of_json.and_then(serde_json::Error::io_error_kind));
    kind == Some(std::io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_says_what_to_make_of_an_error() {
        let code = |error: run::Error| exit_code(&anyhow::Error::new(error));
        let too_few = swiftprune_wgpu::prune::Error::TooFewZeros {
            tensor: "t".to_owned(),
            asked: 2,
            got: 1,
        };
        assert_eq!(code(too_few.into()), NOT_MET);
        assert_eq!(
            code(plan::Error::NormsRequired { score: "wanda" }.into()),
            USAGE
        );
        assert_eq!(code(plan::Error::NotMeasured.into()), FAILED);
        assert_eq!(exit_code(&anyhow::anyhow!("a disk is full")), FAILED);
    }
}
