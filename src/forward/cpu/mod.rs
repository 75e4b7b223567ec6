//! The forward pass on the CPU, in f32, by candle.

mod activation;
mod attention;
mod exp;
mod in_place;
mod peak;
mod rows;
mod scan;
mod weights;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

use super::engine::{
    BlockPass, Convolved, Engine, HeadPart, LoadedAttention, LoadedBlock, PartialLoss,
};
use super::error::Error;
use super::statistics::Statistic;
use super::weights::WeightReader;
use crate::model::{
    Architecture, DecoderBlock, HeadNorms, LatentWidths, Linear, Nonlinearity, NormTensors,
    Position, Scan, Share,
};
use crate::products;
use attention::{CpuHeads, TurnTable};
pub(super) use peak::CpuProduct;
use weights::{CpuMatrix, CpuNorm};

/// Bytes that the activations of all sequences in flight may take.
const IN_FLIGHT_BYTES: usize = 192 << 20;

/// candle on this machine's cores.
pub(super) struct CpuEngine<'a> {
    architecture: &'a Architecture,
    statistics: &'a [Statistic],
    pool: rayon::ThreadPool,
    /// Of each of the architecture's rotary embeddings.
    turns: Vec<TurnTable>,
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
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Engine(error.to_string()))?;
        let rotaries = architecture.rotaries.iter();
        let turns = rotaries.map(|rotary| TurnTable::new(rotary, context));
        Ok(Self {
            architecture,
            statistics,
            pool,
            turns: turns.collect::<Result<_, _>>().map_err(refused)?,
        })
    }

    /// The statistics that are taken of a sequence.
    fn taken(&self, sequence: &CpuSequence) -> &[Statistic] {
        match sequence.observes {
            true => self.statistics,
            false => &[],
        }
    }

    /// Has products stay on their core if there is a sequence for each.
    fn spread(&self, sequences: usize) {
        if sequences < self.pool.current_num_threads() {
            products::share_out();
        } else {
            products::keep_on_one_core();
        }
    }

    /// A part of the head as a linear layer.
    fn head(&self, part: &HeadPart) -> candle_core::Result<CpuMatrix> {
        let features = self.architecture.embedding_size;
        CpuMatrix::of_head(part.rows.clone(), part.bias.clone(), features)
    }
}

impl Engine for CpuEngine<'_> {
    type Tensor = Tensor;
    type Heads = CpuHeads;
    type Matrix = CpuMatrix;
    type Norm = CpuNorm;
    type Sequence = CpuSequence;

    fn load_matrix(&self, weights: &WeightReader<'_>, linear: &Linear) -> Result<CpuMatrix, Error> {
        self.pool.install(|| {
            let (weight, bias) = (weights.read_matrix(linear)?, weights.read_bias(linear)?);
            CpuMatrix::new(weight, bias, linear).map_err(refused)
        })
    }

    fn load_norm(&self, weights: &WeightReader<'_>, norm: &NormTensors) -> Result<CpuNorm, Error> {
        self.pool.install(|| {
            let (factors, summands) = weights.read_norm(norm)?;
            CpuNorm::new(factors, summands, norm).map_err(refused)
        })
    }

    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<Tensor, Error> {
        let shape = (tokens, rows.len() / tokens.max(1));
        Tensor::from_vec(rows, shape, &Device::Cpu).map_err(refused)
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
        (IN_FLIGHT_BYTES / (activations + attention::SCORES_BYTES))
            .clamp(1, self.pool.current_num_threads())
    }

    fn run(
        &self,
        block: &LoadedBlock<Self>,
        hidden: &mut [Tensor],
        pass: BlockPass<Self>,
    ) -> Result<Vec<Vec<f32>>, Error> {
        let one = |x: &mut Tensor| {
            let mut sequence = CpuSequence {
                observed: Vec::new(),
                observes: pass.observes,
            };
            (pass.wiring)(self, &mut sequence, block, x)?;
            Ok(sequence.observed)
        };
        self.spread(hidden.len());
        self.pool
            .install(|| hidden.par_iter_mut().map(one).collect())
    }

    fn copy(&self, x: &Tensor) -> Result<Tensor, Error> {
        x.copy().map_err(refused)
    }

    fn norm(&self, _: &mut CpuSequence, norm: &CpuNorm, x: &Tensor) -> Result<Tensor, Error> {
        norm.apply(x).map_err(refused)
    }

    fn product(
        &self,
        _: &mut CpuSequence,
        matrix: &CpuMatrix,
        x: &Tensor,
    ) -> Result<Tensor, Error> {
        matrix.apply(x).map_err(refused)
    }

    fn add_product(
        &self,
        _: &mut CpuSequence,
        matrix: &CpuMatrix,
        x: &Tensor,
        sum: &mut Tensor,
    ) -> Result<(), Error> {
        let product = matrix.apply(x).map_err(refused)?;
        in_place::add(sum, &product).map_err(refused)
    }

    fn scaled(&self, _: &mut CpuSequence, x: &Tensor, scale: f32) -> Result<Tensor, Error> {
        x.affine(f64::from(scale), 0.0).map_err(refused)
    }

    fn norm_parts(&self, _: &mut CpuSequence, norm: &CpuNorm, x: Tensor) -> Result<Tensor, Error> {
        norm.apply_to_parts(&x).map_err(refused)
    }

    fn convolve(
        &self,
        _: &mut CpuSequence,
        convolution: &Convolved<'_>,
        x: &Tensor,
    ) -> Result<Tensor, Error> {
        let mut y = Vec::new();
        with_slice(x, |x| y = scan::convolve(convolution, x))?;
        Tensor::from_vec(y, x.dims(), &Device::Cpu).map_err(refused)
    }

    fn scan(&self, _: &mut CpuSequence, scan: &Scan, inputs: &[&Tensor]) -> Result<Tensor, Error> {
        let values = |x: &&Tensor| -> Result<Vec<f32>, Error> {
            let mut values = Vec::new();
            with_slice(x, |x| values = x.to_vec())?;
            Ok(values)
        };
        let values: Vec<_> = inputs.iter().map(values).collect::<Result<_, _>>()?;
        let features = scan.sizes.output();
        let y = scan::scan(scan, &values);
        let shape = (y.len() / features, features);
        Tensor::from_vec(y, shape, &Device::Cpu).map_err(refused)
    }

    fn heads_of_latents(
        &self,
        _: &mut CpuSequence,
        widths: LatentWidths,
        queries: &Tensor,
        rotated_key: &Tensor,
        keys_and_values: &Tensor,
    ) -> Result<CpuHeads, Error> {
        CpuHeads::of_latents(widths, queries, rotated_key, keys_and_values).map_err(refused)
    }

    fn add_scaled(
        &self,
        _: &mut CpuSequence,
        x: &Tensor,
        scale: f32,
        sum: &mut Tensor,
    ) -> Result<(), Error> {
        in_place::add_scaled(sum, scale, x).map_err(refused)
    }

    fn heads(
        &self,
        _: &mut CpuSequence,
        attention: &LoadedAttention<Self>,
        x: &Tensor,
    ) -> Result<CpuHeads, Error> {
        CpuHeads::of(attention.heads, &attention.projections, x).map_err(refused)
    }

    fn clip_heads(
        &self,
        _: &mut CpuSequence,
        clip: f32,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.clip(clip).map_err(refused)
    }

    fn normalise_heads(
        &self,
        _: &mut CpuSequence,
        norms: &HeadNorms<CpuNorm>,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.normalise(norms).map_err(refused)
    }

    fn turn_heads(
        &self,
        _: &mut CpuSequence,
        rotary: usize,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.turn(&self.turns[rotary]).map_err(refused)
    }

    fn attend(
        &self,
        _: &mut CpuSequence,
        attention: &LoadedAttention<Self>,
        heads: CpuHeads,
    ) -> Result<Tensor, Error> {
        let alibi = self.architecture.alibi.as_ref();
        let alibi = alibi.filter(|_| attention.position == Position::Alibi);
        heads.attend(attention, alibi).map_err(refused)
    }

    fn activate(
        &self,
        _: &mut CpuSequence,
        activation: Nonlinearity,
        x: Tensor,
        up: Option<Tensor>,
    ) -> Result<Tensor, Error> {
        activation::apply(activation, x, up).map_err(refused)
    }

    fn observe(&self, sequence: &mut CpuSequence, x: &Tensor) -> Result<(), Error> {
        let features = x.dim(1).map_err(refused)?;
        for statistic in self.taken(sequence) {
            let mut numbers = Ok(Vec::new());
            with_slice(x, |x| numbers = statistic.of(x, features))?;
            sequence.observed.extend(numbers.map_err(refused)?);
        }
        Ok(())
    }

    fn observe_nothing(&self, sequence: &mut CpuSequence, reader: &CpuMatrix) -> Result<(), Error> {
        for statistic in self.taken(sequence) {
            let nothing = statistic.of(&[], reader.in_features());
            sequence.observed.extend(nothing.map_err(refused)?);
        }
        Ok(())
    }

    fn values(&self, _: &mut CpuSequence, x: &Tensor) -> Result<Vec<f32>, Error> {
        let mut values = Vec::new();
        with_slice(x, |x| values = x.to_vec())?;
        Ok(values)
    }

    fn gather(&self, _: &mut CpuSequence, x: &Tensor, share: &Share) -> Result<Tensor, Error> {
        let features = x.dim(1).map_err(refused)?;
        let mut rows = Vec::new();
        with_slice(x, |x| rows = rows::gather(x, features, share))?;
        let shape = (share.tokens.len(), features);
        Tensor::from_vec(rows, shape, &Device::Cpu).map_err(refused)
    }

    fn scatter(
        &self,
        _: &mut CpuSequence,
        y: &Tensor,
        share: &Share,
        sum: &mut Tensor,
    ) -> Result<(), Error> {
        let to = rows::Scatter { share };
        sum.inplace_op2(y, &to).map_err(refused)
    }

    fn normalise(&self, norm: &CpuNorm, x: &Tensor) -> Result<Tensor, Error> {
        self.pool.install(|| norm.apply(x)).map_err(refused)
    }

    fn project(&self, matrix: &CpuMatrix, x: &Tensor, sum: Tensor) -> Result<Tensor, Error> {
        self.spread(1);
        let projected = || matrix.apply(x).and_then(|y| &sum + y);
        self.pool.install(projected).map_err(refused)
    }

    fn tokens(&self, x: &Tensor) -> Result<usize, Error> {
        x.dim(0).map_err(refused)
    }

    fn partial_losses(
        &self,
        head: &HeadPart,
        hidden: &[Tensor],
        next: &[&[u32]],
    ) -> Result<Vec<Vec<PartialLoss>>, Error> {
        let rows = self.head(head).map_err(refused)?;
        let count = head.rows.len() / self.architecture.embedding_size;
        let soft_cap = self.architecture.logit_soft_cap;
        let of_sequence = |(hidden, next): (&Tensor, &&[u32])| {
            let mut partials = Vec::with_capacity(next.len());
            let mut capped = vec![0.0; if soft_cap.is_some() { count } else { 0 }];
            with_slice(&rows.apply(hidden).map_err(refused)?, |logits| {
                for (logits, &next) in logits.chunks_exact(count).zip(*next) {
                    let logits = match soft_cap {
                        Some(cap) => {
                            capped.copy_from_slice(logits);
                            exp::soft_cap(&mut capped, 1.0, cap);
                            &capped
                        }
                        None => logits,
                    };
                    let (largest, sum) = exp::log_sum_exp(logits);
                    let target = (next as usize).checked_sub(head.first);
                    partials.push(PartialLoss {
                        largest,
                        sum,
                        target: target.and_then(|row| logits.get(row)).map_or(0.0, |&l| l),
                    });
                }
            })?;
            Ok(partials)
        };
        self.spread(hidden.len());
        self.pool
            .install(|| hidden.par_iter().zip(next).map(of_sequence).collect())
    }

    fn logits(&self, head: &HeadPart, hidden: &Tensor) -> Result<Vec<f32>, Error> {
        self.spread(1);
        let rows = self.head(head).map_err(refused)?;
        let logits = rows.apply(hidden).map_err(refused)?;
        let mut all = Vec::new();
        with_slice(&logits, |logits| all = logits.to_vec())?;
        if let Some(cap) = self.architecture.logit_soft_cap {
            exp::soft_cap(&mut all, 1.0, cap);
        }
        Ok(all)
    }
}

/// An error of candle as ours.
fn refused(error: candle_core::Error) -> Error {
    Error::Engine(error.to_string())
}

/// Lends the values of a contiguous tensor, without a copy.
fn with_slice(x: &Tensor, with: impl FnOnce(&[f32])) -> Result<(), Error> {
    let (storage, layout) = x.storage_and_layout();
    let candle_core::Storage::Cpu(storage) = &*storage else {
        return Err(Error::Engine("a tensor is not on the CPU".to_owned()));
    };
    let (first, end) = layout
        .contiguous_offsets()
        .ok_or_else(|| Error::Engine("a tensor is not contiguous".to_owned()))?;
    with(&storage.as_slice::<f32>().map_err(refused)?[first..end]);
    Ok(())
}
