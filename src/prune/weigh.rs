//! What the norms predict of a layer's output error, counted while rows are pruned.
//!
//! A row's output changes by `dw x`. Over the calibration tokens the squares of that sum to `sum_jk dw_j dw_k (X^T X)_jk`, of
//! which the norms know the diagonal: `sum_j n_j dw_j^2`. It is the error where inputs are not correlated.

use super::chunk::Chunk;
use super::error::Error;
use super::matrix::Matrix;
use crate::compensation::decode;
use crate::counts::Counts;
use crate::plan::Plan;

/// Adds the output error of some rows, and what it is relative to, from their weights before and after. Nothing where there are
/// no norms. Weights that are not finite count as unchanged zeros.
pub(super) fn weigh(
    plan: &Plan,
    matrix: &Matrix<'_>,
    before: &Chunk,
    after: &Chunk,
    counts: &mut Counts,
) -> Result<(), Error> {
    let name = &plan.tensors()[matrix.tensor].name;
    let Some(norms) = plan.norms_of(name, matrix.target, matrix.expert)? else {
        return Ok(());
    };
    let in_features = matrix.target.in_features.max(1);
    let (before, after) = (
        decode(matrix.dtype, before.bytes()),
        decode(matrix.dtype, after.bytes()),
    );
    let rows = before
        .chunks_exact(in_features)
        .zip(after.chunks_exact(in_features));
    for (before, after) in rows {
        for ((&before, &after), &norm) in before.iter().zip(after).zip(norms.iter()) {
            if before.is_finite() && after.is_finite() {
                let (before, change) = (f64::from(before), f64::from(before) - f64::from(after));
                counts.output_squares += f64::from(norm) * before * before;
                counts.output_squares_changed += f64::from(norm) * change * change;
            }
        }
    }
    Ok(())
}
