//! A decoder block, put together from an engine's primitives: the one place that says what a block computes.
//!
//! Each distinct input of its linear layers is observed as soon as it is there, in the order of
//! [`DecoderBlock::inputs`].

use std::cell::RefCell;

use super::engine::{BlockPass, Engine, LoadedBlock};
use super::error::Error;
use super::experts;
use super::mixer;
use super::mlp;
use super::weights::WeightReader;
use crate::model::{BlockOrder, DecoderBlock, FeedForward, Linear};

/// Brings a block's weights to the device.
pub(super) fn load<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    block: &DecoderBlock,
) -> Result<LoadedBlock<E>, Error> {
    let layers = layers(block)?;
    let loaded = RefCell::new(engine.load_matrices(weights, &layers)?.into_iter());
    let next = |_: &Linear| {
        let next = loaded.borrow_mut().next();
        next.ok_or_else(|| Error::Engine("a layer was not loaded".to_owned()))
    };
    block.try_map(
        next,
        |norm| engine.load_norm(weights, norm),
        |vector| weights.read(&vector.tensor),
    )
}

/// The linear layers of a block, in the order in which it is mapped.
fn layers(block: &DecoderBlock) -> Result<Vec<Linear>, Error> {
    let all = RefCell::new(Vec::new());
    let see = |layer: &Linear| {
        all.borrow_mut().push(layer.clone());
        Ok::<_, Error>(())
    };
    block.try_map(see, |_| Ok(()), |_| Ok(()))?;
    Ok(all.into_inner())
}

/// Tells the system that a block's weights will be read soon. Its norms are too short to matter.
pub(super) fn will_load(weights: &WeightReader<'_>, block: &DecoderBlock) -> Result<(), Error> {
    let layers = layers(block)?;
    layers
        .iter()
        .try_for_each(|layer| weights.will_read(&layer.weight))
}

/// Sequences through a block, with statistics of what comes by, or without.
pub(super) fn pass<E: Engine>(observes: bool) -> BlockPass<E> {
    BlockPass {
        wiring: run,
        observes,
    }
}

/// The hidden state of one sequence through a block.
fn run<E: Engine>(
    engine: &E,
    sequence: &mut E::Sequence,
    block: &LoadedBlock<E>,
    x: &mut E::Tensor,
) -> Result<(), Error> {
    let normed = normalised(engine, sequence, block.mixer_norm.as_ref(), x)?;
    let input = normed.as_ref().unwrap_or(x);
    let mut output = Vec::with_capacity(block.mixers.len());
    for mixer in &block.mixers {
        output.push(mixer::output(engine, sequence, mixer, input)?);
    }
    // What the feed-forward part reads, where that is not what attention leaves.
    let beside = match (block.order, &block.mlp_norm) {
        (BlockOrder::Sequential, _) => {
            if let Some(normed) = normed.filter(|_| block.adds_to_normed) {
                *x = normed;
            }
            None
        }
        (BlockOrder::Parallel, Some(norm)) => {
            drop(normed);
            Some(engine.norm(sequence, norm, x)?)
        }
        (BlockOrder::Parallel, None) => normed,
    };
    let scale = block.residual_scale;
    let post_norm = block.mixer_post_norm.as_ref();
    for (mixer, output) in block.mixers.iter().zip(&output) {
        add(
            engine,
            sequence,
            mixer.output(),
            post_norm,
            scale,
            output,
            x,
        )?;
    }
    drop(output);
    let Some(mlp) = &block.mlp else {
        return Ok(());
    };
    let normed = match beside {
        Some(input) => Some(input),
        None => normalised(engine, sequence, block.mlp_norm.as_ref(), x)?,
    };
    let post_norm = &block.mlp_post_norm;
    match (mlp, normed) {
        (FeedForward::Dense(mlp), normed) => {
            let input = normed.as_ref().unwrap_or(x);
            if !block.shares_input() {
                engine.observe(sequence, input)?;
            }
            let active = mlp::active(engine, sequence, mlp, input)?;
            if let Some(normed) = normed.filter(|_| block.adds_to_normed) {
                *x = normed;
            }
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
