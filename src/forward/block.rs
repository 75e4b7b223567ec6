//! A decoder block, put together from an engine's primitives: the one place that says what a block computes.
//!
//! Each distinct input of its linear layers is observed as soon as it is there, under its [`InputKind`].

use super::batch::{Batch, Chunk};
use super::engine::{BlockState, Engine, Step};
use super::error::Error;
use super::statistics::Observation;
use super::weights::WeightReader;
use super::{feed_forward, mixer};
use crate::model::{
    BlockOrder, Convolution, DecoderBlock, FeedForward, InputKind, Linear, Loader, NormTensors,
    ScanTensors, Vector, Visitor,
};

/// Brings a block's weights to the device.
pub(super) fn load<E: Engine>(
    engine: &E,
    weights: &WeightReader<'_>,
    block: &DecoderBlock,
) -> Result<DecoderBlock<E>, Error> {
    let matrices = engine.load_matrices(weights, &layers(block)?)?;
    block.load(&mut Loading {
        engine,
        weights,
        matrices: matrices.into_iter(),
    })
}

/// The parts of a block on their way to a device, which has its matrices already.
struct Loading<'l, 'w, E: Engine> {
    engine: &'l E,
    weights: &'l WeightReader<'w>,
    matrices: std::vec::IntoIter<E::Linear>,
}

impl<E: Engine> Loader for Loading<'_, '_, E> {
    type Parts = E;
    type Error = Error;

    fn linear(&mut self, _: &Linear) -> Result<E::Linear, Error> {
        let next = self.matrices.next();
        next.ok_or_else(|| Error::Engine("a layer was not loaded".to_owned()))
    }

    fn norm(&mut self, norm: &NormTensors) -> Result<E::Norm, Error> {
        self.engine.load_norm(self.weights, norm)
    }

    fn vector(&mut self, vector: &Vector) -> Result<E::Vector, Error> {
        self.engine.load_vector(self.weights.read(&vector.tensor)?)
    }

    fn numbers(&mut self, numbers: &Vector) -> Result<Vec<f32>, Error> {
        self.weights.read(&numbers.tensor)
    }

    fn convolution(&mut self, of: &Convolution) -> Result<E::Convolution, Error> {
        let (first, channels) = (of.channels.start, of.channels.len());
        let read = |vector: &Vector| self.weights.read_rows(&vector.tensor, first, channels);
        let bias = of.bias.as_ref().map(read).transpose()?;
        self.engine
            .load_convolution(read(&of.weight)?, bias, of.width)
    }

    fn scan(&mut self, scan: &ScanTensors) -> Result<E::Scan, Error> {
        let scan = scan.read(|vector| self.weights.read(&vector.tensor))?;
        self.engine.load_scan(scan)
    }
}

/// The linear layers of a block, in the order in which they are loaded.
fn layers(block: &DecoderBlock) -> Result<Vec<Linear>, Error> {
    struct Layers(Vec<Linear>);

    impl Visitor for Layers {
        type Error = Error;

        fn linear(&mut self, linear: &Linear) -> Result<(), Error> {
            self.0.push(linear.clone());
            Ok(())
        }

        fn norm(&mut self, _: &NormTensors) -> Result<(), Error> {
            Ok(())
        }

        fn vector(&mut self, _: &Vector) -> Result<(), Error> {
            Ok(())
        }
    }

    let mut layers = Layers(Vec::new());
    block.visit(&mut layers)?;
    Ok(layers.0)
}

/// Tells the system that a block's weights will be read soon. Its norms are too short to matter.
pub(super) fn will_load(weights: &WeightReader<'_>, block: &DecoderBlock) -> Result<(), Error> {
    let layers = layers(block)?;
    layers
        .iter()
        .try_for_each(|layer| weights.will_read(&layer.weight))
}

/// Hidden states through a block.
pub(super) fn run<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    block: &DecoderBlock<E>,
    state: &mut BlockState<E>,
    x: &mut E::Tensor,
) -> Result<(), Error> {
    let normed = normalised(engine, step, block.mixer_norm.as_ref(), x)?;
    let input = normed.as_ref().unwrap_or(x);
    let mut output = Vec::with_capacity(block.mixers.len());
    for (mixer, state) in block.mixers.iter().enumerate().zip(&mut state.0) {
        output.push(mixer::output(engine, step, mixer, state, input)?);
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
            Some(engine.norm(step, norm, x)?)
        }
        (BlockOrder::Parallel, None) => normed,
    };
    let scale = block.residual_scale;
    let post_norm = block.mixer_post_norm.as_ref();
    for (mixer, output) in block.mixers.iter().zip(&output) {
        add(engine, step, mixer.output(), post_norm, scale, output, x)?;
    }
    drop(output);
    let Some(mlp) = &block.mlp else {
        return Ok(());
    };
    let normed = match beside {
        Some(input) => Some(input),
        None => normalised(engine, step, block.mlp_norm.as_ref(), x)?,
    };
    let post_norm = &block.mlp_post_norm;
    match (mlp, normed) {
        (FeedForward::Dense(mlp), normed) => {
            let input = normed.as_ref().unwrap_or(x);
            if !block.shares_input() {
                step.observe(engine, InputKind::Mlp, input)?;
            }
            let active = feed_forward::active(engine, step, mlp, input)?;
            step.observe(engine, InputKind::MlpOutput, &active)?;
            if let Some(normed) = normed.filter(|_| block.adds_to_normed) {
                *x = normed;
            }
            add(
                engine,
                step,
                &mlp.down,
                post_norm.as_ref(),
                scale,
                &active,
                x,
            )
        }
        (FeedForward::Experts(experts), Some(input)) if post_norm.is_none() => {
            feed_forward::add_experts(engine, step, experts, scale, &input, x)
        }
        (FeedForward::Experts(_), _) => Err(Error::Engine(
            "experts read a norm, and what they give is not normalised".to_owned(),
        )),
    }
}

/// `x`, normalised, where there is a norm.
fn normalised<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    norm: Option<&E::Norm>,
    x: &E::Tensor,
) -> Result<Option<E::Tensor>, Error> {
    norm.map(|norm| engine.norm(step, norm, x)).transpose()
}

/// Adds what half a block computed to the residual stream: the last layer's product, normalised and scaled.
fn add<E: Engine>(
    engine: &E,
    step: &mut Step<'_, E>,
    layer: &E::Linear,
    post_norm: Option<&E::Norm>,
    scale: f32,
    x: &E::Tensor,
    sum: &mut E::Tensor,
) -> Result<(), Error> {
    if post_norm.is_none() && scale == 1.0 {
        return engine.add_product(step, layer, x, sum);
    }
    let product = engine.product(step, layer, x)?;
    let normed = normalised(engine, step, post_norm, &product)?;
    engine.add_scaled(step, normed.as_ref().unwrap_or(&product), scale, sum)
}

/// Has the windows of some batches go through a block, from the first token on. What each shows, in the order of the batches; where
/// `keeps` is false, they are afterwards what they were.
pub(super) fn through<E: Engine>(
    engine: &E,
    block: &DecoderBlock<E>,
    inputs: Option<&[InputKind]>,
    batches: &mut [Batch<'_, E::Tensor>],
    keeps: bool,
) -> Result<Vec<Vec<Observation>>, Error> {
    let tasks = batches.iter_mut().collect();
    engine.run(tasks, |recording, batch: &mut Batch<'_, E::Tensor>| {
        let mut state = BlockState::new(block);
        for chunk in &mut batch.chunks {
            let mut step = Step {
                spans: &chunk.spans,
                inputs,
                recording,
            };
            if keeps {
                run(engine, &mut step, block, &mut state, &mut chunk.x)?;
            } else {
                let mut copy = engine.scaled(&mut step, &chunk.x, 1.0)?;
                run(engine, &mut step, block, &mut state, &mut copy)?;
            }
        }
        Ok(())
    })
}

/// Changes the tensors of all chunks, each for itself.
pub(super) fn each_chunk<E: Engine>(
    engine: &E,
    batches: &mut [Batch<'_, E::Tensor>],
    change: impl Fn(&mut Step<'_, E>, &mut E::Tensor) -> Result<(), Error> + Sync,
) -> Result<(), Error> {
    let chunks = batches.iter_mut().flat_map(|batch| &mut batch.chunks);
    let work = |recording: &mut E::Recording, chunk: &mut Chunk<E::Tensor>| {
        let mut step = Step {
            spans: &chunk.spans,
            inputs: None,
            recording,
        };
        change(&mut step, &mut chunk.x)
    };
    engine.run(chunks.collect(), work).map(|_| ())
}
