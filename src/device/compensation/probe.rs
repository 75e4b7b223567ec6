//! The kernels of compensation, tried on a few rows before an adapter compensates any: a driver may translate one wrongly, or leave out a
//! barrier, and values that are a little wrong would look like any others.

use std::sync::Arc;

use super::rows::RowCompensator;
use crate::compensation::{CompensatedRows, Compensation, Compensator, Hessian};
use crate::device::error::Error;
use crate::device::{cpu, gpu::Gpu};
use crate::dtype::Dtype;
use crate::fixtures::Random;
use crate::mask::Mask;
use crate::products;
use crate::recipe::{Factors, Recipe, Rows};
use crate::selection::{Pattern, Selection};
use crate::sketch::{Sketch, omega};

/// More than the lanes of a workgroup, and no multiple of a tile.
const IN_FEATURES: usize = 300;
const RANK: usize = 37;
const ROWS: usize = 5;

/// How far an adapter may be off, of the largest value: its sums are in another order, but a lost summand is more.
pub(super) const TOLERANCE: f64 = 1e-3;

/// Tries the kernels on an adapter, once; what differs from the host's results is an error.
pub(crate) fn check(gpu: &Gpu) -> Result<(), Error> {
    let context = gpu.context();
    let checked = match context.compensation_check.get() {
        Some(checked) => checked,
        None => {
            let found = kernels(gpu)?;
            context.compensation_check.get_or_init(|| found)
        }
    };
    checked.clone().map_err(|reason| Error::Unfit {
        device: context.info.to_string(),
        reason,
    })
}

/// Compensates a few rows there and here, by both ways to a mask.
pub(super) fn kernels(gpu: &Gpu) -> Result<Result<(), String>, Error> {
    let failed = |error: products::Error| gpu.context().failed(error.to_string());
    let half = Selection::Exact { sparsity: 0.5 };
    let pattern = Pattern::new(2, 4).map(Selection::Pattern).unwrap_or(half);
    for selection in [half, pattern] {
        let options = Compensation {
            rank: RANK,
            ..Compensation::new(&selection)
        };
        let (weights, hessian) = example();
        let compensator = hessian.and_then(|hessian| Compensator::new(&hessian, options));
        let Some(compensator) = compensator else {
            return Ok(Err("there is nothing to try it on".to_owned()));
        };
        let compensator = Arc::new(compensator);
        let choose = |values: &[f32]| mask_of(values, selection);
        let (mut here, mut there) = (choose(&weights), choose(&weights));
        let expected = compensator.compensate(&weights, &mut here, &mut |values: &[f32]| {
            Ok(choose(values))
        });
        let expected = expected.map_err(failed)?;
        let got =
            RowCompensator::new(gpu).compensate(&compensator, selection, &weights, &mut there)?;
        if here != there {
            return Ok(Err("it chooses another mask".to_owned()));
        }
        if let Some(what) = difference(&expected, &got) {
            return Ok(Err(format!("its {what} of compensated rows is wrong")));
        }
    }
    Ok(Ok(()))
}

/// What differs, if anything does.
pub(super) fn difference(
    expected: &CompensatedRows,
    got: &CompensatedRows,
) -> Option<&'static str> {
    let values = |rows: &CompensatedRows| -> Vec<f64> {
        rows.values.iter().map(|&x| f64::from(x)).collect()
    };
    if is_off(&values(expected), &values(got)) {
        return Some("value");
    }
    let is_error_off = is_off(&expected.before, &got.before) || is_off(&expected.after, &got.after);
    is_error_off.then_some("output error")
}

fn is_off(expected: &[f64], got: &[f64]) -> bool {
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let is_near = |(a, b): (&f64, &f64)| (a - b).abs() <= TOLERANCE * largest;
    // NaN is off, too.
    expected.len() != got.len() || !expected.iter().zip(got).all(is_near)
}

/// The mask of rows by their values alone.
fn mask_of(values: &[f32], selection: Selection) -> Mask {
    let by_value = Recipe {
        selection,
        factors: Factors::new(vec![1.0; IN_FEATURES], None),
    };
    let rows = Rows::new(Dtype::F32, IN_FEATURES, bytemuck::cast_slice(values));
    cpu::mask(rows, 0, &by_value)
}

/// A few weights, one of them zero, and the Hessian of an input whose features go together.
pub(super) fn example() -> (Vec<f32>, Option<Hessian>) {
    let mut random = Random::new(31);
    let mut next = move || (random.below(2001) as f32 - 1000.0) / 1024.0;
    let mut weights: Vec<f32> = (0..ROWS * IN_FEATURES).map(|_| next()).collect();
    weights[IN_FEATURES + 7] = 0.0;
    let tokens = 64;
    let mixing: Vec<f32> = (0..8 * IN_FEATURES).map(|_| next()).collect();
    let omega = omega(IN_FEATURES, RANK);
    let mut norms = vec![0.0; IN_FEATURES];
    let mut values = vec![0.0; IN_FEATURES * RANK];
    for _ in 0..tokens {
        let strengths: [f32; 8] = std::array::from_fn(|_| next());
        let token: Vec<f32> = (0..IN_FEATURES)
            .map(|feature| {
                let along = strengths
                    .iter()
                    .zip(mixing[feature..].iter().step_by(IN_FEATURES));
                along
                    .map(|(strength, mixing)| strength * mixing)
                    .sum::<f32>()
                    + 0.3 * next()
            })
            .collect();
        let mut projected = [0.0; RANK];
        for (x, signs) in token.iter().zip(omega.chunks_exact(RANK)) {
            projected
                .iter_mut()
                .zip(signs)
                .for_each(|(p, sign)| *p += x * sign);
        }
        for ((x, norm), sums) in token
            .iter()
            .zip(&mut norms)
            .zip(values.chunks_exact_mut(RANK))
        {
            *norm += x * x;
            sums.iter_mut()
                .zip(&projected)
                .for_each(|(sum, p)| *sum += x * p);
        }
    }
    let sketch = Sketch {
        in_features: IN_FEATURES,
        rank: RANK,
        values,
    };
    (weights, Hessian::new(&norms, &sketch, RANK, 0.03))
}

#[cfg(test)]
mod tests;
