//! `prune`: flags become options, the library runs, the result is told.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::Context as _;
use swiftprune_wgpu::calibration::Calibration;
use swiftprune_wgpu::checkpoint::{Checkpoint, Output};
use swiftprune_wgpu::device::Device;
use swiftprune_wgpu::evaluation::Windows;
use swiftprune_wgpu::norms;
use swiftprune_wgpu::plan::{Options, Plan};
use swiftprune_wgpu::report::{EvaluationReport, Report, Row, checksums, report};
use swiftprune_wgpu::scores::{NormsUse, Score};
use swiftprune_wgpu::selection::Selection;
use swiftprune_wgpu::text::Text;
use swiftprune_wgpu::{prune, targets};

use super::args::{Prune, Rule, TextChoice};
use super::device::Devices;
use super::progress::{Pass, Progress};
use super::{Terminal, calibrate, dry_run, eval, output};

pub(super) fn run(args: &Prune, terminal: Terminal) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&args.model)?;
    let out = args
        .output
        .clone()
        .unwrap_or_else(|| checkpoint.default_output());
    let mut options = options(args)?;
    let (calibration, impossible) = calibration(args, &checkpoint, &options)?;
    if let Some(calibration) = &calibration {
        // The plan is checked with stand-ins: what is wrong should be told before minutes of work.
        options.norms = Some(calibration.pending(&checkpoint)?);
    }
    let mut plan = Plan::new(checkpoint, options)?;
    plan.warnings.splice(0..0, impossible);
    let devices = Devices::open(&args.on)?;
    let (device, of_model) = (&devices.chosen, devices.of_model());
    let info = device.info().clone();
    for line in settings(
        &plan,
        device,
        calibration
            .as_ref()
            .map(|c| calibrate::setting(c, of_model)),
    ) {
        terminal.say(line);
    }
    for warning in &plan.warnings {
        terminal.warn(warning);
    }
    if args.dry_run {
        let memory = prune::memory(&plan, device);
        let seconds = prune::estimate(&plan, device)?.map(|time| time.as_secs_f64());
        return dry_run::print(&plan, &info, memory, seconds, args.json, terminal);
    }

    let evaluation = match args.eval {
        true => {
            let text = Text::held_out();
            let windows = Windows::new(&plan.checkpoint, &text, args.context, None);
            let windows = windows.context("cannot evaluate (leave --eval out)")?;
            Some((text, windows))
        }
        false => None,
    };
    // Opened before the work: a report that cannot be written should not cost a run.
    let report_file = args.report.as_deref().map(ReportFile::create).transpose()?;
    let output = Output::create(&plan.checkpoint, &out, args.force)?;
    if let Some(calibration) = &calibration {
        let pass = Pass::new("calibrating", terminal);
        let start = Instant::now();
        let norms = calibration.run(&plan.checkpoint, of_model, &|at| pass.at(at));
        pass.finish();
        plan = plan.with_norms(norms?)?;
        terminal.say(calibrate::done(calibration, start.elapsed()));
    }
    let progress = Progress::new(&plan, terminal);
    let outcome = prune::prune(&plan, device, output, args.sync, &|event| {
        progress.event(event)
    });
    progress.finish();
    let outcome = outcome?;

    let mut report = report(&plan, &info, &outcome, std::env::args().collect());
    if args.checksum {
        let sums = checksums(&plan, &outcome.finished.path)
            .with_context(|| format!("cannot read back {}", outcome.finished.path.display()))?;
        report.sha256 = Some(sums);
    }
    if let Some((text, windows)) = &evaluation {
        let mut pruned = Checkpoint::open(&outcome.finished.path.to_string_lossy())?;
        // Beside a single file there is no config.json, or another one's.
        pruned.config.clone_from(&plan.checkpoint.config);
        let before = eval::measure(windows, &plan.checkpoint, of_model, terminal)?;
        let after = eval::measure(windows, &pruned, of_model, terminal)?;
        report.evaluation = Some(EvaluationReport::new(text, &before, Some(&after)));
    }
    if let Some(file) = report_file {
        file.write(&report)?;
    }
    if !terminal.quiet {
        eprint!("{}", summary(&report));
    }
    if args.json {
        let mut stdout = std::io::stdout().lock();
        serde_json::to_writer_pretty(&mut stdout, &report)?;
        writeln!(stdout)?;
    }
    Ok(())
}

fn options(args: &Prune) -> anyhow::Result<Options> {
    let selection = match (args.pattern, args.lambda, args.selection) {
        (Some(pattern), _, _) => Selection::Pattern(pattern),
        (_, Some(lambda), _) => Selection::Lambda {
            lambda,
            ewma: args.ewma(),
        },
        (_, _, Rule::Ewma) => Selection::Ewma {
            sparsity: args.sparsity.unwrap_or(0.5),
            ewma: args.ewma(),
        },
        (_, _, Rule::Exact) => Selection::Exact {
            sparsity: args.sparsity.unwrap_or(0.5),
        },
    };
    let mut options = Options::new(selection);
    options.score = args.score.as_deref().and_then(Score::by_name);
    options.norms = args.norms.as_deref().map(norms::Norms::read).transpose()?;
    options.targets = targets::Selection::new(&args.include, &args.exclude)?;
    options.keep_non_finite = args.keep_non_finite;
    options.squared_error = args.json || args.report.is_some();
    Ok(options)
}

/// The calibration, if one is wanted and possible; or, if it is not possible, a warning that says why.
fn calibration(
    args: &Prune,
    checkpoint: &Checkpoint,
    options: &Options,
) -> anyhow::Result<(Option<Calibration>, Option<String>)> {
    let unused = options
        .score
        .is_some_and(|score| score.norms == NormsUse::Unused);
    if options.norms.is_some() || unused {
        return Ok((None, None));
    }
    let text = match &args.calibration {
        TextChoice::None => return Ok((None, None)),
        TextChoice::Builtin => Text::calibration(),
        TextChoice::File(path) => Text::read(path)?,
    };
    match Calibration::new(checkpoint, text, args.tokens, args.context) {
        Ok(calibration) => Ok((Some(calibration), None)),
        Err(error) if error.is_unsupported() => Ok((
            None,
            Some(format!(
                "cannot calibrate: {error}; give --norms FILE (of `calibrate`, or a llama.cpp importance matrix)"
            )),
        )),
        Err(error) => {
            Err(anyhow::Error::new(error)
                .context("cannot calibrate (--calibration none goes without)"))
        }
    }
}

/// Every setting that the result depends on.
fn settings(plan: &Plan, device: &Device, calibration: Option<String>) -> Vec<String> {
    let rule = match plan.options.selection {
        Selection::Ewma { sparsity, ewma } => {
            let (block, divisor) = (ewma.block_size(), 1 << ewma.gain_shift());
            format!(
                "{} of each row, EWMA (block {block}, gain 1/{divisor})",
                output::percent(sparsity)
            )
        }
        Selection::Exact { sparsity } => {
            format!("{} of each row, exact", output::percent(sparsity))
        }
        Selection::Lambda { lambda, ewma } => {
            let (block, divisor) = (ewma.block_size(), 1 << ewma.gain_shift());
            format!("lambda {lambda}, EWMA (block {block}, gain 1/{divisor})")
        }
        Selection::Pattern(pattern) => {
            format!("{pattern} ({} kept of every {})", pattern.n(), pattern.m())
        }
        _ => String::new(),
    };
    let norms = match (&plan.options.norms, calibration) {
        (Some(_), Some(calibration)) => calibration,
        (Some(norms), None) if plan.uses_norms() => {
            let tokens = norms
                .source
                .tokens
                .map_or_else(String::new, |n| format!(", {} tokens", output::count(n)));
            format!(
                "{} ({}{tokens})",
                norms.source.path.display(),
                norms.source.format
            )
        }
        _ => "none".to_owned(),
    };
    vec![
        format!(
            "model   {}",
            output::printable(&plan.checkpoint.source.weights().path().to_string_lossy())
        ),
        format!("prune   {rule}"),
        format!(
            "score   {}: {}{}",
            plan.score.name,
            plan.score.formula,
            if plan.options.norms.is_none() && plan.score.norms != NormsUse::Unused {
                ", with n = 1"
            } else {
                ""
            }
        ),
        format!("norms   {}", output::printable(&norms)),
        format!("device  {}", device.info()),
    ]
}

/// The table of kinds and the closing lines.
fn summary(report: &Report) -> String {
    let squares = report.prunable.squared_error.is_some();
    let mut head = vec!["KIND", "TENSORS", "WEIGHTS", "ZEROS", "SPARSITY", "ASKED"];
    if squares {
        head.push("ERROR");
    }
    let line = |row: &Row| {
        let mut cells = vec![
            output::printable(&row.kind),
            output::count(row.tensors as u64),
            output::count(row.weights),
            output::count(row.zeros),
            output::percent(row.sparsity),
            row.asked.map_or_else(|| "-".to_owned(), output::percent),
        ];
        if squares {
            cells.push(
                row.squared_error
                    .map_or_else(|| "-".to_owned(), output::percent),
            );
        }
        cells
    };
    let mut rows = vec![head.into_iter().map(str::to_owned).collect()];
    rows.extend(
        report
            .kinds
            .iter()
            .chain([&report.prunable, &report.all_weights])
            .map(line),
    );
    let mut text = output::table(&rows, &[1, 2, 3, 4, 5, 6]);
    let kept = report.prunable.non_finite;
    if kept > 0 {
        text += &format!(
            "{} NaN or infinite weights were left alone\n",
            output::count(kept)
        );
    }
    for (name, reason) in &report.left_out {
        text += &format!("left out {}: {reason}\n", output::printable(name));
    }
    for (name, sum) in report.sha256.iter().flatten() {
        text += &format!("sha256 {sum}  {}\n", output::printable(name));
    }
    if let Some(evaluation) = &report.evaluation {
        text += &eval::lines(evaluation);
    }
    text += &format!(
        "{}: {} in {:.2} s ({:.2} GB/s) on {}\n",
        output::printable(&report.output.to_string_lossy()),
        output::bytes(report.bytes),
        report.seconds,
        report.bytes as f64 / 1e9 / report.seconds,
        report.device
    );
    text
}

/// The report's file, opened early and taken away again if there is nothing to report.
struct ReportFile<'a> {
    path: &'a Path,
    file: Option<File>,
}

impl<'a> ReportFile<'a> {
    /// # Errors
    /// When there is something at `path`: a report replaces nothing.
    fn create(path: &'a Path) -> anyhow::Result<Self> {
        let file = File::create_new(path).with_context(|| {
            format!(
                "cannot write the report {}; give a new name",
                path.display()
            )
        })?;
        Ok(Self {
            path,
            file: Some(file),
        })
    }

    fn write(mut self, report: &Report) -> anyhow::Result<()> {
        let context = || format!("cannot write the report {}", self.path.display());
        let mut json = serde_json::to_vec_pretty(report).with_context(context)?;
        json.push(b'\n');
        if let Some(mut file) = self.file.take() {
            file.write_all(&json)
                .with_context(|| format!("cannot write the report {}", self.path.display()))?;
        }
        Ok(())
    }
}

impl Drop for ReportFile<'_> {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            let _ = std::fs::remove_file(self.path);
        }
    }
}
