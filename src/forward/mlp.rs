//! A multilayer perceptron up to its last layer, from an engine's primitives.

use super::engine::Engine;
use super::error::Error;
use crate::model::Mlp;

/// What the last layer reads; it is observed.
pub(super) fn active<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    mlp: &Mlp<E::Matrix, Vec<f32>>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let (first, up) = match &mlp.gate {
        Some(gate) => {
            let gate = engine.product(sequence, gate, x)?;
            (gate, Some(engine.product(sequence, &mlp.up, x)?))
        }
        None => (engine.product(sequence, &mlp.up, x)?, None),
    };
    let active = engine.activate(sequence, mlp.nonlinearity(), first, up)?;
    engine.observe(sequence, &active)?;
    Ok(active)
}
