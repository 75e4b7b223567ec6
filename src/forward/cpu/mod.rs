//! The forward pass on the CPU, in f32.

mod activation;
mod activations;
mod attention;
mod exp;
mod in_place;
mod peak;
mod scan;
mod weights;

use super::batch::{Cut, hidden_room};
use super::engine::{Engine, LmHeadPart, PartialLoss, RopeTables, Step};
use super::error::Error;
use super::statistics::{Observation, Wanted};
use super::weights::WeightReader;
use crate::cores::Cores;
use crate::model::{
    Architecture, DecoderBlock, ExpertAssignment, HeadNorms, LatentWidths, Linear, Nonlinearity,
    NormTensors, Parts, Position, Scan, SelfAttention,
};
use activations::Activations;
use attention::{CpuHeads, KeysAndValues, RopeTable};
pub(super) use peak::CpuProduct;
use scan::CpuConvolution;
use weights::{CpuMatrix, CpuNorm};

/// Bytes that the activations of all windows in flight may take.
const IN_FLIGHT_BYTES: usize = 192 << 20;

/// Bytes that the activations of one may take, which goes through a block in chunks otherwise.
const WINDOW_BYTES: usize = 1 << 30;

/// A chunk is a multiple of so many tokens: a chunk of the queries of attention.
const CHUNK: usize = attention::QUERIES;

/// Bytes that the weights may take, as f32, which are loaded at a time, a core a matrix; a larger one is loaded alone.
const LOADING_BYTES: usize = 256 << 20;

/// Bytes of a block, as f32, below which one core loads it. Loaded on several, memory of several threads goes back to the system
/// and comes back page by page, which costs a small block more than it gains (6 % of a pass through blocks of 14 MB).
const SMALL_BLOCK_BYTES: usize = 64 << 20;

/// This machine's cores.
pub(super) struct CpuEngine<'a> {
    architecture: &'a Architecture,
    wanted: Wanted,
    cores: Cores,
    /// Of each of the architecture's rotary embeddings.
    ropes: Vec<RopeTables<RopeTable>>,
}

impl<'a> CpuEngine<'a> {
    /// Cores for windows of at most `context` tokens.
    pub(super) fn new(
        architecture: &'a Architecture,
        context: usize,
        wanted: Wanted,
        threads: usize,
    ) -> Result<Self, Error> {
        let rotaries = architecture.rotaries.iter();
        Ok(Self {
            architecture,
            wanted,
            cores: Cores::new(threads)?,
            ropes: rotaries
                .map(|rotary| RopeTables::new(rotary, context, RopeTable::new))
                .collect(),
        })
    }

    /// Bytes of what is alive of a token at the widest places of a block, roughly.
    fn bytes_of_token(&self) -> usize {
        let features = |block: &DecoderBlock| {
            let found = block.mixers.iter().map(|mixer| mixer.output().in_features);
            let found: usize = found.sum();
            3 * self.architecture.hidden_size + 3 * found + 2 * block.widest()
        };
        let widest = self.architecture.blocks.iter().map(features).max();
        4 * widest.unwrap_or(0)
    }

    /// A part of the head as a linear layer.
    fn head(&self, part: &LmHeadPart) -> Result<CpuMatrix, Error> {
        let features = self.architecture.embedding_size;
        CpuMatrix::of_head(&part.rows, part.bias.clone(), features)
    }
}

impl Parts for CpuEngine<'_> {
    type Linear = CpuMatrix;
    type Norm = CpuNorm;
    type Vector = Vec<f32>;
    type Numbers = Vec<f32>;
    type Convolution = CpuConvolution;
    type Scan = Scan;
}

impl Engine for CpuEngine<'_> {
    type Tensor = Activations;
    type Heads = CpuHeads;
    type Recording = Vec<Observation>;
    type Cache = Vec<KeysAndValues>;
    type Tail = Vec<Vec<f32>>;
    type ScanState = Vec<scan::State>;

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

    fn load_vector(&self, numbers: Vec<f32>) -> Result<Vec<f32>, Error> {
        Ok(numbers)
    }

    fn load_convolution(
        &self,
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        width: usize,
    ) -> Result<CpuConvolution, Error> {
        Ok(CpuConvolution {
            weight,
            bias,
            width,
        })
    }

    fn load_scan(&self, scan: Scan) -> Result<Scan, Error> {
        Ok(scan)
    }

    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<Activations, Error> {
        let features = rows.len() / tokens.max(1);
        Activations::new(rows, features)
    }

    fn hidden_room(&self) -> usize {
        hidden_room()
    }

    fn cut(&self, window: usize) -> Cut {
        // Cores share no products: a window a core.
        let fit = WINDOW_BYTES / self.bytes_of_token().max(1);
        let tokens = if window <= fit {
            window.max(1)
        } else {
            (fit / CHUNK * CHUNK).max(CHUNK)
        };
        Cut { windows: 1, tokens }
    }

    fn in_flight(&self, rows: usize) -> usize {
        let activations = rows * self.bytes_of_token();
        (IN_FLIGHT_BYTES / (activations + attention::SCORES_BYTES)).clamp(1, self.cores.count())
    }

    fn run<T: Send>(
        &self,
        tasks: Vec<T>,
        work: impl Fn(&mut Vec<Observation>, T) -> Result<(), Error> + Sync,
    ) -> Result<Vec<Vec<Observation>>, Error> {
        self.cores.each(tasks, |task| {
            let mut observed = Vec::new();
            work(&mut observed, task)?;
            Ok(observed)
        })
    }

    fn norm(
        &self,
        _: &mut Step<'_, Self>,
        norm: &CpuNorm,
        x: &Activations,
    ) -> Result<Activations, Error> {
        norm.apply(x)
    }

    fn product(
        &self,
        _: &mut Step<'_, Self>,
        matrix: &CpuMatrix,
        x: &Activations,
    ) -> Result<Activations, Error> {
        matrix.apply(x)
    }

    fn add_product(
        &self,
        _: &mut Step<'_, Self>,
        matrix: &CpuMatrix,
        x: &Activations,
        sum: &mut Activations,
    ) -> Result<(), Error> {
        matrix.add(x, sum)
    }

    fn scaled(
        &self,
        _: &mut Step<'_, Self>,
        x: &Activations,
        scale: f32,
    ) -> Result<Activations, Error> {
        let mut scaled = x.clone();
        in_place::change(&mut scaled, |x| x.iter_mut().for_each(|x| *x *= scale));
        Ok(scaled)
    }

    fn norm_parts(
        &self,
        _: &mut Step<'_, Self>,
        norm: &CpuNorm,
        mut x: Activations,
    ) -> Result<Activations, Error> {
        norm.normalise(&mut x)?;
        Ok(x)
    }

    fn convolve(
        &self,
        step: &mut Step<'_, Self>,
        convolution: &CpuConvolution,
        x: &Activations,
        tail: &mut Vec<Vec<f32>>,
    ) -> Result<Activations, Error> {
        let mut y = Activations::zeros(x.tokens(), x.features());
        tail.resize(step.spans.len(), Vec::new());
        for (span, tail) in step.spans.iter().zip(tail) {
            let (x, y) = (x.rows(*span), y.rows_mut(*span));
            convolution.apply(x, y, span.goes_on(), tail);
        }
        Ok(y)
    }

    fn scan(
        &self,
        step: &mut Step<'_, Self>,
        scan: &Scan,
        inputs: &[&Activations],
        state: &mut Vec<scan::State>,
    ) -> Result<Activations, Error> {
        let mut y = Activations::zeros(inputs[0].tokens(), scan.sizes.output());
        state.resize(step.spans.len(), scan::State::default());
        for (span, state) in step.spans.iter().zip(state) {
            let inputs: Vec<&[f32]> = inputs.iter().map(|x| x.rows(*span)).collect();
            scan::scan(scan, &inputs, state, y.rows_mut(*span));
        }
        Ok(y)
    }

    fn heads_of_latents(
        &self,
        _: &mut Step<'_, Self>,
        widths: LatentWidths,
        queries: &Activations,
        rope_key: &Activations,
        keys_and_values: &Activations,
    ) -> Result<CpuHeads, Error> {
        CpuHeads::of_latents(widths, queries, rope_key, keys_and_values)
    }

    fn add_scaled(
        &self,
        _: &mut Step<'_, Self>,
        x: &Activations,
        scale: f32,
        sum: &mut Activations,
    ) -> Result<(), Error> {
        in_place::add_scaled(sum, scale, x)
    }

    fn heads(
        &self,
        _: &mut Step<'_, Self>,
        attention: &SelfAttention<Self>,
        x: &Activations,
    ) -> Result<CpuHeads, Error> {
        CpuHeads::of(attention.heads, &attention.projections, x)
    }

    fn clip_heads(
        &self,
        _: &mut Step<'_, Self>,
        clip: f32,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.clip(clip);
        Ok(())
    }

    fn normalise_heads(
        &self,
        _: &mut Step<'_, Self>,
        norms: &HeadNorms<CpuNorm>,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.normalise(norms)
    }

    fn apply_rope(
        &self,
        step: &mut Step<'_, Self>,
        rotary: usize,
        heads: &mut CpuHeads,
    ) -> Result<(), Error> {
        heads.apply_rope(&self.ropes[rotary], step.spans)
    }

    fn attend(
        &self,
        step: &mut Step<'_, Self>,
        attention: &SelfAttention<Self>,
        heads: CpuHeads,
        cache: &mut Vec<KeysAndValues>,
    ) -> Result<Activations, Error> {
        let alibi = self.architecture.alibi.as_ref();
        let alibi = alibi.filter(|_| attention.position == Position::Alibi);
        heads.attend(attention, alibi, step.spans, cache)
    }

    fn activate(
        &self,
        _: &mut Step<'_, Self>,
        activation: Nonlinearity,
        x: Activations,
        up: Option<Activations>,
    ) -> Result<Activations, Error> {
        activation::apply(activation, x, up)
    }

    fn observe(
        &self,
        observed: &mut Vec<Observation>,
        input: usize,
        x: &Activations,
        rows: &[usize],
    ) -> Result<(), Error> {
        let mut first = 0;
        for (window, rows) in rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
            let values = &x.values()[first * x.features()..(first + rows) * x.features()];
            observed.push(Observation {
                window,
                input,
                sums: self.wanted.of(values, x.features())?,
            });
            first += rows;
        }
        Ok(())
    }

    fn values(&self, _: &mut Step<'_, Self>, x: &Activations) -> Result<Vec<f32>, Error> {
        Ok(x.values().to_vec())
    }

    fn gather(
        &self,
        _: &mut Step<'_, Self>,
        x: &Activations,
        assignment: &ExpertAssignment,
    ) -> Result<Activations, Error> {
        let features = x.features();
        Activations::new(
            activations::gather(x.values(), features, assignment),
            features,
        )
    }

    fn scatter(
        &self,
        _: &mut Step<'_, Self>,
        y: &Activations,
        assignment: &ExpertAssignment,
        sum: &mut Activations,
    ) -> Result<(), Error> {
        activations::scatter(y.values(), y.features(), assignment, sum.values_mut());
        Ok(())
    }

    fn partial_losses(
        &self,
        head: &LmHeadPart,
        hidden: &[(&Activations, &[u32])],
    ) -> Result<Vec<Vec<PartialLoss>>, Error> {
        let rows = self.head(head)?;
        let count = head.rows.len() / self.architecture.embedding_size;
        let soft_cap = self.architecture.logit_soft_cap;
        let of_tensor = |&(hidden, next): &(&Activations, &[u32])| {
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
            Ok(tokens.zip(next).map(of_token).collect())
        };
        self.cores.each(hidden.iter().collect(), of_tensor)
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
