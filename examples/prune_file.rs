//! Prunes a checkpoint to 2:4 by its weights alone, step by step:
//! `cargo run --release --example prune_file -- examples/tiny-llama out`.
//!
//! `run::run` is all of it in one call, with calibration and evaluation.

use std::error::Error;
use std::path::Path;

use swiftprune_wgpu::checkpoint::{Checkpoint, Output, OutputOptions};
use swiftprune_wgpu::device::{Device, DeviceChoice};
use swiftprune_wgpu::plan::{Options, Pattern, Plan, Selection};
use swiftprune_wgpu::prune::{Stop, prune};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, out] = &arguments[..] else {
        return Err("usage: prune_file MODEL OUT".into());
    };
    let two_of_four = Pattern::new(2, 4).ok_or("2:4 is a pattern")?;

    let checkpoint = Checkpoint::open(model)?;
    let output = Output::create(&checkpoint, Path::new(out), &OutputOptions::new())?;
    let plan = Plan::new(
        checkpoint,
        Options::new(Selection::Pattern(two_of_four)),
        None,
    )?;
    let device = Device::open(&DeviceChoice::Auto)?;
    let outcome = prune(&plan, &device, output, &|_| (), &Stop::new())?;

    let zeros: u64 = outcome.counts.iter().flatten().map(|c| c.zeros).sum();
    println!(
        "{}: {zeros} zeros in {:.2?}",
        outcome.finished.path.display(),
        outcome.elapsed
    );
    Ok(())
}
