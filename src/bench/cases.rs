//! What is measured on a device, and how: warm-up first, then samples, each over so many repetitions that the clock's
//! grain and a submission's cost do not show.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::error::Error;
use super::record::{Case, Record};
use super::synthetic;
use crate::checkpoint::{Checkpoint, Output, OutputOptions};
use crate::device::timing::{Elapsed, Timed};
use crate::device::{Device, DeviceKind};
use crate::dtype::Dtype;
use crate::forward::Forward;
use crate::model::Architecture;
use crate::norms::Norms;
use crate::plan::{Options as PruneOptions, Plan};
use crate::prune::prune;
use crate::recipe::{Factors, Recipe, Rows, Step};
use crate::selection::{Ewma, Pattern, Selection};

/// Matrices of models: name, rows, in_features.
pub const MATRICES: [(&str, usize, usize); 5] = [
    ("SmolLM2-135M q_proj", 576, 576),
    ("Pythia-1.4B dense_4h_to_h", 2048, 8192),
    ("LLaMA-2-7B q_proj", 4096, 4096),
    ("LLaMA-2-7B down_proj", 4096, 11008),
    ("LLaMA-3-8B down_proj", 4096, 14336),
];

/// Weights a matrix is cut to with `quick`, and on a software adapter, which needs seconds for a whole one.
const QUICK_WEIGHTS: usize = 1 << 20;

/// How long a sample takes at least.
const SAMPLE: Duration = Duration::from_millis(40);

/// What to measure, and how often.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Options {
    /// How the weights are stored.
    pub dtypes: Vec<Dtype>,
    /// Samples a case.
    pub samples: usize,
    /// A small part of every matrix, one layer and few tokens.
    pub quick: bool,
    /// Where to put the temporary checkpoint; without a place, what needs files is left out.
    pub dir: Option<PathBuf>,
}

impl Options {
    /// bf16, ten samples, everything.
    #[must_use]
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dtypes: vec![Dtype::Bf16],
            samples: 10,
            quick: false,
            dir,
        }
    }
}

/// Measures one device; `progress` is told what comes next.
///
/// # Errors
/// Every variant of [`Error`].
pub fn run(device: &Device, options: &Options, progress: &dyn Fn(&str)) -> Result<Record, Error> {
    let mut record = Record::new(device.info().clone());
    let is_software = device.info().kind == DeviceKind::Software;
    if is_software {
        let why = "a software adapter, which is for tests: small parts of the matrices";
        record.left_out.push(why.to_owned());
    }
    for &dtype in &options.dtypes {
        for (name, rows, in_features) in MATRICES {
            let rows = if options.quick || is_software {
                rows.min(QUICK_WEIGHTS / in_features)
            } else {
                rows
            };
            if device.can_time(rows, in_features) {
                matrix(
                    device,
                    options,
                    dtype,
                    (name, rows, in_features),
                    &mut record,
                    progress,
                )?;
            } else {
                let what = format!("{name}: {rows}x{in_features} does not fit one buffer here");
                record.left_out.push(what);
            }
        }
    }
    match &options.dir {
        Some(dir) => files(device, options, dir, &mut record, progress)?,
        None => record
            .left_out
            .push("files and calibration: not asked for".to_owned()),
    }
    Ok(record)
}

/// Every pass over one matrix.
fn matrix(
    device: &Device,
    options: &Options,
    dtype: Dtype,
    (name, rows, in_features): (&str, usize, usize),
    record: &mut Record,
    progress: &dyn Fn(&str),
) -> Result<(), Error> {
    let bytes = weights(dtype, rows * in_features);
    let weights = Rows {
        dtype,
        in_features,
        bytes: &bytes,
    };
    let of = format!(
        "{name}, {} {rows}x{in_features}",
        dtype.name().to_lowercase()
    );
    progress(&of);
    for (what, timed, recipe) in passes(in_features) {
        let mut timer = device.timer(timed, weights, &recipe)?;
        let (wall, device) = samples(options.samples, |repetitions| timer.run(repetitions))?;
        record.cases.push(Case {
            what: what.to_owned(),
            of: of.clone(),
            bytes: bytes.len() as u64,
            weights: (rows * in_features) as u64,
            tokens: 0,
            operations: 0,
            wall,
            device,
        });
    }
    Ok(())
}

/// What is timed on rows of `in_features` weights: its name, and how.
#[must_use]
pub fn passes(in_features: usize) -> [(&'static str, Timed, Recipe); 9] {
    let recipe = |selection| Recipe {
        selection,
        factors: Factors {
            column: (0..in_features).map(|j| 1.0 / (1 + j % 7) as f32).collect(),
            terms: None,
        },
    };
    let [ewma, exact, pattern] = selections().map(recipe);
    [
        ("copy", Timed::Copy, ewma.clone()),
        ("column_norm", Timed::ColumnNorm, ewma.clone()),
        ("score", Timed::Alone(Step::Score), ewma.clone()),
        ("ewma", Timed::Alone(Step::Ewma), ewma.clone()),
        ("select", Timed::Alone(Step::Select), ewma.clone()),
        ("n_of_m", Timed::Alone(Step::Select), pattern.clone()),
        ("fused 50 % ewma", Timed::Mask, ewma),
        ("fused 50 % exact", Timed::Mask, exact),
        ("fused 2:4", Timed::Mask, pattern),
    ]
}

/// Seconds a repetition, by the host's clock and by the device's.
fn samples<E>(
    count: usize,
    mut run: impl FnMut(u32) -> Result<Elapsed, E>,
) -> Result<(Vec<f64>, Vec<f64>), E> {
    // The first compiles, and brings everything into the caches it will stay in.
    run(1)?;
    let once = run(1)?.wall.as_secs_f64().max(1e-7);
    let repetitions = (SAMPLE.as_secs_f64() / once).clamp(1.0, 10_000.0).ceil() as u32;
    let (mut wall, mut device) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let elapsed = run(repetitions)?;
        wall.push(elapsed.wall.as_secs_f64() / f64::from(repetitions));
        device.extend(
            elapsed
                .device
                .map(|d| d.as_secs_f64() / f64::from(repetitions)),
        );
    }
    Ok((wall, device))
}

/// A temporary checkpoint pruned beside a copy of it, and run.
fn files(
    device: &Device,
    options: &Options,
    dir: &Path,
    record: &mut Record,
    progress: &dyn Fn(&str),
) -> Result<(), Error> {
    let temporary = |error| Error::Temporary {
        dir: dir.display().to_string(),
        error,
    };
    let layers = if options.quick { 1 } else { 4 };
    let plural = if layers == 1 { "" } else { "s" };
    let of = format!("{layers} layer{plural} of TinyLlama-1.1B, bf16");
    progress(&of);
    let dir = tempfile::Builder::new()
        .prefix("swiftprune-bench-")
        .tempdir_in(dir)
        .map_err(temporary)?;
    let bytes =
        synthetic::generate(dir.path(), layers, synthetic::VOCABULARY).map_err(temporary)? as u64;
    let model = dir.path().join("model.safetensors");
    let copy = dir.path().join("copy.safetensors");
    let out = dir.path().join("out.safetensors");
    let norms = Norms::read(&dir.path().join("norms.safetensors"))?;
    let open = || Checkpoint::open(&model.to_string_lossy());

    let is_software = record.device.kind == DeviceKind::Software;
    if is_software {
        let why = "files: a software adapter would take minutes";
        record.left_out.push(why.to_owned());
    } else {
        // In turns, so that what else the machine does meets all of them alike.
        let [ewma, _, pattern] = selections();
        let mut plans = Vec::new();
        for selection in [ewma, pattern] {
            let options = PruneOptions::new(selection);
            plans.push(Plan::new(open()?, options, Some(norms.clone()))?);
        }
        let mut wall = [const { Vec::new() }; 3];
        for round in 0..=options.samples {
            let mut took = [0.0; 3];
            let start = Instant::now();
            std::fs::copy(&model, &copy).map_err(temporary)?;
            took[0] = start.elapsed().as_secs_f64();
            std::fs::remove_file(&copy).map_err(temporary)?;
            for (plan, took) in plans.iter().zip(&mut took[1..]) {
                let start = Instant::now();
                let output = Output::create(
                    plan.checkpoint(),
                    &out,
                    &OutputOptions::new().overwrite(true),
                )?;
                prune(plan, device, output, &|_| ())?;
                *took = start.elapsed().as_secs_f64();
                std::fs::remove_file(&out).map_err(temporary)?;
            }
            // The first round warms the page cache.
            if round > 0 {
                wall.iter_mut()
                    .zip(took)
                    .for_each(|(wall, took)| wall.push(took));
            }
        }
        let weights = (layers * synthetic::LAYER_WEIGHTS) as u64;
        for (what, wall) in ["copy", "file 50 % ewma", "file 2:4"].into_iter().zip(wall) {
            record.cases.push(Case {
                what: what.to_owned(),
                of: of.clone(),
                bytes,
                weights,
                tokens: 0,
                operations: 0,
                wall,
                device: Vec::new(),
            });
        }
    }

    if is_software {
        let why = "calibration: on a software adapter the CPU runs the model";
        record.left_out.push(why.to_owned());
        return Ok(());
    }
    let checkpoint = open()?;
    let architecture = Architecture::of(&checkpoint)?;
    let windows = if options.quick { 1 } else { 4 };
    let tokens: Vec<u32> = (0..512 * windows as u32)
        .map(|i| i * 7919 % synthetic::VOCABULARY as u32)
        .collect();
    let sequences: Vec<&[u32]> = tokens.chunks(512).collect();
    progress(&format!("calibration, {} tokens", tokens.len()));
    let mut wall = Vec::new();
    for round in 0..=options.samples.min(3) {
        let start = Instant::now();
        Forward::new(&checkpoint, &architecture, device).column_norms(&sequences, &|_| ())?;
        if round > 0 {
            wall.push(start.elapsed().as_secs_f64());
        }
    }
    let weights = (layers * synthetic::LAYER_WEIGHTS) as u64;
    record.cases.push(Case {
        what: "calibration".to_owned(),
        of,
        bytes: 0,
        weights,
        tokens: tokens.len() as u64,
        operations: 2 * weights * tokens.len() as u64,
        wall,
        device: Vec::new(),
    });
    Ok(())
}

/// 50 % by the moving average, 50 % exactly, 2:4.
fn selections() -> [Selection; 3] {
    let (sparsity, ewma) = (0.5, Ewma::default());
    let two_of_four = Pattern::new(2, 4).map_or(Selection::Exact { sparsity }, Selection::Pattern);
    [
        Selection::Ewma { sparsity, ewma },
        Selection::Exact { sparsity },
        two_of_four,
    ]
}

/// Finite weights of about the size that models have, the same each time.
#[must_use]
pub fn weights(dtype: Dtype, count: usize) -> Vec<u8> {
    let mut state = 0x5eed_u32;
    let value = move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 24) as f32 * 0.08 - 0.04
    };
    let values = std::iter::repeat_with(value).take(count);
    match dtype {
        Dtype::Bf16 => values
            .flat_map(|v| ((v.to_bits() >> 16) as u16).to_ne_bytes())
            .collect(),
        Dtype::F16 => values
            .flat_map(|v| half::f16::from_f32(v).to_bits().to_ne_bytes())
            .collect(),
        Dtype::F32 => values.flat_map(|v| v.to_bits().to_ne_bytes()).collect(),
    }
}
