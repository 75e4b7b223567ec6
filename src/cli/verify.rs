//! `verify`: an output held against its original.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use swiftprune_wgpu::checkpoint::Checkpoint;
use swiftprune_wgpu::plan::{Draft, Ewma, NameFilter, NormsSource, Options, Score, Selection};
use swiftprune_wgpu::prune::{Survivors, Verified, VerifyError, verify};
use swiftprune_wgpu::report::{self, Asked, AskedError};
use swiftprune_wgpu::untrusted::shown_path;

use anyhow::Context as _;

use super::args::Verify;
use super::output;
use super::progress::ByteBar;
use super::terminal::Terminal;

pub(super) fn run(args: &Verify, terminal: Terminal) -> anyhow::Result<()> {
    let original = Checkpoint::open(&args.original)?;
    let pruned = Checkpoint::open(&args.pruned).map_err(VerifyError::of_output)?;
    let mut options = Options::new(match (args.pattern, args.sparsity) {
        (Some(pattern), _) => Selection::Pattern(pattern),
        (None, Some(sparsity)) => Selection::Exact { sparsity },
        // A fixed threshold says nothing of how many.
        (None, None) => Selection::Lambda {
            lambda: 0.0,
            ewma: Ewma::default(),
        },
    });
    options.targets = NameFilter::new(&args.include, &args.exclude)?;
    let mut compensated = args.compensated;
    let (report, asked) = report(args)?.unzip();
    if let Some(asked) = asked {
        options.selection = asked.selection;
        options.allocation = asked.allocation;
        compensated = asked.compensated;
        options.targets = NameFilter::of_names(asked.pruned);
    }
    let survivors = match compensated {
        true => Survivors::Mended,
        false => Survivors::Unchanged,
    };
    // How weights were chosen does not matter here, so that no norms are needed.
    options.score = Score::by_name("magnitude");
    let draft = Draft::new(original, options, NormsSource::None)?;
    let bar = ByteBar::new("verifying", draft.bytes_total(), terminal);
    let threads = args.threads.map_or_else(
        || std::thread::available_parallelism().map_or(1, usize::from),
        usize::from,
    );
    let verified = verify(&draft, &pruned, survivors, threads, &|bytes| bar.inc(bytes));
    bar.finish();
    let verified = verified?;
    let line = line(
        &verified,
        survivors,
        &shown_path(pruned.source.weights().path()),
    );
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}")?;
    if let Some(report) = report {
        writeln!(
            stdout,
            "what was asked for is taken from {}",
            shown_path(&report)
        )?;
    } else if args.pattern.is_none() && args.sparsity.is_none() {
        writeln!(
            stdout,
            "not checked: how many weights of a row are zero, as nothing says how many should be (--sparsity, --pattern or --report)"
        )?;
    }
    Ok(())
}

/// The report that says what was asked for: the one that was named or, where nothing else says it, the one that `prune` left in
/// the output.
fn report(args: &Verify) -> anyhow::Result<Option<(PathBuf, Asked)>> {
    let unusable = |path: &Path| format!("cannot use the report {}", shown_path(path));
    if let Some(path) = &args.report {
        let asked = report::asked(path).with_context(|| unusable(path))?;
        return Ok(Some((path.clone(), asked)));
    }
    let is_said = args.compensated
        || args.pattern.is_some()
        || args.sparsity.is_some()
        || !args.include.is_empty()
        || !args.exclude.is_empty();
    let path = Path::new(&args.pruned).join("report.json");
    if is_said || !path.is_file() {
        return Ok(None);
    }
    match report::asked(&path) {
        Ok(asked) => Ok(Some((path, asked))),
        // A file of that name which the model came with.
        Err(AskedError::NoReport(_)) => Ok(None),
        Err(error) => Err(error).with_context(|| unusable(&path)),
    }
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
            Survivors::Mended => "are finite, and only prunable tensors differ",
        },
    )
}
