//! `verify`: an output held against its original.

use std::io::Write as _;

use swiftprune_wgpu::checkpoint::{Checkpoint, Source, same_file};
use swiftprune_wgpu::plan::{Draft, Ewma, NameFilter, NormsSource, Options, Score, Selection};
use swiftprune_wgpu::prune::{Fault, Stop, Survivors, Verified, VerifyError, verify};
use swiftprune_wgpu::report::{self, Asked, AskedError, Known};
use swiftprune_wgpu::untrusted::{shown, shown_path};

use anyhow::Context as _;

use super::args::Verify;
use super::output;
use super::progress::ByteBar;
use super::terminal::Terminal;

pub(super) fn run(args: &Verify, terminal: Terminal) -> anyhow::Result<()> {
    let original = Checkpoint::open(&args.original)?;
    let pruned = Checkpoint::open(&args.pruned).map_err(VerifyError::of_output)?;
    for warning in original.warnings() {
        terminal.warn(warning);
    }
    let reports = reports(args, &pruned)?;
    let drafts = reports.iter().map(|report| report.draft(&original));
    let drafts = drafts.collect::<Result<Vec<Draft>, _>>()?;
    let known = known(args);
    let is_said = known.number || known.tensors || known.compensation;
    let by_options = if is_said || drafts.is_empty() {
        Some(by_options(args, &original, reports.first())?)
    } else {
        None
    };
    let draft = by_options.as_ref().unwrap_or_else(|| &drafts[0]);
    let survivors = if args.compensated || (!is_said && reports.iter().any(|r| r.compensated)) {
        Survivors::Compensated
    } else {
        Survivors::Unchanged
    };
    let bar = ByteBar::new("verifying", draft.bytes_total(), terminal);
    let threads = args.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let verified = verify(
        draft,
        &pruned,
        survivors,
        threads,
        &|bytes| bar.inc(bytes),
        &Stop::new(),
    );
    bar.finish();
    let verified = verified?;
    for (report, own) in reports.iter().zip(&drafts) {
        report.check_agrees(own, draft, survivors == Survivors::Compensated)?;
        report.check(own, &pruned, &verified, &Stop::new())?;
    }
    let line = line(
        &verified,
        survivors,
        &shown_path(pruned.source.weights().path()),
    );
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    if let Some(report) = reports.first() {
        let (request, on_its_word) = report.on_its_word(&verified, known);
        let path = shown_path(&report.path);
        let taken = if known.number {
            format!("{path} says that {request} was asked for, as the options do")
        } else {
            format!("what was asked for is taken from {path}: {request}")
        };
        let score = shown(&report.score);
        writeln!(
            stdout,
            "{taken}; its numbers are those of the files; not checked: that the score was {score}"
        )?;
        for what in on_its_word {
            terminal.warn(format_args!("taken on the word of {path}: {what}"));
        }
    } else if !known.number {
        let not_checked = "not checked: how many weights of a row are zero, as nothing says how many should be (--sparsity, --pattern or --report)";
        terminal.warn(not_checked);
    }
    let is_file = |checkpoint: &Checkpoint| matches!(checkpoint.source, Source::File(_));
    if is_file(&pruned) && !is_file(&original) {
        terminal.warn(
            "not checked: the files beside the weights, as the output that was named is one file",
        );
    }
    Ok(())
}

/// What the options say.
fn known(args: &Verify) -> Known {
    Known {
        number: args.pattern.is_some() || args.sparsity.is_some(),
        tensors: !args.include.is_empty() || !args.exclude.is_empty(),
        compensation: args.compensated,
    }
}

/// What happens to every tensor as the options say; where they give no number, a report does.
fn by_options(
    args: &Verify,
    original: &Checkpoint,
    report: Option<&Asked>,
) -> anyhow::Result<Draft> {
    let mut options = Options::new(match (args.pattern, args.sparsity, report) {
        (Some(pattern), ..) => Selection::Pattern(pattern),
        (None, Some(sparsity), _) => Selection::Exact { sparsity },
        (None, None, Some(report)) => report.selection,
        // A fixed threshold says nothing of how many.
        (None, None, None) => Selection::Lambda {
            lambda: 0.0,
            ewma: Ewma::default(),
        },
    });
    if let (None, None, Some(report)) = (args.pattern, args.sparsity, report) {
        options.allocation = report.allocation.clone();
    }
    options.targets = NameFilter::new(&args.include, &args.exclude)?;
    if let (true, Some(report)) = (args.include.is_empty() && args.exclude.is_empty(), report) {
        options.targets = NameFilter::new(&report.include, &report.exclude)?;
    }
    // How weights were chosen does not matter here, so that no norms are needed.
    options.score = Score::by_name("magnitude");
    Ok(Draft::new(original.clone(), options, NormsSource::None)?)
}

/// The reports that say what was asked for: the one that was named, and the one that `prune` left in the output. What stands in
/// its place there and is none is a fault of the output.
fn reports(args: &Verify, pruned: &Checkpoint) -> anyhow::Result<Vec<Asked>> {
    let mut reports = Vec::new();
    if let Some(path) = &args.report {
        let asked = report::asked(path)
            .with_context(|| format!("cannot use the report {}", shown_path(path)))?;
        reports.push(asked);
    }
    let Some(directory) = pruned.source.directory() else {
        return Ok(reports);
    };
    let path = directory.join("report.json");
    let is_named = (args.report.as_ref()).is_some_and(|named| same_file(named, &path));
    if path.symlink_metadata().is_ok() && !is_named {
        let fault = |error: AskedError| VerifyError::Fault {
            file: path.clone(),
            fault: Fault::NoReport(error.to_string()),
        };
        reports.push(report::asked(&path).map_err(fault)?);
    }
    Ok(reports)
}

/// What was verified, in a sentence.
pub(super) fn line(verified: &Verified, survivors: Survivors, output: &str) -> String {
    format!(
        "verified {output}: {} compared; {} of {} prunable weights are zero ({}), {} of them new; all others {}",
        output::bytes(verified.bytes),
        output::count(verified.zeros),
        output::count(verified.weights),
        output::percent(verified.zeros as f64 / verified.weights.max(1) as f64),
        output::count(verified.new_zeros),
        match survivors {
            Survivors::Unchanged => "keep their bits",
            Survivors::Compensated => "are finite, and only prunable tensors differ",
        },
    )
}
