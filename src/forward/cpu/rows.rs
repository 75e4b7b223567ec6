//! Some tokens' rows out of a hidden state, and back into one.

use crate::model::ExpertAssignment;

/// The rows of `x`, `[tokens, features]`, that an assignment names, each times its weight.
pub(super) fn gather(x: &[f32], features: usize, assignment: &ExpertAssignment) -> Vec<f32> {
    let mut rows = Vec::with_capacity(assignment.tokens.len() * features);
    for (&token, &weight) in assignment.tokens.iter().zip(&assignment.weights) {
        let first = token as usize * features;
        let row = x[first..first + features].iter();
        rows.extend(row.map(|x| x * weight));
    }
    rows
}

/// Adds rows to those of `sum` that an assignment names, each times its weight.
pub(super) fn scatter(
    rows: &[f32],
    features: usize,
    assignment: &ExpertAssignment,
    sum: &mut [f32],
) {
    let places = assignment.tokens.iter().zip(&assignment.weights);
    for ((&token, &weight), row) in places.zip(rows.chunks_exact(features.max(1))) {
        let first = token as usize * features;
        let sums = &mut sum[first..first + features];
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, y)| *sum += weight * y);
    }
}
