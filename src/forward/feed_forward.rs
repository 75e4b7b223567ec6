//! The feed-forward half of a block, from an engine's primitives.
//!
//! The tokens of an expert are brought together, go through it as one matrix, and are added to where they belong. Which
//! they are is decided on the host: the rest of the block waits for the logits of its router, which on an adapter costs one
//! round trip a batch and block.

use super::engine::{Engine, Step};
use super::error::Error;
use crate::model::{ExpertAssignment, Experts, InputKind, Mlp};

/// What the last layer of a multilayer perceptron reads.
pub(super) fn active<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    mlp: &Mlp<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let (first, up) = match &mlp.gate {
        Some(gate) => {
            let gate = engine.product(step, gate, x)?;
            (gate, Some(engine.product(step, &mlp.up, x)?))
        }
        None => (engine.product(step, &mlp.up, x)?, None),
    };
    engine.activate(step, mlp.nonlinearity(), first, up)
}

/// Adds what the experts make of `x`, times `scale`, to `sum`.
pub(super) fn add_experts<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    experts: &Experts<E>,
    scale: f32,
    x: &E::Tensor,
    sum: &mut E::Tensor,
) -> Result<(), Error> {
    if let Some(shared) = &experts.shared {
        step.observe(engine, InputKind::SharedExperts, x)?;
        let active = active(engine, step, &shared.mlp, x)?;
        step.observe(engine, InputKind::SharedExpertsOutput, &active)?;
        let y = engine.product(step, &shared.mlp.down, &active)?;
        match &shared.gate {
            None => engine.add_scaled(step, &y, scale, sum)?,
            Some(gate) => {
                let gate = engine.product(step, gate, x)?;
                let logits = engine.values(step, &gate)?;
                let every = ExpertAssignment::of_every_token(&logits).scaled(scale);
                engine.scatter(step, &y, &every, sum)?;
            }
        }
    }
    let logits = engine.product(step, &experts.router.layer, x)?;
    let logits = engine.values(step, &logits)?;
    let assignments = experts.router.route(&logits, experts.experts.len());
    let mlps = experts.experts.iter().enumerate();
    for ((expert, mlp), assignment) in mlps.zip(&assignments) {
        if assignment.tokens.is_empty() {
            continue;
        }
        // Its rows come in the order of the tokens.
        let until = |row: usize| {
            assignment
                .tokens
                .partition_point(|&token| (token as usize) < row)
        };
        let spans = step.spans.iter();
        let rows: Vec<usize> = spans
            .map(|span| until(span.end()) - until(span.row))
            .collect();
        // The weights are for what goes in or for what comes out.
        let [before, after] = if experts.weighs_input {
            [assignment.clone(), assignment.unweighted()]
        } else {
            [assignment.unweighted(), assignment.clone()]
        };
        let own = engine.gather(step, x, &before)?;
        step.observe_rows(engine, InputKind::Expert(expert), &own, &rows)?;
        let active = active(engine, step, mlp, &own)?;
        step.observe_rows(engine, InputKind::ExpertOutput(expert), &active, &rows)?;
        let y = engine.product(step, &mlp.down, &active)?;
        engine.scatter(step, &y, &after.scaled(scale), sum)?;
    }
    Ok(())
}
