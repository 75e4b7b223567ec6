//! A temporary checkpoint: pruned beside a copy of it, and run.

use std::path::Path;
use std::time::Instant;

use super::error::Error;
use super::matrices::selections;
use super::options::BenchOptions;
use super::record::{Measurement, Record};
use super::synthetic::{Shape, VOCABULARY};
use super::temporary::TemporaryModel;
use crate::checkpoint::{Output, OutputOptions};
use crate::device::{Device, DeviceKind};
use crate::forward::{Forward, unwatched};
use crate::model::Architecture;
use crate::norms::Norms;
use crate::plan::{Options, Plan};
use crate::prune::{Stop, prune};

/// Tokens a window of the calibration.
const CONTEXT: usize = 512;

/// Measures what needs files, in a temporary directory within `dir`.
pub(super) fn measure(
    device: &Device,
    options: &BenchOptions,
    dir: &Path,
    record: &mut Record,
    progress: &dyn Fn(&str),
) -> Result<(), Error> {
    if device.info().kind == DeviceKind::Software {
        for why in [
            "files: a software adapter would take minutes",
            "calibration: on a software adapter the CPU runs the model",
        ] {
            record.left_out.push(why.to_owned());
        }
        return Ok(());
    }
    let layers = if options.quick { 1 } else { 4 };
    let plural = if layers == 1 { "" } else { "s" };
    let of = format!("{layers} layer{plural} of TinyLlama-1.1B, bf16");
    progress(&of);
    let model = TemporaryModel::generate(dir, &Shape::tiny_llama(layers, VOCABULARY), of)?;
    model.measure_pruning(device, options, record)?;
    model.measure_calibration(device, options, record, progress)
}

impl TemporaryModel {
    /// A copy of the file, and the file pruned in two ways.
    fn measure_pruning(
        &self,
        device: &Device,
        options: &BenchOptions,
        record: &mut Record,
    ) -> Result<(), Error> {
        let temporary = self.failed();
        let model = self.path().join("model.safetensors");
        let copy = self.beside("copy.safetensors");
        let out = self.beside("out.safetensors");
        let norms = Norms::read(&self.path().join("norms.safetensors"))?;
        // In turns, so that what else the machine does meets all of them alike.
        let [ewma, _, pattern] = selections();
        let mut plans = Vec::new();
        for selection in [ewma, pattern] {
            let options = Options::new(selection);
            plans.push(Plan::new(self.open()?, options, Some(norms.clone()))?);
        }
        let mut wall = [const { Vec::new() }; 3];
        for round in 0..=options.samples {
            let mut took = [0.0; 3];
            let start = Instant::now();
            std::fs::copy(&model, &copy).map_err(&temporary)?;
            took[0] = start.elapsed().as_secs_f64();
            std::fs::remove_file(&copy).map_err(&temporary)?;
            for (plan, took) in plans.iter().zip(&mut took[1..]) {
                let start = Instant::now();
                let options = OutputOptions::new().overwrite(true);
                let output = Output::create(plan.checkpoint(), &out, &options)?;
                prune(plan, device, output, &|_| (), &Stop::new())?;
                *took = start.elapsed().as_secs_f64();
                std::fs::remove_file(&out).map_err(&temporary)?;
            }
            // The first round warms the page cache.
            if round > 0 {
                wall.iter_mut()
                    .zip(took)
                    .for_each(|(wall, took)| wall.push(took));
            }
        }
        for (what, wall) in ["copy", "file 50 % ewma", "file 2:4"].into_iter().zip(wall) {
            record.cases.push(Measurement {
                what: what.to_owned(),
                of: self.of.clone(),
                bytes: self.bytes,
                weights: self.weights,
                tokens: 0,
                operations: 0,
                wall,
                device: Vec::new(),
            });
        }
        Ok(())
    }

    /// The forward pass that measures column norms.
    fn measure_calibration(
        &self,
        device: &Device,
        options: &BenchOptions,
        record: &mut Record,
        progress: &dyn Fn(&str),
    ) -> Result<(), Error> {
        let checkpoint = self.open()?;
        let architecture = Architecture::of(&checkpoint)?;
        let windows = if options.quick { 1 } else { 4 };
        let tokens: Vec<u32> = (0..(CONTEXT * windows) as u32)
            .map(|i| i * 7919 % VOCABULARY as u32)
            .collect();
        let sequences: Vec<&[u32]> = tokens.chunks(CONTEXT).collect();
        progress(&format!("calibration, {} tokens", tokens.len()));
        let mut wall = Vec::new();
        for round in 0..=options.samples.min(3) {
            let start = Instant::now();
            Forward::new(&checkpoint, &architecture, device).statistics(&sequences, &unwatched)?;
            if round > 0 {
                wall.push(start.elapsed().as_secs_f64());
            }
        }
        record.cases.push(Measurement {
            what: "calibration".to_owned(),
            of: self.of.clone(),
            bytes: 0,
            weights: self.weights,
            tokens: tokens.len() as u64,
            operations: 2 * self.weights * tokens.len() as u64,
            wall,
            device: Vec::new(),
        });
        Ok(())
    }
}
