//! The whole run on a temporary model: calibrated, pruned, compensated and evaluated, as `prune --compensate --eval` does it.
//! Beside it the device's own copy and its own matrix product, which a run is made of.

use std::path::Path;
use std::time::Instant;

use super::error::Error;
use super::matrices::{MATRICES, passes, samples, selections, timed_pass, weights};
use super::options::BenchOptions;
use super::record::{Measurement, PRODUCT, Record, WHOLE_RUN};
use super::synthetic::Shape;
use super::temporary::TemporaryModel;
use crate::calibration::DEFAULT_TOKENS;
use crate::compensation::Compensation;
use crate::device::{Backend, Device, DeviceChoice, DeviceKind};
use crate::dtype::Dtype;
use crate::forward::PeakProduct;
use crate::plan::Options;
use crate::recipe::Rows;
use crate::report::Report;
use crate::run::{Request, run, stand_in};

/// Blocks of SmolLM2-135M.
const BLOCKS: usize = 30;

/// Blocks with `quick`, and for a software adapter, which needs a second for each of them.
const QUICK_BLOCKS: usize = 2;

/// Rows, terms and columns of the product.
const PRODUCT_SIZE: usize = 2048;

/// The same where little is measured.
const QUICK_PRODUCT_SIZE: usize = 512;

/// The most samples of a run: it takes long, and its parts are measured on their own.
const MOST_SAMPLES: usize = 3;

/// Measures a whole run, its phases, and what the device could do at most.
pub(super) fn measure(
    device: &Device,
    options: &BenchOptions,
    dir: &Path,
    record: &mut Record,
    progress: &dyn Fn(&str),
) -> Result<(), Error> {
    let is_software = device.info().kind == DeviceKind::Software;
    let is_quick = options.quick || is_software;
    if is_software {
        let why =
            "whole run: on a software adapter the CPU runs the model, and few blocks are measured";
        record.left_out.push(why.to_owned());
    }
    let (blocks, size) = if is_quick {
        (QUICK_BLOCKS, QUICK_PRODUCT_SIZE)
    } else {
        (BLOCKS, PRODUCT_SIZE)
    };
    let shape = Shape::smollm2(blocks);
    let of = format!("whole run of {blocks} blocks of SmolLM2-135M, bf16, 50 % ewma, compensated");
    progress(&of);
    let instead = stand_in(device, None)?;
    let runs_model = instead.as_ref().unwrap_or(device);
    let yardsticks = [
        copy(device, options, &of, is_quick)?,
        product(runs_model, options, &of, size)?,
    ];

    let model = TemporaryModel::generate(dir, &shape, of)?;
    let mut reports = Vec::new();
    let mut wall = Vec::new();
    // The first round brings the model into the page cache and the kernels into the driver's.
    for round in 0..=options.samples.min(MOST_SAMPLES) {
        progress(&format!("whole run, round {}", round + 1));
        let start = Instant::now();
        let report = run(request(device, &model), &|_| ())?;
        let seconds = start.elapsed().as_secs_f64();
        if round > 0 {
            wall.push(seconds);
            reports.push(report);
        }
    }
    record.cases.extend(cases(&model, &shape, wall, &reports));
    record.cases.extend(yardsticks);
    Ok(())
}

/// The run that is measured, on the device that is open already: `run` opens it once more, as a user's run does.
fn request(device: &Device, model: &TemporaryModel) -> Request {
    let [ewma, ..] = selections();
    let mut options = Options::new(ewma);
    options.compensation = Some(Compensation::new(&ewma));
    let mut request = Request::new(model.path().to_string_lossy(), options);
    request.output = Some(model.beside("out"));
    request.evaluate = true;
    request.overwrite = true;
    request.card = false;
    (request.device, request.threads) = match (device.info().index, device.backend()) {
        (Some(index), _) => (DeviceChoice::Index(index), None),
        (None, Backend::Cpu(cpu)) => (DeviceChoice::Cpu, Some(cpu.threads())),
        (None, Backend::Gpu(_)) => (DeviceChoice::Gpu, None),
    };
    request
}

/// The run and its phases: what went through them, and how long they took.
fn cases(
    model: &TemporaryModel,
    shape: &Shape,
    wall: Vec<f64>,
    reports: &[Report],
) -> Vec<Measurement> {
    let evaluated = reports
        .first()
        .and_then(|report| report.evaluation.as_ref())
        // The first token of a window is not predicted, and goes through the model all the same.
        .map_or(0, |evaluation| evaluation.tokens + evaluation.windows);
    let linear = shape.linear_weights() as u64;
    let head = shape.hidden as u64 * shape.vocabulary as u64;
    let case =
        |what: &str, passes: u64, tokens: usize, operations: u64, wall: Vec<f64>| Measurement {
            what: what.to_owned(),
            of: model.of.clone(),
            bytes: passes * model.bytes,
            weights: linear,
            tokens: tokens as u64,
            operations,
            wall,
            device: Vec::new(),
        };
    let seconds = |phase: &str| -> Vec<f64> {
        reports
            .iter()
            .filter_map(|report| report.phases.get(phase).copied())
            .collect()
    };
    // Before and after.
    let evaluated = 2 * evaluated;
    let of_calibration = 2 * linear * DEFAULT_TOKENS as u64;
    let of_evaluation = 2 * (linear + head) * evaluated as u64;
    vec![
        case(
            WHOLE_RUN,
            4,
            DEFAULT_TOKENS + evaluated,
            of_calibration + of_evaluation,
            wall,
        ),
        case(
            "calibrate",
            1,
            DEFAULT_TOKENS,
            of_calibration,
            seconds("calibrate"),
        ),
        case("prune and compensate", 1, 0, 0, seconds("prune")),
        case(
            "evaluate before and after",
            2,
            evaluated,
            of_evaluation,
            seconds("evaluate"),
        ),
    ]
}

/// The device's copy of a matrix, from memory to memory.
fn copy(
    device: &Device,
    options: &BenchOptions,
    of: &str,
    is_quick: bool,
) -> Result<Measurement, Error> {
    let (_, rows, in_features) = MATRICES[3];
    let rows = if is_quick { rows / 32 } else { rows };
    let bytes = weights(Dtype::Bf16, rows * in_features);
    let rows = Rows {
        dtype: Dtype::Bf16,
        in_features,
        bytes: &bytes,
    };
    let [copy, ..] = passes(in_features);
    let case = timed_pass(device, options.samples, of, rows, copy);
    pollster::block_on(case)
}

/// The product of two square matrices on the device that runs the model.
fn product(
    device: &Device,
    options: &BenchOptions,
    of: &str,
    size: usize,
) -> Result<Measurement, Error> {
    let mut product = PeakProduct::new(device, size)?;
    let run = async |repetitions| product.run(repetitions);
    let (wall, device) = pollster::block_on(samples(options.samples, run))?;
    Ok(Measurement {
        what: format!("{PRODUCT} {size}x{size}x{size}"),
        of: of.to_owned(),
        bytes: 0,
        weights: size as u64 * size as u64,
        tokens: 0,
        operations: 2 * (size as u64).pow(3),
        wall,
        device,
    })
}
