//! A mixture of experts, from an engine's primitives.
//!
//! The tokens of an expert are brought together, go through it as one matrix, and are added to where they belong. Which
//! they are is decided on the host: the rest of the block waits for the logits of its router, which on an adapter costs one
//! round trip a sequence and block.

use super::engine::{Engine, LoadedExperts};
use super::error::Error;
use super::mlp;
use crate::model::ExpertAssignment;

/// Adds what the experts make of `x`, times `scale`, to `sum`.
pub(super) fn add<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    experts: &LoadedExperts<E>,
    scale: f32,
    x: &E::Tensor,
    sum: &mut E::Tensor,
) -> Result<(), Error> {
    if let Some(shared) = &experts.shared {
        engine.observe(sequence, x)?;
        let active = mlp::active(engine, sequence, &shared.mlp, x)?;
        let y = engine.product(sequence, &shared.mlp.down, &active)?;
        match &shared.gate {
            None => engine.add_scaled(sequence, &y, scale, sum)?,
            Some(gate) => {
                let gate = engine.product(sequence, gate, x)?;
                let logits = engine.values(sequence, &gate)?;
                let every = ExpertAssignment::of_every_token(&logits).scaled(scale);
                engine.scatter(sequence, &y, &every, sum)?;
            }
        }
    }
    let logits = engine.product(sequence, &experts.router.layer, x)?;
    let logits = engine.values(sequence, &logits)?;
    let assignments = experts.router.route(&logits, experts.experts.len());
    for (mlp, assignment) in experts.experts.iter().zip(&assignments) {
        if assignment.tokens.is_empty() {
            engine.observe_nothing(sequence, &mlp.up)?;
            engine.observe_nothing(sequence, &mlp.down)?;
            continue;
        }
        // The weights are for what goes in or for what comes out.
        let [before, after] = if experts.weighs_input {
            [assignment.clone(), assignment.unweighted()]
        } else {
            [assignment.unweighted(), assignment.clone()]
        };
        let own = engine.gather(sequence, x, &before)?;
        engine.observe(sequence, &own)?;
        let active = mlp::active(engine, sequence, mlp, &own)?;
        let y = engine.product(sequence, &mlp.down, &active)?;
        engine.scatter(sequence, &y, &after.scaled(scale), sum)?;
    }
    Ok(())
}
