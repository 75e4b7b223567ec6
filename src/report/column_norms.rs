//! The column norms of a run in numbers that can be drawn: how large the features of each input are, and which stand out.

use std::collections::HashSet;

use serde::Serialize;

use crate::names::grammar::{block, stack};
use crate::plan::Plan;

/// A feature stands out if its size is so many times the median of its input.
pub const OUTLIER_FEATURE: f64 = 10.0;

/// The most outliers of an input that are named.
const NAMED: usize = 8;

/// The features of one input, by their column norms. The size of a feature is the root of its column norm.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct InputReport {
    /// The first weight that reads it.
    pub tensor: String,
    /// The kind of that weight's layer.
    pub kind: String,
    /// Its decoder block; none outside of blocks.
    pub block: Option<String>,
    /// Features.
    pub features: usize,
    /// Features that no token reached.
    pub dead: usize,
    /// The largest size, in medians.
    pub largest: f64,
    /// The size that 99 of 100 features are below, in medians.
    pub percentile_99: f64,
    /// How many features are larger than [`OUTLIER_FEATURE`] medians.
    pub outlier_count: usize,
    /// The largest of them: number and size in medians.
    pub outliers: Vec<(usize, f64)>,
}

/// Every input that the plan has norms of, once, in the order of the tensors; of a weight with experts, that of the first.
pub(super) fn inputs(plan: &Plan) -> Vec<InputReport> {
    let mut seen = HashSet::new();
    let mut inputs = Vec::new();
    for (tensor, target) in plan.pruned() {
        let Ok(Some(norms)) = plan.norms_of(&tensor.name, target, 0) else {
            continue;
        };
        let of_block = stack(&tensor.name).zip(block(&tensor.name));
        let of_block = of_block.map(|(stack, block)| format!("{stack}.{}", block.number));
        // Queries, keys and values read one input.
        let bits: Vec<u32> = norms.iter().map(|norm| norm.to_bits()).collect();
        if seen.insert((of_block.clone(), bits)) {
            let mut input = input(&norms);
            input.tensor.clone_from(&tensor.name);
            input.kind.clone_from(&target.kind);
            input.block = of_block;
            inputs.push(input);
        }
    }
    inputs
}

fn input(norms: &[f32]) -> InputReport {
    let sizes: Vec<f64> = norms.iter().map(|&norm| f64::from(norm).sqrt()).collect();
    let mut live: Vec<f64> = sizes.iter().copied().filter(|&size| size > 0.0).collect();
    live.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = (share * live.len().saturating_sub(1) as f64) as usize;
        live.get(place).copied().unwrap_or(1.0)
    };
    let median = at(0.5);
    let mut outliers: Vec<(usize, f64)> = (sizes.iter().enumerate())
        .map(|(feature, size)| (feature, size / median))
        .filter(|&(_, size)| size > OUTLIER_FEATURE)
        .collect();
    outliers.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    let outlier_count = outliers.len();
    outliers.truncate(NAMED);
    InputReport {
        tensor: String::new(),
        kind: String::new(),
        block: None,
        features: norms.len(),
        dead: norms.len() - live.len(),
        largest: at(1.0) / median,
        percentile_99: at(0.99) / median,
        outlier_count,
        outliers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_measured_in_medians_and_outliers_are_named_the_largest_first() {
        let mut norms = vec![4.0; 100];
        (norms[7], norms[3], norms[50]) = (4.0 * 400.0, 4.0 * 900.0, 0.0);
        norms[9] = 4.0 * 81.0;
        let input = input(&norms);
        assert_eq!(input.outliers, [(3, 30.0), (7, 20.0)]);
        assert_eq!((input.outlier_count, input.dead), (2, 1));
        assert_eq!((input.largest, input.features), (30.0, 100));
    }

    #[test]
    fn an_input_that_no_token_reached_has_no_outliers() {
        let input = input(&[0.0; 4]);
        assert_eq!((input.dead, input.outlier_count), (4, 0));
        assert!(input.largest.is_finite());
    }
}
