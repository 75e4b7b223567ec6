//! What happens to the rows of one matrix, for a run and for whoever wants pruned weights without an output: the recipe, and
//! how it is applied. What a result must hold: `check.rs`.

use super::compensate;
use super::compensators::{Compensators, InputCompensator};
use super::error::Error;
use super::matrix::Matrix;
use super::shared_recipe::{Compensating, MatrixRecipe};
use crate::compensation::CompensatedRows;
use crate::counts::Counts;
use crate::mask::Mask;
use crate::plan::Plan;
use crate::recipe::{Recipe, WeightStatistics};

/// The recipe of a matrix, with what its score takes of the weights.
pub(super) fn recipe(
    plan: &Plan,
    compensators: &Compensators,
    matrix: &Matrix<'_>,
    sums: Option<&WeightStatistics>,
) -> Result<MatrixRecipe, Error> {
    let name = &plan.tensors()[matrix.tensor].name;
    let norms = plan.norms_of(name, matrix.target, matrix.expert)?;
    let in_features = matrix.target.in_features;
    let score = plan.score();
    let mut recipe = Recipe::new(matrix.selection, score, in_features, norms.as_deref(), sums);
    let Some(compensation) = plan.options().compensation else {
        return Ok(MatrixRecipe {
            recipe,
            compensation: Compensating::None,
        });
    };
    let of_input = (name.as_str(), matrix.target, matrix.expert);
    let compensation = match compensators.of(plan, compensation, of_input)? {
        Some(of_input) => {
            if score.has_inverse_hessian()
                && let Some(factors) = &of_input.column_factors
            {
                recipe.factors.column.clone_from(factors);
            }
            Compensating::By(of_input)
        }
        None => Compensating::NotPossible,
    };
    Ok(MatrixRecipe {
        recipe,
        compensation,
    })
}

/// Prunes rows in place by `mask`, has them compensated where that is asked for, and counts.
pub(super) fn apply(
    plan: &Plan,
    matrix: &Matrix<'_>,
    recipe: &MatrixRecipe,
    mask: Mask,
    bytes: &mut [u8],
    compensate_rows: impl FnOnce(&InputCompensator, &[f32], &mut Mask) -> Result<CompensatedRows, Error>,
) -> Result<Counts, Error> {
    let squares = plan.options().squared_error;
    match &recipe.compensation {
        Compensating::None => Ok(mask.apply(matrix.dtype, bytes, squares)),
        Compensating::NotPossible => {
            let mut counts = mask.apply(matrix.dtype, bytes, squares);
            counts.rows_not_compensated += mask.rows as u64;
            Ok(counts)
        }
        Compensating::By(of_input) => {
            let rows = (matrix.dtype, matrix.target.in_features);
            let compensate_rows =
                |weights: &[f32], mask: &mut Mask| compensate_rows(of_input, weights, mask);
            compensate::compensate(compensate_rows, rows, bytes, mask, squares)
        }
    }
}
