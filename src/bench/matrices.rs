//! The passes over matrices in memory: warm-up first, then samples, each over so many repetitions that the clock's grain and
//! a submission's cost do not show.

use std::time::Duration;

use super::error::Error;
use super::options::BenchOptions;
use super::record::{Measurement, Record};
use crate::device::timing::{Elapsed, Timed};
use crate::device::{Device, DeviceKind};
use crate::dtype::Dtype;
use crate::fixtures::Random;
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

/// Measures the passes over every matrix.
pub(super) async fn measure(
    device: &Device,
    options: &BenchOptions,
    record: &mut Record,
    progress: &dyn Fn(&str),
) -> Result<(), Error> {
    let is_software = device.info().kind == DeviceKind::Software;
    if is_software {
        let why = "software adapter: only small parts of the matrices are measured";
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
                let all = rows;
                let rows = affordable(device, dtype, rows, in_features).await?;
                if rows < all {
                    record.left_out.push(format!(
                        "{name}: {rows} of {all} rows, as more would take this device too long at once"
                    ));
                }
                matrix(
                    device,
                    options,
                    dtype,
                    (name, rows, in_features),
                    record,
                    progress,
                )
                .await?;
            } else {
                let what = format!(
                    "{name}: {rows}x{in_features} does not fit in one buffer of this device"
                );
                record.left_out.push(what);
            }
        }
    }
    Ok(())
}

/// Of so many rows those that no pass takes too long for, found with few rows first.
async fn affordable(
    device: &Device,
    dtype: Dtype,
    rows: usize,
    in_features: usize,
) -> Result<usize, Error> {
    if device.info().kind == DeviceKind::Cpu {
        return Ok(rows);
    }
    let bytes = weights(dtype, rows * in_features);
    let mut most = rows;
    for (_, timed, recipe) in passes(in_features) {
        let mut count = 1;
        loop {
            let weights = Rows {
                dtype,
                in_features,
                bytes: &bytes[..count * in_features * dtype.size()],
            };
            let mut timer = device.timer(timed, weights, &recipe)?;
            // Where a first row is too little to learn from, the bound says how many may be tried.
            timer.run_async(1).await?;
            let next = timer.rows_at_once(in_features).min(most);
            if next <= count {
                most = next;
                break;
            }
            count = next;
        }
    }
    Ok(most)
}

/// Every pass over one matrix.
async fn matrix(
    device: &Device,
    options: &BenchOptions,
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
    for pass in passes(in_features) {
        let case = timed_pass(device, options.samples, &of, weights, pass).await?;
        record.cases.push(case);
    }
    Ok(())
}

/// One pass over rows, as a case of `of`.
pub(super) async fn timed_pass(
    device: &Device,
    count: usize,
    of: &str,
    weights: Rows<'_>,
    (what, timed, recipe): (&str, Timed, Recipe),
) -> Result<Measurement, Error> {
    let mut timer = device.timer(timed, weights, &recipe)?;
    let run = async |repetitions| timer.run_async(repetitions).await;
    let (wall, device) = samples(count, run).await?;
    Ok(Measurement {
        what: what.to_owned(),
        of: of.to_owned(),
        bytes: weights.bytes.len() as u64,
        weights: weights.rows() as u64 * weights.in_features as u64,
        tokens: 0,
        operations: 0,
        wall,
        device,
    })
}

/// What is timed on rows of `in_features` weights: its name, and how.
#[must_use]
pub fn passes(in_features: usize) -> [(&'static str, Timed, Recipe); 9] {
    let recipe = |selection| Recipe {
        selection,
        factors: Factors {
            cubed: false,
            column: (0..in_features).map(|j| 1.0 / (1 + j % 7) as f32).collect(),
            terms: None,
        },
    };
    let [ewma, exact, pattern] = selections().map(recipe);
    [
        ("copy", Timed::Copy, ewma.clone()),
        ("weight_sums", Timed::WeightSums, ewma.clone()),
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
pub(super) async fn samples<E>(
    count: usize,
    mut run: impl AsyncFnMut(u32) -> Result<Elapsed, E>,
) -> Result<(Vec<f64>, Vec<f64>), E> {
    // The first compiles, and brings everything into the caches it will stay in.
    run(1).await?;
    let once = run(1).await?.wall.as_secs_f64().max(1e-7);
    let repetitions = (SAMPLE.as_secs_f64() / once).clamp(1.0, 10_000.0).ceil() as u32;
    let (mut wall, mut device) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let elapsed = run(repetitions).await?;
        wall.push(elapsed.wall.as_secs_f64() / f64::from(repetitions));
        device.extend(
            elapsed
                .device
                .map(|d| d.as_secs_f64() / f64::from(repetitions)),
        );
    }
    Ok((wall, device))
}

/// 50 % by the moving average, 50 % exactly, 2:4.
pub(super) fn selections() -> [Selection; 3] {
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
    let mut random = Random::new(0x5eed);
    let value = move || random.uniform() * 0.08 - 0.04;
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
