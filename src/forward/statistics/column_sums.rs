//! The sums of each feature, `sum_t x_tj`: over the number of tokens, its mean.

/// A number a feature.
pub(super) fn len(in_features: usize) -> usize {
    in_features
}

/// Of one sequence, `[tokens, in_features]` row-major.
pub(super) fn of(x: &[f32], in_features: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f32; in_features];
    for row in x.chunks_exact(in_features) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x;
        }
    }
    sums
}
