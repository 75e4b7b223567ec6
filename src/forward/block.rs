//! A decoder block, put together from an engine's primitives: the one place that says what a block computes.
//!
//! Each distinct input of its linear layers is observed as soon as it is there, in the order of
//! [`DecoderBlock::inputs`].

use super::engine::{Engine, LoadedAttention, LoadedBlock};
use super::error::Error;
use super::experts;
use super::latent;
use super::mlp;
use super::weights::WeightReader;
use crate::model::{BlockOrder, DecoderBlock, FeedForward, Linear, Position, Projections};

/// Brings a block's weights to the device.
pub(super) fn load<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    block: &DecoderBlock,
) -> Result<LoadedBlock<E>, Error> {
    block.try_map(
        |linear| engine.load_matrix(weights, linear),
        |norm| engine.load_norm(weights, norm),
        |vector| weights.read(&vector.tensor),
    )
}

/// Tells the system that a block's weights will be read soon. Its norms are too short to matter.
pub(super) fn will_load(weights: &WeightReader<'_>, block: &DecoderBlock) -> Result<(), Error> {
    let linear = |linear: &Linear| weights.will_read(&linear.weight);
    let nothing = block.try_map(linear, |_| Ok(()), |_| Ok(()))?;
    drop(nothing);
    Ok(())
}

/// The hidden state of one sequence through a block.
pub(super) fn run<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    block: &LoadedBlock<E>,
    x: &mut E::Tensor,
) -> Result<(), Error> {
    let normed = normalised(engine, sequence, block.attention_norm.as_ref(), x)?;
    let input = normed.as_ref().unwrap_or(x);
    engine.observe(sequence, input)?;
    let found = attention(engine, sequence, &block.attention, input)?;
    engine.observe(sequence, &found)?;
    // What the feed-forward part reads, where that is not what attention leaves.
    let beside = match (block.order, &block.mlp_norm) {
        (BlockOrder::Sequential, _) => {
            drop(normed);
            None
        }
        (BlockOrder::Parallel, Some(norm)) => {
            drop(normed);
            Some(engine.norm(sequence, norm, x)?)
        }
        (BlockOrder::Parallel, None) => normed,
    };
    let (output, post_norm) = (&block.attention.output, &block.attention_post_norm);
    let scale = block.residual_scale;
    add(
        engine,
        sequence,
        output,
        post_norm.as_ref(),
        scale,
        &found,
        x,
    )?;
    drop(found);
    let normed = match beside {
        Some(input) => Some(input),
        None => normalised(engine, sequence, block.mlp_norm.as_ref(), x)?,
    };
    let post_norm = &block.mlp_post_norm;
    match (&block.mlp, normed) {
        (FeedForward::Dense(mlp), normed) => {
            let input = normed.as_ref().unwrap_or(x);
            if !block.shares_input() {
                engine.observe(sequence, input)?;
            }
            let active = mlp::active(engine, sequence, mlp, input)?;
            drop(normed);
            add(
                engine,
                sequence,
                &mlp.down,
                post_norm.as_ref(),
                scale,
                &active,
                x,
            )
        }
        (FeedForward::Experts(experts), Some(input)) if post_norm.is_none() => {
            experts::add(engine, sequence, experts, scale, &input, x)
        }
        (FeedForward::Experts(_), _) => Err(Error::Engine(
            "experts read a norm, and what they give is not normalised".to_owned(),
        )),
    }
}

/// `x`, normalised, where there is a norm.
fn normalised<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    norm: Option<&E::Norm>,
    x: &E::Tensor,
) -> Result<Option<E::Tensor>, Error> {
    norm.map(|norm| engine.norm(sequence, norm, x)).transpose()
}

/// Adds what half a block computed to the residual stream: the last layer's product, normalised and scaled.
fn add<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    layer: &E::Matrix,
    post_norm: Option<&E::Norm>,
    scale: f32,
    x: &E::Tensor,
    sum: &mut E::Tensor,
) -> Result<(), Error> {
    if post_norm.is_none() && scale == 1.0 {
        return engine.add_product(sequence, layer, x, sum);
    }
    let product = engine.product(sequence, layer, x)?;
    let normed = normalised(engine, sequence, post_norm, &product)?;
    engine.add_scaled(sequence, normed.as_ref().unwrap_or(&product), scale, sum)
}

/// What the heads find.
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
        Position::Rotary(index) => engine.turn_heads(sequence, index, &mut heads)?,
        Position::None => {}
    }
    if let Some(norms) = norms.filter(|norms| norms.after_rotation) {
        engine.normalise_heads(sequence, norms, &mut heads)?;
    }
    engine.attend(sequence, attention, heads)
}
