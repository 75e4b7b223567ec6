//! The sketch `Y = X^T (X Omega)`: two thin products. `crate::sketch` says what it is for.

use candle_core::{Device, Result, Tensor};

use crate::sketch::omega;

/// A row of numbers a feature.
pub(super) fn len(in_features: usize, rank: usize) -> usize {
    in_features * rank
}

/// Of one sequence, `[tokens, in_features]` row-major: `[in_features, rank]`.
pub(super) fn of(x: &[f32], in_features: usize, rank: usize) -> Result<Vec<f32>> {
    if x.is_empty() {
        return Ok(vec![0.0; len(in_features, rank)]);
    }
    let shape = (x.len() / in_features, in_features);
    let x = Tensor::from_slice(x, shape, &Device::Cpu)?;
    let omega = Tensor::from_vec(omega(in_features, rank), (in_features, rank), &Device::Cpu)?;
    x.t()?.matmul(&x.matmul(&omega)?)?.flatten_all()?.to_vec1()
}
