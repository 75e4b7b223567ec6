//! `merge`: the parts of a run become its output.

use anyhow::Context as _;
use swiftprune_wgpu::parts;
use swiftprune_wgpu::run::{self, Event, MergeRequest, merge};

use super::args::Merge;
use super::prune::{command_line, show};
use super::signals::Signals;
use super::terminal::Terminal;

pub(super) fn run(args: &Merge, terminal: Terminal) -> anyhow::Result<()> {
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
    match merge(&request, &tell) {
        // All that was asked for was done before the parts were to go.
        Err(run::Error::Parts(merged @ parts::Error::Merged { .. })) => {
            terminal.say(merged);
            Ok(())
        }
        report => {
            let report = signals.result(report, run::Error::is_stop)?;
            show(&report, &[], args.json, terminal)
        }
    }
}
