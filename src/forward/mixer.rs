//! Token mixing, from an engine's primitives.

use super::engine::{Engine, MixerState, Step};
use super::error::Error;
use super::recurrence;
use crate::model::{
    Activation, InputKind, LatentProjections, LatentQuery, Mixer, MixerKind, Position, Projections,
    SelfAttention,
};

/// The input of the last layer of a block's mixer of this number: of attention, the attention output. It is observed, as is what
/// the first layers read.
pub(super) fn output<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    (number, mixer): (usize, &Mixer<E>),
    state: &mut MixerState<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let scaled = match mixer.input_scale {
        1.0 => None,
        scale => Some(engine.scaled(step, x, scale)?),
    };
    let x = scaled.as_ref().unwrap_or(x);
    step.observe(engine, InputKind::Mixer(number), x)?;
    let output = match &mixer.kind {
        MixerKind::Attention(of) => attention(engine, step, (number, of), state, x)?,
        MixerKind::Recurrence(of) => recurrence::output(engine, step, (number, of), state, x)?,
    };
    step.observe(engine, InputKind::MixerOutput(number), &output)?;
    Ok(output)
}

/// The attention output, gated where there is a gate.
fn attention<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    (number, attention): (usize, &SelfAttention<E>),
    state: &mut MixerState<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let mut heads = match &attention.projections {
        Projections::Latent(latent) => latent_heads(engine, step, (number, latent), x)?,
        _ => engine.heads(step, attention, x)?,
    };
    if let Some(clip) = attention.clip {
        engine.clip_heads(step, clip, &mut heads)?;
    }
    let norms = attention.head_norms.as_ref();
    if let Some(norms) = norms.filter(|norms| !norms.after_rotation) {
        engine.normalise_heads(step, norms, &mut heads)?;
    }
    match attention.position {
        Position::Rotary(index) => engine.apply_rope(step, index, &mut heads)?,
        // Biases come with the scores.
        Position::Alibi | Position::None => {}
    }
    if let Some(norms) = norms.filter(|norms| norms.after_rotation) {
        engine.normalise_heads(step, norms, &mut heads)?;
    }
    let output = engine.attend(step, attention, heads, &mut state.cache)?;
    match &attention.gate {
        None => Ok(output),
        Some(gate) => {
            let gate = engine.product(step, gate, x)?;
            engine.activate(step, Activation::Sigmoid.into(), gate, Some(output))
        }
    }
}

/// Queries, keys and values of `x` by latent projections. The narrow vectors are observed, as they are inputs too.
fn latent_heads<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    (number, latent): (usize, &LatentProjections<E>),
    x: &E::Tensor,
) -> Result<E::Heads, Error> {
    let queries = match &latent.query {
        LatentQuery::Direct(query) => engine.product(step, query, x)?,
        LatentQuery::Latent { down, norm, up } => {
            let narrow = engine.product(step, down, x)?;
            let narrow = engine.norm(step, norm, &narrow)?;
            step.observe(engine, InputKind::QueryLatent(number), &narrow)?;
            engine.product(step, up, &narrow)?
        }
    };
    let rope_key = engine.product(step, &latent.rope_key, x)?;
    let narrow = engine.product(step, &latent.compression, x)?;
    let narrow = engine.norm(step, &latent.compression_norm, &narrow)?;
    step.observe(engine, InputKind::KeyValueLatent(number), &narrow)?;
    let keys_and_values = engine.product(step, &latent.expansion, &narrow)?;
    engine.heads_of_latents(step, latent.widths, &queries, &rope_key, &keys_and_values)
}
