//! `calibrate`: the column norms of a model, written to a file of their own.

use std::time::Instant;

use anyhow::bail;
use swiftprune_wgpu::calibration::Calibration;
use swiftprune_wgpu::calibration::Text;
use swiftprune_wgpu::checkpoint::{Checkpoint, keep_apart, keep_off_model};
use swiftprune_wgpu::norms::few_tokens;
use swiftprune_wgpu::run::DevicePair;
use swiftprune_wgpu::untrusted::shown_path;

use super::args::Calibrate;
use super::progress::{self, Pass};
use super::settings;
use super::terminal::Terminal;

pub(super) fn run(args: &Calibrate, terminal: Terminal) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::open(&args.model)?;
    for warning in checkpoint.warnings() {
        terminal.warn(warning);
    }
    let text = match &args.text {
        Some(path) => Text::read(path)?,
        None => Text::calibration(),
    };
    keep_off_model(&args.output, &checkpoint)?;
    if let Some(text) = &args.text {
        keep_apart(&args.output, "the text", text)?;
    }
    if args.output.symlink_metadata().is_ok() && !args.force {
        let path = shown_path(&args.output);
        bail!("{path} exists; choose another output, or use --force to replace it");
    }
    let calibration = Calibration::new(&checkpoint, text, args.tokens, args.context)?
        .with_means(args.means)
        .with_sketch(args.sketch)
        .with_sketches_beside(&args.output);
    let mut devices = DevicePair::open(&args.on.device, args.on.threads.map(usize::from))?;
    devices.prepare_forward()?;
    for reason in devices.passed_over() {
        terminal.warn(format_args!("not used: {reason}"));
    }
    let weights = checkpoint.source.weights();
    let weights = shown_path(weights.path());
    terminal.say(format_args!("model   {weights}"));
    terminal.say(format_args!(
        "norms   {}",
        settings::calibration(&calibration, devices.forward())
    ));
    let widest = calibration
        .coverage(&checkpoint)
        .in_features
        .into_values()
        .max();
    if let Some(warning) = few_tokens(calibration.tokens() as u64, widest.unwrap_or(0)) {
        terminal.warn(warning);
    }
    let pass = Pass::new("calibrating", terminal);
    let start = Instant::now();
    let norms = devices.run_forward(
        |device| calibration.run(&checkpoint, device, &|at| pass.watch(at)),
        |error| {
            terminal.warn(format_args!(
                "{error}. The CPU runs the model, from the start"
            ))
        },
    );
    pass.finish();
    norms?.write(&args.output)?;
    terminal.say(progress::calibrated(calibration.tokens(), start.elapsed()));
    terminal.say(shown_path(&args.output));
    Ok(())
}
