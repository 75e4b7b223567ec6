//! `merge`: the parts of a run become its output.

use anyhow::Context as _;
use swiftprune_wgpu::parts;
use swiftprune_wgpu::run::{self, Event, MergeRequest, merge};

use super::args::Merge;
use super::prune::{RunVerdict, command_line, show};
use super::signals::Signals;
use super::terminal::{Terminal, complain};

pub(super) fn run(args: &Merge, terminal: Terminal) -> anyhow::Result<RunVerdict> {
    let mut request = MergeRequest::new(&args.output);
    request.from.clone_from(&args.from);
    request.model.clone_from(&args.model);
    request.norms.clone_from(&args.norms);
    request.overwrite = args.force;
    request.sync = args.sync;
    request.keep = args.keep;
    request.checksum = args.checksum;
    request.report.clone_from(&args.report);
    request.card = !args.no_card;
    request.threads = args.threads.map(usize::from);
    request.command = command_line();
    let signals = Signals::stopping(&request.stop).context("cannot install the signal handlers")?;
    let tell = |event: Event<'_>| {
        if let Event::Warning(warning) = event {
            terminal.warn(warning);
        }
    };
    match (merge(&request, &tell), signals.exit_code()) {
        (Err(error), Some(code)) if error.is_stop() => {
            complain(error);
            Ok(RunVerdict::Stopped(code))
        }
        // All that was asked for was done before the parts were to go.
        (Err(run::Error::Parts(merged @ parts::Error::Merged { .. })), _) => {
            terminal.say(merged);
            Ok(RunVerdict::Pruned)
        }
        (report, _) => {
            show(&report?, &[], args.json, terminal)?;
            Ok(RunVerdict::Pruned)
        }
    }
}
