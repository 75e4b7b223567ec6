//! Token mixing, from an engine's primitives.

use super::engine::{Engine, LoadedAttention, LoadedMixer};
use super::error::Error;
use super::latent;
use super::recurrence;
use crate::model::{Activation, MixerKind, Position, Projections};

/// The input of a mixer's last layer: of attention, the attention output. It is observed, as is what the first layers read.
pub(super) fn output<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    mixer: &LoadedMixer<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let scaled = match mixer.input_scale {
        1.0 => None,
        scale => Some(engine.scaled(sequence, x, scale)?),
    };
    let x = scaled.as_ref().unwrap_or(x);
    engine.observe(sequence, x)?;
    let output = match &mixer.kind {
        MixerKind::Attention(of) => attention(engine, sequence, of, x)?,
        MixerKind::Recurrence(of) => recurrence::output(engine, sequence, &of.ssm, x)?,
    };
    engine.observe(sequence, &output)?;
    Ok(output)
}

/// The attention output, gated where there is a gate.
fn attention<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    attention: &LoadedAttention<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let mut heads = match &attention.projections {
        Projections::Latent(latent) => latent::heads(engine, sequence, latent, x)?,
        _ => engine.heads(sequence, attention, x)?,
    };
    if let Some(clip) = attention.clip {
        engine.clip_heads(sequence, clip, &mut heads)?;
    }
    let norms = attention.head_norms.as_ref();
    if let Some(norms) = norms.filter(|norms| !norms.after_rotation) {
        engine.normalise_heads(sequence, norms, &mut heads)?;
    }
    match attention.position {
        Position::Rotary(index) => engine.apply_rope(sequence, index, &mut heads)?,
        // Biases come with the scores.
        Position::Alibi | Position::None => {}
    }
    if let Some(norms) = norms.filter(|norms| norms.after_rotation) {
        engine.normalise_heads(sequence, norms, &mut heads)?;
    }
    let output = engine.attend(sequence, attention, heads)?;
    match &attention.gate {
        None => Ok(output),
        Some(gate) => {
            let gate = engine.product(sequence, gate, x)?;
            engine.activate(sequence, Activation::Sigmoid.into(), gate, Some(output))
        }
    }
}
