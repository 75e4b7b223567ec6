//! The forward pass on the CPU, in f32.

mod activation;
mod activations;
mod attention;
mod exp;
mod in_place;
mod peak;
mod rows;
mod scan;
mod weights;

use super::engine::{
    BlockPass, Convolved, Engine, LmHeadPart, LoadedAttention, LoadedBlock, PartialLoss, RopeTables,
};
use super::error::Error;
use super::statistics::Statistic;
use super::weights::WeightReader;
use crate::cores::Cores;
use crate::model::{
    Architecture, DecoderBlock, ExpertAssignment, HeadNorms, LatentWidths, Linear, Nonlinearity,
    NormTensors, Position, Scan,
};
use activations::Activations;
use attention::{CpuHeads, RopeTable};
pub(super) use peak::CpuProduct;
use weights::{CpuMatrix, CpuNorm};

/// Bytes that the activations of all sequences in flight may take.
const IN_FLIGHT_BYTES: usize = 192 << 20;

/// Bytes that the weights may take, as f32, which are loaded at a time, a core a matrix; a larger one is loaded alone.
const LOADING_BYTES: usize = 256 << 20;

/// Bytes of a block, as f32, below which one core loads it. Loaded on several, memory of several threads goes back to the system
/// and comes back page by page, which costs a small block more than it gains (6 % of a pass through blocks of 14 MB).
const SMALL_BLOCK_BYTES: usize = 64 << 20;

/// This machine's cores.
pub(super) struct CpuEngine<'a> {
    architecture: &'a Architecture,
    statistics: &'a [Statistic],
    cores: Cores,
    /// Of each of the architecture's rotary embeddings.
    ropes: Vec<RopeTables<RopeTable>>,
}

/// What a sequence has shown in a block so far.
pub(super) struct CpuSequence {
    observed: Vec<f32>,
    observes: bool,
}

impl<'a> CpuEngine<'a> {
    /// Cores for sequences of at most `context` tokens.
    pub(super) fn new(
        architecture: &'a Architecture,
        context: usize,
        statistics: &'a [Statistic],
        threads: usize,
    ) -> Result<Self, Error> {
        let rotaries = architecture.rotaries.iter();
        Ok(Self {
            architecture,
            statistics,
            cores: Cores::new(threads)?,
            ropes: rotaries
                .map(|rotary| RopeTables::new(rotary, context, RopeTable::new))
                .collect(),
        })
    }

    /// The statistics that are taken of a sequence.
    fn taken(&self, sequence: &CpuSequence) -> &[Statistic] {
        if sequence.observes {
            self.statistics
        } else {
            &[]
        }
    }

    /// A part of the head as a linear layer.
    fn head(&self, part: &LmHeadPart) -> Result<CpuMatrix, Error> {
        let features = self.architecture.embedding_size;
        CpuMatrix::of_head(&part.rows, part.bias.clone(), features)
    }
}

impl Engine for CpuEngine<'_> {
    type Tensor = Activations;
    type Heads = CpuHeads;
    type Matrix = CpuMatrix;
    type Norm = CpuNorm;
    type Sequence = CpuSequence;

    fn load_matrix(&self, weights: &WeightReader<'_>, linear: &Linear) -> Result<CpuMatrix, Error> {
        let (weight, bias) = (weights.read_matrix(linear)?, weights.read_bias(linear)?);
        CpuMatrix::new(&weight, bias, linear)
    }

    fn load_matrices(
        &self,
        weights: &WeightReader<'_>,
        layers: &[Linear],
    ) -> Result<Vec<CpuMatrix>, Error> {
        let load = |layer| self.load_matrix(weights, layer);
        let bytes_of = |layer: &Linear| 4 * layer.out_features * layer.in_features;
        if layers.iter().map(bytes_of).sum::<usize>() < SMALL_BLOCK_BYTES {
            return layers.iter().map(load).collect();
        }
        let mut loaded = Vec::with_capacity(layers.len());
        let mut rest = layers;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |layer: &&Linear| {
                bytes += bytes_of(layer);
                bytes <= LOADING_BYTES
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let (together, after) = rest.split_at(count);
            loaded.extend(self.cores.each(together.iter().collect(), load)?);
            rest = after;
        }
        Ok(loaded)
    }

    fn load_norm(&self, weights: &WeightReader<'_>, norm: &NormTensors) -> Result<CpuNorm, Error> {
        let (factors, summands) = weights.read_norm(norm)?;
        Ok(CpuNorm::new(factors, summands, norm))
    }

    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<Activations, Error> {
        let features = rows.len() / tokens.max(1);
        Activations::new(rows, features)
    }

    fn in_flight(&self, context: usize) -> usize {
        // What is alive at the widest places of a block, roughly.
        let features = |block: &DecoderBlock| {
            let found = block.mixers.iter().map(|mixer| mixer.output().in_features);
            let found: usize = found.sum();
            3 * self.architecture.hidden_size + 3 * found + 2 * block.widest()
        };
        let widest = self.architecture.blocks.iter().map(features).max();
        let activations = 4 * context * widest.unwrap_or(0);
        (IN_FLIGHT_BYTES / (activations + attention::SCORES_BYTES)).clamp(1, self.cores.count())
    }

    fn run(
        &self,
        block: &LoadedBlock<Self>,
        hidden: &mut [Activations],
        pass: BlockPass<Self>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        self.cores.each(hidden.iter_mut().collect(), |x| {
            let mut sequence = CpuSequence {
                observed: Vec::new(),
                observes: pass.observes,
            };
            (pass.wiring)(self, &mut sequence, block, x)?;
            Ok(sequence.observed)
        })
    }

    fn copy(&self, x: &Activations) -> Result<Activations, Error> {
        Ok(x.clone())
    }

    fn norm(
        &self,
        _: &mut CpuSequence,
        norm: &CpuNorm,
        x: &Activations,
    ) -> Result<Activations, Error> {
        norm.apply(x)
    }

    fn product(
        &self,
        _: &mut CpuSequence,
        matrix: &CpuMatrix,
        x: &Activations,
    ) -> Result<Activations, Error> {
        matrix.apply(x)
    }

    fn add_product(
        &self,
        _: &mut CpuSequence,
        matrix: &CpuMatrix,
        x: &Activations,
        sum: &mut Activations,
    ) -> Result<(), Error> {
        matrix.add(x, sum)
    }

    fn scaled(
        &self,
        _: &mut CpuSequence,
        x: &Activations,
        scale: f32,
    ) -> Result<Activations, Error> {
        let mut scaled = x.clone();
        in_place::change(&mut scaled, |x| x.iter_mut().for_each(|x| *x *= scale));
        Ok(scaled)
    }

    fn norm_parts(
        &self,
        _: &mut CpuSequence,
        norm: &CpuNorm,
        mut x: Activations,
    ) -> Result<Activations, Error> {
        norm.normalise(&mut x)?;
        Ok(x)
    }

    fn convolve(
        &self,
        _: &mut CpuSequence,
        convolution: &Convolved<'_>,
        x: &Activations,
    ) -> Result<Activations, Error> {
        Activations::new(scan::convolve(convolution, x.values()), x.features())
    }

    fn scan(
        &self,
        _: &mut CpuSequence,
        scan: &Scan,
        inputs: &[&Activations],
    ) -> Result<Activations, Error> {
        let values: Vec<&[f32]> = inputs.iter().map(|x| x.values()).collect();
        Activations::new(scan::scan(scan, &values), scan.sizes.output())
    }

    fn heads_of_latents(
        &self,
        _: &mut CpuSequence,
        widths: LatentWidths,
        queries: &Activations,
        rope_key: &Activations,
        keys_and_values: &Activations,
    ) -> Result<CpuHeads, Error> {
        CpuHeads::of_latents(widths, queries, rope_key, keys_and_values)
    }

    fn add_scaled(
        &self,
        _: &mut CpuSequence,
        x: &Activations,
        scale: f32,
        sum: &mut Activations,
    ) -> Result<(), Error> {
        in_place::add_scaled(sum, scale, x)
    }

    fn heads(
        &self,
        _: &mut CpuSequence,
        attention: &LoadedAttention<Self>,
        x: &Activations,
    ) -> Result<CpuHeads, Error> {
        CpuHeads::of(attention.heads, &attention.projections, x)
    }

    fn clip_heads(
        &self,
        _: &mut CpuSequence,
        clip: f32,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.clip(clip);
        Ok(())
    }

    fn normalise_heads(
        &self,
        _: &mut CpuSequence,
        norms: &HeadNorms<CpuNorm>,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.normalise(norms)
    }

    fn apply_rope(
        &self,
        _: &mut CpuSequence,
        rotary: usize,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.apply_rope(&self.ropes[rotary])
    }

    fn attend(
        &self,
        _: &mut CpuSequence,
        attention: &LoadedAttention<Self>,
        heads: CpuHeads,
    ) -> Result<Activations, Error> {
        let alibi = self.architecture.alibi.as_ref();
        let alibi = alibi.filter(|_| attention.position == Position::Alibi);
        heads.attend(attention, alibi)
    }

    fn activate(
        &self,
        _: &mut CpuSequence,
        activation: Nonlinearity,
        x: Activations,
        up: Option<Activations>,
    ) -> Result<Activations, Error> {
        activation::apply(activation, x, up)
    }

    fn observe(&self, sequence: &mut CpuSequence, x: &Activations) -> Result<(), Error> {
        for statistic in self.taken(sequence) {
            let numbers = statistic.of(x.values(), x.features())?;
            sequence.observed.extend(numbers);
        }
        Ok(())
    }

    fn observe_nothing(&self, sequence: &mut CpuSequence, reader: &CpuMatrix) -> Result<(), Error> {
        for statistic in self.taken(sequence) {
            let nothing = statistic.of(&[], reader.in_features())?;
            sequence.observed.extend(nothing);
        }
        Ok(())
    }

    fn values(&self, _: &mut CpuSequence, x: &Activations) -> Result<Vec<f32>, Error> {
        Ok(x.values().to_vec())
    }

    fn gather(
        &self,
        _: &mut CpuSequence,
        x: &Activations,
        assignment: &ExpertAssignment,
    ) -> Result<Activations, Error> {
        let features = x.features();
        Activations::new(rows::gather(x.values(), features, assignment), features)
    }

    fn scatter(
        &self,
        _: &mut CpuSequence,
        y: &Activations,
        assignment: &ExpertAssignment,
        sum: &mut Activations,
    ) -> Result<(), Error> {
        rows::scatter(y.values(), y.features(), assignment, sum.values_mut());
        Ok(())
    }

    fn normalise(&self, norm: &CpuNorm, x: &Activations) -> Result<Activations, Error> {
        self.cores.together(|| norm.apply(x))
    }

    fn project(
        &self,
        matrix: &CpuMatrix,
        x: &Activations,
        mut sum: Activations,
    ) -> Result<Activations, Error> {
        self.cores.together(|| matrix.add(x, &mut sum))?;
        Ok(sum)
    }

    fn tokens(&self, x: &Activations) -> Result<usize, Error> {
        Ok(x.tokens())
    }

    fn partial_losses(
        &self,
        head: &LmHeadPart,
        hidden: &[Activations],
        next: &[&[u32]],
    ) -> Result<Vec<Vec<PartialLoss>>, Error> {
        let rows = self.head(head)?;
        let count = head.rows.len() / self.architecture.embedding_size;
        let soft_cap = self.architecture.logit_soft_cap;
        let of_sequence = |(hidden, next): (&Activations, &&[u32])| {
            let mut logits = rows.apply(hidden)?;
            let tokens = logits.values_mut().chunks_exact_mut(count);
            let of_token = |(logits, &next): (&mut [f32], &u32)| {
                if let Some(cap) = soft_cap {
                    exp::soft_cap(logits, 1.0, cap);
                }
                let (largest, sum) = exp::log_sum_exp(logits);
                let target = (next as usize).checked_sub(head.first);
                PartialLoss {
                    largest,
                    sum,
                    target: target.and_then(|row| logits.get(row)).map_or(0.0, |&l| l),
                }
            };
            Ok(tokens.zip(*next).map(of_token).collect())
        };
        self.cores
            .each(hidden.iter().zip(next).collect(), of_sequence)
    }

    fn logits(&self, head: &LmHeadPart, hidden: &Activations) -> Result<Vec<f32>, Error> {
        let rows = self.head(head)?;
        let mut logits = self.cores.together(|| rows.apply(hidden))?;
        if let Some(cap) = self.architecture.logit_soft_cap {
            in_place::change(&mut logits, |logits| exp::soft_cap(logits, 1.0, cap));
        }
        Ok(logits.values().to_vec())
    }
}
