//! `sweep`: the quality of many ways to prune, as a table.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use anyhow::Context as _;
use swiftprune_wgpu::calibration::{Calibration, Text, windows_of};
use swiftprune_wgpu::checkpoint::{keep_apart, keep_off_model};
use swiftprune_wgpu::plan::{Ewma, NameFilter, Score, Selection};
use swiftprune_wgpu::report::page::page;
use swiftprune_wgpu::report::{Quality, SweepCell, SweepReport};
use swiftprune_wgpu::sweep::{
    CompensationRequest, PreparedSweep, SweepEvent, SweepRequest, prepare,
};
use swiftprune_wgpu::untrusted::{self, shown, shown_path};

use super::progress::{Pass, calibrated, duration};
use super::signals::Signals;
use super::sweep_args::{CompensateChoice, Sweep, TableFormat};
use super::terminal::Terminal;
use super::values::{RuleName, TextChoice};
use super::{output, settings};

/// The sparsities of a sweep that names none.
const SPARSITIES: [f64; 5] = [0.3, 0.4, 0.5, 0.6, 0.7];

pub(super) fn run(args: &Sweep, terminal: Terminal) -> anyhow::Result<()> {
    for path in &args.output {
        // Before the work, which may take hours.
        if path.symlink_metadata().is_ok() && !args.force {
            anyhow::bail!(
                "{} exists; choose another name, or use --force to replace it",
                shown_path(path)
            );
        }
    }
    let request = request(args)?;
    let stop = request.stop.clone();
    let state = request.state.clone();
    let prepared = prepare(request)?;
    check_places(args, state.as_deref(), &prepared)?;
    for line in settings_of(&prepared) {
        terminal.say(line);
    }
    for reason in prepared.devices().passed_over() {
        terminal.warn(format_args!("not used: {reason}"));
    }
    for warning in prepared.warnings() {
        terminal.warn(warning);
    }
    let signals = Signals::stopping(&stop).context("cannot install the signal handlers")?;
    let live = Live::new(&prepared, terminal);
    let report = prepared.run(&|event| live.event(event));
    live.clear();
    let report = signals.result(report, swiftprune_wgpu::sweep::Error::is_stop)?;
    for path in &args.output {
        write(path, &report).with_context(|| format!("cannot write {}", shown_path(path)))?;
    }
    let mut stdout = std::io::stdout().lock();
    if args.json {
        stdout.write_all(untrusted::json(&report)?.as_bytes())?;
    } else {
        let width = terminal_size::terminal_size_of(&stdout);
        let width = width.map(|(width, _)| width.0.into());
        stdout.write_all(table(&report, width).as_bytes())?;
    }
    Ok(())
}

/// Checks that no table replaces what the sweep reads, its state file, or another table.
fn check_places(
    args: &Sweep,
    state: Option<&Path>,
    prepared: &PreparedSweep,
) -> anyhow::Result<()> {
    let text = match &args.calibration {
        Some(TextChoice::File(path)) => Some(path.as_path()),
        _ => None,
    };
    let others = [
        ("the norms", args.norms.as_deref()),
        ("the calibration text", text),
        ("the text", args.eval_text.as_deref()),
        ("the state file", state),
    ];
    for (number, output) in args.output.iter().enumerate() {
        keep_off_model(output, prepared.checkpoint())?;
        for (role, other) in others {
            other.map_or(Ok(()), |other| keep_apart(output, role, other))?;
        }
        for other in &args.output[..number] {
            keep_apart(output, "another output", other)?;
        }
    }
    Ok(())
}

fn request(args: &Sweep) -> anyhow::Result<SweepRequest> {
    let selection = |&sparsity: &f64| match args.selection {
        Some(RuleName::Exact) => Selection::Exact { sparsity },
        _ => Selection::Ewma {
            sparsity,
            ewma: Ewma::default(),
        },
    };
    let sparsities = if args.sparsity.is_empty() && args.pattern.is_empty() {
        &SPARSITIES[..]
    } else {
        &args.sparsity
    };
    let patterns = args
        .pattern
        .iter()
        .map(|&pattern| Selection::Pattern(pattern));
    let selections = sparsities.iter().map(selection).chain(patterns);
    let mut request = SweepRequest::new(args.model.as_str(), selections.collect());
    if !args.score.is_empty() {
        request.scores = args.score.iter().map(|name| Score::by_name(name)).collect();
    }
    if !args.compensate.is_empty() {
        let compensation = |choice: &CompensateChoice| match *choice {
            CompensateChoice::Off => None,
            CompensateChoice::On => Some(CompensationRequest::new(None, args.ridge)),
            CompensateChoice::Rank(rank) => Some(CompensationRequest::new(Some(rank), args.ridge)),
        };
        request.compensations = args.compensate.iter().map(compensation).collect();
    }
    if !args.allocate.is_empty() {
        let allocations = args.allocate.iter().map(|name| name.rule(args.spread));
        request.allocations = allocations.collect();
    }
    request.targets = NameFilter::new(&args.include, &args.exclude)?;
    request.keep_non_finite = args.keep_non_finite;
    request.norms = args.norms_flags().request()?;
    request.tokens = args.tokens.unwrap_or(request.tokens);
    request.context = args.context;
    if let Some(path) = &args.eval_text {
        request.text = Text::read(path)?;
    }
    request.eval_tokens = args.eval_tokens;
    request.device = args.on.device.clone();
    request.threads = args.on.threads.map(usize::from);
    request.state = args
        .state
        .clone()
        .or_else(|| args.output.first().map(|output| state_of(output)));
    let words = std::env::args_os();
    request.command = words
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    Ok(request)
}

/// Where the cells of a sweep with this output are kept.
fn state_of(output: &Path) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".state");
    name.into()
}

/// What will be measured, for humans.
fn settings_of(prepared: &PreparedSweep) -> Vec<String> {
    let weights = prepared.checkpoint().source.weights();
    let windows = prepared.windows();
    let mut lines = vec![
        format!("model   {}", shown_path(weights.path())),
        format!(
            "sweep   {} cells on {} tokens in {}",
            output::count(prepared.cells() as u64),
            output::count(windows.tokens().len() as u64),
            windows_of(windows.context(), &windows.prefix().to_string())
        ),
    ];
    if let Some(calibration) = prepared.calibration() {
        let norms = settings::calibration(calibration, prepared.devices().forward());
        lines.push(format!("norms   {norms}"));
    }
    lines.push(format!("device  {}", prepared.devices().forward().info()));
    lines
}

/// The live line, and a line for each cell.
struct Live {
    terminal: Terminal,
    pass: Mutex<Option<Pass>>,
    cells: usize,
    tokens: usize,
    left: Mutex<Option<std::time::Duration>>,
}

impl Live {
    fn new(prepared: &PreparedSweep, terminal: Terminal) -> Self {
        Self {
            terminal,
            pass: Mutex::default(),
            cells: prepared.cells(),
            tokens: prepared.calibration().map_or(0, Calibration::tokens),
            left: Mutex::default(),
        }
    }

    fn event(&self, event: SweepEvent<'_>) {
        match event {
            SweepEvent::Dense => self.begin("the dense model".to_owned()),
            SweepEvent::Calibrating => self.begin("calibrating".to_owned()),
            SweepEvent::Calibrated { elapsed } => {
                self.clear();
                self.terminal.say(calibrated(self.tokens, elapsed));
            }
            SweepEvent::Started { index, what } => {
                let left = self
                    .left
                    .lock()
                    .map_or_else(String::new, |left| format!(", {} left", duration(left)));
                self.begin(format!("{}/{} {what}{left}", index + 1, self.cells));
            }
            SweepEvent::Forward(at) => {
                if let Some(pass) = &*self.pass.lock() {
                    pass.at(at);
                }
            }
            SweepEvent::DenseMeasured(quality) => {
                self.clear();
                self.terminal
                    .say(format_args!("dense   perplexity {}", perplexity(quality)));
            }
            SweepEvent::Measured {
                index,
                cell,
                was_known,
                left,
            } => {
                self.clear();
                *self.left.lock() = left;
                self.terminal.say(self.line(index, cell, was_known, left));
            }
            SweepEvent::DeviceFailed(what) | SweepEvent::Warning(what) => self.terminal.warn(what),
            _ => {}
        }
    }

    /// One cell, in a line of its own.
    fn line(
        &self,
        index: usize,
        cell: &SweepCell,
        was_known: bool,
        left: Option<std::time::Duration>,
    ) -> String {
        let width = self.cells.to_string().len();
        let time = match (was_known, left) {
            (true, _) => "known".to_owned(),
            (false, Some(left)) if !left.is_zero() => {
                format!("{:.1} s, about {} left", cell.seconds, duration(left))
            }
            (false, _) => format!("{:.1} s", cell.seconds),
        };
        format!(
            "[{:>width$}/{}] {}  perplexity {}  {time}",
            index + 1,
            self.cells,
            names(cell).join(" "),
            perplexity(&cell.quality),
        )
    }

    fn begin(&self, what: String) {
        *self.pass.lock() = Some(Pass::new(what, self.terminal));
    }

    fn clear(&self) {
        if let Some(pass) = self.pass.lock().take() {
            pass.finish();
        }
    }
}

/// What a cell is, in words that are not empty.
fn names(cell: &SweepCell) -> Vec<String> {
    let [score, pruned, kept, shared] = columns(cell);
    let words = [score, pruned, kept, shared].into_iter();
    words.filter(|word| word != "-").collect()
}

/// Score, how much, what happens to the weights that stay, and how it is shared out; `-` for what is as usual.
fn columns(cell: &SweepCell) -> [String; 4] {
    let pruned = match cell.pruned.parse::<f64>() {
        Ok(fraction) => format!("{} %", 100.0 * fraction),
        Err(_) => cell.pruned.clone(),
    };
    let kept = cell.compensation_rank.map(|rank| format!("rank {rank}"));
    let shared = cell
        .spread
        .map(|spread| format!("{} {spread}", cell.allocation));
    let usual = || "-".to_owned();
    [
        shown(&cell.score).to_string(),
        pruned,
        kept.unwrap_or_else(usual),
        shared.unwrap_or_else(usual),
    ]
}

/// A perplexity with its standard error.
fn perplexity(quality: &Quality) -> String {
    let error = quality.perplexity_standard_error;
    let error = error.map_or_else(String::new, |error| format!(" +- {error:.2}"));
    format!("{:.2}{error}", quality.perplexity)
}

/// The table for humans.
fn table(report: &SweepReport, width: Option<usize>) -> String {
    let with_kept = report
        .cells
        .iter()
        .any(|cell| cell.compensation_rank.is_some());
    let with_shared = report.cells.iter().any(|cell| cell.spread.is_some());
    let line = |[score, pruned, kept, shared]: [String; 4], rest: [String; 3]| {
        let mut cells = vec![score, pruned];
        cells.extend(with_kept.then_some(kept));
        cells.extend(with_shared.then_some(shared));
        cells.extend(rest);
        cells
    };
    let mut rows = vec![line(
        ["SCORE", "PRUNED", "COMPENSATED", "SHARED OUT"].map(str::to_owned),
        ["SPARSITY", "PERPLEXITY", "NATS MORE THAN DENSE"].map(str::to_owned),
    )];
    rows.push(line(
        ["dense", "-", "-", "-"].map(str::to_owned),
        ["-".to_owned(), perplexity(&report.dense), "-".to_owned()],
    ));
    rows.extend(report.cells.iter().map(|cell| {
        let error = cell.difference_standard_error;
        let error = error.map_or_else(String::new, |error| format!(" +- {error:.4}"));
        line(
            columns(cell),
            [
                output::percent(cell.sparsity),
                perplexity(&cell.quality),
                format!("{:+.4}{error}", cell.difference),
            ],
        )
    }));
    let first_number = 2 + usize::from(with_kept) + usize::from(with_shared);
    let right: Vec<usize> = [1]
        .into_iter()
        .chain(first_number..first_number + 3)
        .collect();
    // SPARSITY goes first: what was asked stands in a column of its own.
    let dispensable = [first_number, first_number + 2];
    let mut text = output::table_within(width, &rows, &right, &dispensable);
    text += &format!(
        "on {}: {} tokens in {} {}; +- is the standard error over windows\n",
        shown(&report.text),
        output::count(report.tokens as u64),
        output::count(report.windows as u64),
        windows_of(report.context, &report.prefix)
    );
    text
}

/// Writes the table to a file, which appears whole.
fn write(path: &Path, report: &SweepReport) -> anyhow::Result<()> {
    let text = match TableFormat::of(path) {
        Some(TableFormat::Csv) => report.to_csv(),
        Some(TableFormat::Html) => page(&[], std::slice::from_ref(report)),
        _ => untrusted::json(report)?,
    };
    Ok(output::write_whole(path, text.as_bytes())?)
}
