//! `prune`: the flags become a request, the library runs it, and the result is shown.

use std::io::Write as _;

use anyhow::Context as _;
use swiftprune_wgpu::calibration::Text;
use swiftprune_wgpu::plan::Score;
use swiftprune_wgpu::plan::Selection;
use swiftprune_wgpu::plan::{Compensation, NameFilter, Options};
use swiftprune_wgpu::run::{NormsRequest, Request, prepare};

use super::args::Prune;
use super::dry_run;
use super::progress::LiveProgress;
use super::settings::settings;
use super::signals::Signals;
use super::summary::summary;
use super::terminal::{Terminal, complain};
use super::values::{RuleName, TextChoice};

/// How a run ended that nothing was wrong with.
pub(super) enum RunVerdict {
    Pruned,
    /// A signal has stopped it, for this exit code.
    Stopped(u8),
}

pub(super) fn run(args: &Prune, terminal: Terminal) -> anyhow::Result<RunVerdict> {
    let request = request(args)?;
    let stop = request.stop.clone();
    let prepared = prepare(request)?;
    for line in settings(&prepared) {
        terminal.say(line);
    }
    for reason in prepared.devices().passed_over() {
        terminal.warn(format_args!("not used: {reason}"));
    }
    for warning in prepared.draft().warnings() {
        terminal.warn(warning);
    }
    if args.dry_run {
        let prepared = prepared.allocated(&|_| ())?;
        dry_run::print(&prepared, args.json, terminal)?;
        return Ok(RunVerdict::Pruned);
    }
    // Only now: until then there is nothing to clean up.
    let signals = Signals::stopping(&stop).context("cannot install the signal handlers")?;
    let progress = LiveProgress::new(&prepared, terminal);
    let report = prepared.run(&|event| progress.event(event));
    progress.close();
    let report = match (report, signals.exit_code()) {
        (Err(error), Some(code)) if error.is_stop() => {
            complain(error);
            return Ok(RunVerdict::Stopped(code));
        }
        (report, _) => report?,
    };
    if !terminal.quiet {
        terminal.say(summary(&report, terminal).trim_end());
    }
    if args.json {
        let mut stdout = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut stdout, &report)?;
        writeln!(stdout)?;
    }
    Ok(RunVerdict::Pruned)
}

fn request(args: &Prune) -> anyhow::Result<Request> {
    let mut request = Request::new(args.model.as_str(), options(args)?);
    request.output.clone_from(&args.output);
    request.norms = match (&args.norms, &args.calibration) {
        (Some(path), _) => NormsRequest::Read(path.clone()),
        (None, None) => NormsRequest::Automatic,
        (None, Some(TextChoice::None)) => NormsRequest::WeightsOnly,
        (None, Some(TextChoice::Builtin)) => NormsRequest::Measure(Text::calibration()),
        (None, Some(TextChoice::File(path))) => NormsRequest::Measure(Text::read(path)?),
    };
    request.tokens = args.tokens;
    request.context = args.context;
    request.device = args.on.device.clone();
    request.threads = args.on.threads.map(usize::from);
    request.overwrite = args.force;
    request.sync = args.sync;
    request.evaluate = args.eval;
    request.verify = args.verify;
    request.checksum = args.checksum;
    request.card = !args.no_card;
    request.reports.clone_from(&args.report);
    // Not `args`, which panics at a path that is not Unicode.
    let words = std::env::args_os();
    request.command = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Ok(request)
}

fn options(args: &Prune) -> anyhow::Result<Options> {
    let sparsity = args.sparsity.unwrap_or(0.5);
    let selection = match (args.pattern, args.lambda, args.selection) {
        (Some(pattern), _, _) => Selection::Pattern(pattern),
        (_, Some(lambda), _) => Selection::Lambda {
            lambda,
            ewma: args.ewma(),
        },
        (_, _, RuleName::Ewma) => Selection::Ewma {
            sparsity,
            ewma: args.ewma(),
        },
        (_, _, RuleName::Exact) => Selection::Exact { sparsity },
    };
    let mut options = Options::new(selection);
    options.allocation = args.allocation();
    if args.spread.is_some() && options.allocation.spread().is_none() {
        anyhow::bail!(
            "the allocation {} has no spread: every block gets the same",
            options.allocation.name()
        );
    }
    options.score = args.score.as_deref().and_then(Score::by_name);
    options.targets = NameFilter::new(&args.include, &args.exclude)?;
    options.keep_non_finite = args.keep_non_finite;
    options.compensation = args.compensate.map(|rank| {
        let mut compensation = Compensation::new(&selection);
        compensation.rank = rank.unwrap_or(compensation.rank);
        compensation.ridge = args.ridge.unwrap_or(compensation.ridge);
        compensation
    });
    options.squared_error = args.json || !args.report.is_empty();
    Ok(options)
}
