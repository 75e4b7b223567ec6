//! A decoder block, put together from an engine's primitives: the one place that says what a block computes.
//!
//! Each distinct input of its linear layers is observed as soon as it is there, in the order of
//! [`DecoderBlock::inputs`].

use super::engine::{Engine, LoadedAttention, LoadedBlock};
use super::error::Error;
use super::weights::WeightReader;
use crate::model::{BlockOrder, DecoderBlock, FeedForward, Position};

/// Brings a block's weights to the device.
pub(super) fn load<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    block: &DecoderBlock,
) -> Result<LoadedBlock<E>, Error> {
    block.try_map(
        |linear| engine.load_matrix(weights, linear),
        |norm| engine.load_norm(weights, norm),
    )
}

/// The hidden state of one sequence through a block.
pub(super) fn run<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    block: &LoadedBlock<E>,
    x: &mut E::Tensor,
) -> Result<(), Error> {
    let input = engine.norm(sequence, &block.attention_norm, x)?;
    engine.observe(sequence, &input)?;
    let found = attention(engine, sequence, &block.attention, &input)?;
    drop(input);
    engine.observe(sequence, &found)?;
    let output = &block.attention.output;
    let input = match block.order {
        BlockOrder::Sequential => {
            engine.add_product(sequence, output, &found, x)?;
            engine.norm(sequence, &block.mlp_norm, x)?
        }
        BlockOrder::Parallel => {
            let input = engine.norm(sequence, &block.mlp_norm, x)?;
            engine.add_product(sequence, output, &found, x)?;
            input
        }
    };
    drop(found);
    engine.observe(sequence, &input)?;
    let active = feed_forward(engine, sequence, &block.mlp, &input)?;
    drop(input);
    engine.observe(sequence, &active)?;
    engine.add_product(sequence, &block.mlp.down, &active, x)
}

/// What the heads find.
fn attention<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    attention: &LoadedAttention<E>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let mut heads = engine.heads(sequence, attention, x)?;
    if let Some(norms) = &attention.head_norms {
        engine.normalise_heads(sequence, norms, &mut heads)?;
    }
    if let Position::Rotary(rotary) = attention.position {
        engine.turn_heads(sequence, rotary, &mut heads)?;
    }
    engine.attend(sequence, attention, heads)
}

/// What the feed-forward part's last layer reads.
fn feed_forward<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    mlp: &FeedForward<E::Matrix>,
    x: &E::Tensor,
) -> Result<E::Tensor, Error> {
    let (first, up) = match &mlp.gate {
        Some(gate) => {
            let gate = engine.product(sequence, gate, x)?;
            (gate, Some(engine.product(sequence, &mlp.up, x)?))
        }
        None => (engine.product(sequence, &mlp.up, x)?, None),
    };
    engine.activate(sequence, mlp.activation, first, up)
}
