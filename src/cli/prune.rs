//! `prune`: the flags become a request, the library runs it, and the result is shown.

use std::io::Write as _;

use anyhow::Context as _;
use swiftprune_wgpu::checkpoint::Source;
use swiftprune_wgpu::plan::Score;
use swiftprune_wgpu::plan::Selection;
use swiftprune_wgpu::plan::{Compensation, NameFilter, Options};
use swiftprune_wgpu::report::Report;
use swiftprune_wgpu::run::{PartReport, Prepared, Request, prepare};
use swiftprune_wgpu::untrusted::{self, shown_path};

use super::args::Prune;
use super::dry_run;
use super::no_effect::{self, NoEffect};
use super::output;
use super::progress::LiveProgress;
use super::settings::settings;
use super::signals::Signals;
use super::summary::{closing, results, summary};
use super::terminal::Terminal;
use super::values::RuleName;

pub(super) fn run(args: &Prune, terminal: Terminal) -> anyhow::Result<()> {
    let request = request(args)?;
    let stop = request.stop.clone();
    let prepared = prepare(request)?;
    check_model(args, &prepared)?;
    for line in settings(&prepared, args.sequential) {
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
        dry_run::print(&prepared, args.output.as_deref(), args.json, terminal)?;
        return Ok(());
    }
    // Only now: until then there is nothing to clean up.
    let signals = Signals::stopping(&stop).context("cannot install the signal handlers")?;
    let progress = LiveProgress::new(&prepared, args.part, terminal);
    if let Some(part) = args.part {
        let done = prepared.run_part(part, &|event| progress.event(event));
        progress.close();
        let done = signals.result(done, swiftprune_wgpu::run::Error::is_stop)?;
        return show_part(&done, args.json, terminal);
    }
    let report = prepared.run(&|event| progress.event(event));
    progress.close();
    let report = signals.result(report, swiftprune_wgpu::run::Error::is_stop)?;
    show(&report, &progress.told(), args.json, terminal)
}

/// Refuses flags that have nothing to do with this model.
fn check_model(args: &Prune, prepared: &Prepared) -> Result<(), NoEffect> {
    let is_file = matches!(prepared.draft().checkpoint().source, Source::File(_));
    let file =
        is_file.then(|| "on a single file of weights, beside which nothing is kept".to_owned());
    let is_measured = prepared.calibration().is_some();
    let nothing = (!is_measured)
        .then(|| "on a file of weights without a config.json, which is not calibrated".to_owned());
    no_effect::check([
        ("--no-card", args.no_card, file.clone()),
        ("--resume", args.resume, file),
        ("--tokens", args.tokens.is_some(), nothing.clone()),
        ("--context", args.context.is_some() && !args.eval, nothing),
    ])
}

/// Prints the summary of a run, and its results: as JSON if that is asked for, which has all of them. Warnings that were `told`
/// before are not told again.
pub(super) fn show(
    report: &Report,
    told: &[String],
    json: bool,
    terminal: Terminal,
) -> anyhow::Result<()> {
    summary(report, told, terminal);
    let results = results(report);
    if json {
        if !results.is_empty() {
            terminal.say(results.trim_end());
        }
        print_json(report)?;
    } else {
        std::io::stdout().write_all(results.as_bytes())?;
    }
    terminal.say(closing(report));
    Ok(())
}

/// Prints what one part has done.
fn show_part(done: &PartReport, json: bool, terminal: Terminal) -> anyhow::Result<()> {
    for file in &done.files {
        terminal.say(shown_path(&done.directory.join(file)));
    }
    terminal.say(format_args!(
        "part {}: {} in {} files, in {:.1} s; `swiftprune-wgpu merge` makes the output when all parts are there",
        done.part,
        output::bytes(done.bytes),
        done.files.len(),
        done.seconds
    ));
    if json {
        print_json(done)?;
    }
    Ok(())
}

pub(super) fn print_json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(untrusted::json(value)?.as_bytes())?;
    Ok(())
}

/// The command line, for the report.
pub(super) fn command_line() -> Vec<String> {
    // Not `args`, which panics at a path that is not Unicode.
    let words = std::env::args_os();
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

fn request(args: &Prune) -> anyhow::Result<Request> {
    let mut request = Request::new(args.model.as_str(), options(args)?);
    request.output.clone_from(&args.output);
    request.norms = args.norms_flags().request()?;
    request.tokens = args.tokens.unwrap_or(request.tokens);
    request.context = args.context;
    request.sequential = args.sequential;
    request.device = args.on.device.clone();
    request.threads = args.on.threads.map(usize::from);
    request.overwrite = args.force;
    request.sync = args.sync;
    request.evaluate = args.eval;
    request.verify = args.verify;
    request.checksum = args.checksum;
    request.card = !args.no_card;
    request.reports.clone_from(&args.report);
    request.resume = args.resume;
    request.command = command_line();
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
        (_, _, Some(RuleName::Exact)) => Selection::Exact { sparsity },
        _ => Selection::Ewma {
            sparsity,
            ewma: args.ewma(),
        },
    };
    let mut options = Options::new(selection);
    options.allocation = args.allocation();
    options.score = args.score.as_deref().and_then(Score::by_name);
    options.targets = NameFilter::new(&args.include, &args.exclude)?;
    options.keep_non_finite = args.keep_non_finite;
    options.compensation = args.compensate.map(|rank| {
        let mut compensation = Compensation::new(&selection);
        compensation.rank = rank.unwrap_or(compensation.rank);
        compensation.ridge = args.ridge.unwrap_or(compensation.ridge);
        compensation
    });
    // A shard that is kept counts for a report that is asked for later.
    let keeps = args.part.is_some() || args.resume;
    options.squared_error = args.json || !args.report.is_empty() || keeps;
    Ok(options)
}
