//! The number of tokens, which at the inputs of experts is not that of the text. Exact in f32 up to 2^24 a sequence.

/// One number, however many features.
pub(super) const LEN: usize = 1;

/// Of one sequence, `[tokens, in_features]` row-major.
pub(super) fn of(x: &[f32], in_features: usize) -> Vec<f32> {
    vec![(x.len() / in_features) as f32]
}
