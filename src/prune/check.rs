//! What was asked for, held against what pruning some rows did.

use std::ops::Range;

use super::error::Error;
use crate::counts::Counts;
use crate::plan::{Action, Plan};

/// Refuses rows of the tensor at `index` in the plan that hold NaN or infinity, and too few zeros.
pub(super) fn check(
    plan: &Plan,
    index: usize,
    rows: Range<usize>,
    counts: &Counts,
) -> Result<(), Error> {
    let tensor = &plan.tensors()[index];
    let Action::Prune {
        target, selection, ..
    } = &tensor.action
    else {
        return Ok(());
    };
    if counts.non_finite > 0 && !plan.options().keep_non_finite {
        return Err(Error::NonFinite {
            file: plan.checkpoint().shards[tensor.shard].path.clone(),
            tensor: tensor.name.clone(),
            count: counts.non_finite,
            rows,
        });
    }
    if let Some(sparsity) = selection.target(target.in_features)
        && counts.non_finite == 0
    {
        let a_row = (sparsity * target.in_features as f64).round() as u64;
        let asked = a_row * rows.len() as u64;
        if counts.zeros < asked {
            return Err(Error::TooFewZeros {
                tensor: tensor.name.clone(),
                asked,
                got: counts.zeros,
            });
        }
    }
    Ok(())
}
