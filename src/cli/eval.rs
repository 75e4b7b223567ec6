//! `eval`: perplexity, with everything that it depends on.

use std::io::Write as _;

use serde::Serialize;
use swiftprune_wgpu::calibration::{Text, windows_of};
use swiftprune_wgpu::checkpoint::Checkpoint;
use swiftprune_wgpu::evaluation::{Evaluation, Windows};
use swiftprune_wgpu::report::EvaluationReport;
use swiftprune_wgpu::run::DevicePair;
use swiftprune_wgpu::untrusted::{self, shown};

use super::args::Eval;
use super::output;
use super::progress::Pass;
use super::terminal::Terminal;

#[derive(Serialize)]
struct EvalRecord<'a> {
    version: &'static str,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    against_model: Option<&'a str>,
    #[serde(flatten)]
    evaluation: &'a EvaluationReport,
}

pub(super) fn run(args: &Eval, terminal: Terminal) -> anyhow::Result<()> {
    // Both are opened first: a second name with a mistake in it should not cost the first's run.
    let checkpoint = Checkpoint::open(&args.model)?;
    let against = args.against.as_deref().map(Checkpoint::open).transpose()?;
    for checkpoint in [Some(&checkpoint), against.as_ref()].into_iter().flatten() {
        for warning in checkpoint.warnings() {
            terminal.warn(warning);
        }
    }
    let text = match &args.text {
        Some(path) => Text::read(path)?,
        None => Text::held_out(),
    };
    // So are the windows of both made first.
    let windows = |checkpoint| Windows::new(checkpoint, &text, args.context, args.tokens);
    let of_first = windows(&checkpoint)?;
    let of_second = against.as_ref().map(windows).transpose()?;
    let mut devices = DevicePair::open(&args.on.device, args.on.threads.map(usize::from))?;
    devices.prepare_forward()?;
    for reason in devices.passed_over() {
        terminal.warn(format_args!("not used: {reason}"));
    }
    let first = measure(&of_first, &checkpoint, &devices, terminal)?;
    let second = match (&of_second, &against) {
        (Some(windows), Some(checkpoint)) => {
            Some(measure(windows, checkpoint, &devices, terminal)?)
        }
        _ => None,
    };
    let evaluation = EvaluationReport::new(&text, &first, second.as_ref());
    let mut stdout = std::io::stdout().lock();
    if args.json {
        let record = EvalRecord {
            version: env!("CARGO_PKG_VERSION"),
            model: &args.model,
            against_model: args.against.as_deref(),
            evaluation: &evaluation,
        };
        stdout.write_all(untrusted::json(&record)?.as_bytes())?;
    } else {
        stdout.write_all(lines(&evaluation).as_bytes())?;
    }
    Ok(())
}

/// Runs one checkpoint over the windows, with progress.
fn measure(
    windows: &Windows,
    checkpoint: &Checkpoint,
    devices: &DevicePair,
    terminal: Terminal,
) -> anyhow::Result<Evaluation> {
    let pass = Pass::new("evaluating", terminal);
    let evaluation = devices.run_forward(
        |device| windows.run(checkpoint, device, &|at| pass.watch(at)),
        |error| {
            terminal.warn(format_args!(
                "{error}. The CPU runs the model, from the start"
            ))
        },
    );
    pass.finish();
    Ok(evaluation?)
}

/// The result for humans: two lines, or four with a second checkpoint.
pub(super) fn lines(evaluation: &EvaluationReport) -> String {
    let on = format!(
        "on {}: {} tokens in {} {}, {:.0} tokens/s on {}",
        shown(&evaluation.text),
        output::count(evaluation.tokens as u64),
        output::count(evaluation.windows as u64),
        windows_of(evaluation.context, &evaluation.prefix),
        evaluation.tokens_per_second,
        output::device(&evaluation.device),
    );
    let perplexity = evaluation.perplexity;
    let Some(against) = &evaluation.against else {
        return format!("perplexity {perplexity:.4}\n{on}\n");
    };
    let mut text = format!("perplexity {perplexity:.4} -> {:.4}\n", against.perplexity);
    text += &match (against.difference, against.standard_error) {
        (Some(difference), Some(error)) => {
            format!(
                "difference {difference:+.5} +- {error:.5} nats per token (standard error over windows)\n"
            )
        }
        (Some(difference), None) => format!("difference {difference:+.5} nats per token\n"),
        (None, _) => "cannot compare: the two models tokenise the text differently\n".to_owned(),
    };
    text + &on + "\n"
}
