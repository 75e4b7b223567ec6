//! The kernels of the forward pass, tried on a few numbers before a model is run on an adapter: a driver may translate one
//! wrongly, or leave out a barrier, and norms that are a little wrong would look like any others.
//!
//! What is expected is computed here in f64, by the plainest loops there are.

use wgpu::BufferUsages as Usage;

use super::buffers::GpuTensor;
use super::layers;
use super::recorder::Recorder;
use super::rows;
use super::weights::{GpuMatrix, GpuNorm, GpuNormKind, MatrixPiece};
use crate::device::product::{self, Destination, Operand, Weights};
use crate::device::recorder::{Groups, Sequence};
use crate::device::storage::{buffer, filled};
use crate::dtype::Dtype;
use crate::fixtures::Random;
use crate::forward::error::Error;
use crate::forward::kernels::{
    AttentionParams, CopyHeadsParams, HeadsParams, LogSumExpParams, SiteNormsParams,
};
use crate::model::{Activation, NormKind, Share};

/// More than a tile of 64 tokens, and no multiple of 16.
pub(super) const TOKENS: usize = 67;
/// More than the lanes of a workgroup.
const FEATURES: usize = 275;
/// Two heads, of more than a tile of 16 features.
const HEADS: usize = 2;
const HEAD_FEATURES: usize = 20;

/// How far an adapter may be off, of the largest value: its functions are not exact, but a lost summand is more.
const TOLERANCE: f64 = 1e-4;

/// Checks that every kernel gives what it should; what differs is named.
pub(super) fn kernels(recorder: &Recorder<'_>) -> Result<Result<(), String>, Error> {
    let probe = Probe { recorder };
    for (kernel, expected, got) in [
        probe.product()?,
        probe.norm(NormKind::Rms)?,
        probe.norm(NormKind::Layer)?,
        probe.normalise_heads()?,
        probe.turn_heads()?,
        probe.copy_heads()?,
        probe.attention()?,
        probe.activation(true)?,
        probe.activation(false)?,
        probe.gather_and_scatter()?,
        probe.elementwise("add_scaled")?,
        probe.elementwise("clip_all")?,
        probe.elementwise("soft_cap")?,
        probe.site_norms()?,
        probe.sketch()?,
        probe.log_sum_exp()?,
    ] {
        if let Some(difference) = difference(&expected, &got) {
            return Ok(Err(format!("its {kernel} is wrong: {difference}")));
        }
    }
    Ok(Ok(()))
}

/// A kernel's name, what it should give, and what it gave.
type Case = (&'static str, Vec<f64>, Vec<f32>);

fn difference(expected: &[f64], got: &[f32]) -> Option<String> {
    let largest = expected.iter().fold(0.0, |most: f64, x| most.max(x.abs()));
    let is_off = |(expected, got): (&f64, &f32)| {
        let off = (expected - f64::from(*got)).abs();
        // NaN is off, too.
        off.is_nan() || off > TOLERANCE * largest
    };
    let at = expected.iter().zip(got).position(is_off)?;
    Some(format!("{} where {} is right", got[at], expected[at]))
}

/// Values between -1 and 1 of few bits, and never the same for two seeds.
fn values(seed: u64, count: usize) -> Vec<f32> {
    let mut random = Random::new(seed);
    let value = move || (random.below(2001) as f32 - 1000.0) / 1024.0;
    std::iter::repeat_with(value).take(count).collect()
}

struct Probe<'p, 'a> {
    recorder: &'p Recorder<'a>,
}

impl Probe<'_, '_> {
    fn filled<T: bytemuck::Pod>(&self, values: &[T]) -> wgpu::Buffer {
        filled(self.recorder.context, "tried", values)
    }

    fn empty(&self, count: usize) -> wgpu::Buffer {
        let usage = Usage::STORAGE | Usage::COPY_SRC;
        buffer(self.recorder.context, "tried", 4 * count as u64, usage)
    }

    /// A tensor that can be read back.
    fn tensor(&self, values: &[f32], features: usize) -> GpuTensor {
        let usage = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let bytes = size_of_val(values) as u64;
        let made = buffer(self.recorder.context, "tried", bytes, usage);
        let queue = &self.recorder.context.queue;
        queue.write_buffer(&made, 0, bytemuck::cast_slice(values));
        GpuTensor::of_its_own(made, values.len() / features, features)
    }

    /// What a buffer holds once `record` is carried out.
    fn run(
        &self,
        read: &wgpu::Buffer,
        count: usize,
        record: impl FnOnce(&mut Sequence),
    ) -> Result<Vec<f32>, Error> {
        self.recorder.submit(record)?;
        Ok(self.recorder.download(read, count)?)
    }

    fn product(&self) -> Result<Case, Error> {
        let outs = 70;
        let (x, w) = (values(1, TOKENS * FEATURES), values(2, outs * FEATURES));
        let bias = values(3, outs);
        let mut expected = Vec::new();
        for x in x.chunks_exact(FEATURES) {
            for (w, bias) in w.chunks_exact(FEATURES).zip(&bias) {
                let terms = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w));
                expected.push(f64::from(*bias) + terms.sum::<f64>());
            }
        }
        let matrix = GpuMatrix {
            pieces: vec![MatrixPiece {
                weights: self.filled(&w),
                features: outs,
            }],
            bias: Some(self.filled(&bias)),
            in_features: FEATURES,
            out_features: outs,
            dtype: Dtype::F32,
            scale: 1.0,
        };
        let (x, y) = (self.tensor(&x, FEATURES), self.empty(TOKENS * outs));
        let to = Destination {
            buffer: &y,
            stride: outs,
            first: 0,
            add: false,
        };
        let record = |sequence: &mut Sequence| {
            layers::product(self.recorder, sequence, &matrix, &x, to);
        };
        let got = self.run(&y, expected.len(), record)?;
        Ok(("matrix product", expected, got))
    }

    fn norm(&self, kind: NormKind) -> Result<Case, Error> {
        let x = values(4, TOKENS * FEATURES);
        let (factors, summands) = (values(5, FEATURES), values(6, FEATURES));
        let is_layer = kind == NormKind::Layer;
        let expected = x.chunks_exact(FEATURES).flat_map(|x| {
            let normed = normalised(x, is_layer);
            let scaled = normed.into_iter().zip(&factors).zip(&summands);
            scaled.map(|((x, &factor), &summand)| {
                x * f64::from(factor) + if is_layer { f64::from(summand) } else { 0.0 }
            })
        });
        let expected: Vec<f64> = expected.collect();
        let norm = GpuNorm {
            kind: match kind {
                NormKind::Rms => GpuNormKind::Rms,
                NormKind::Layer => GpuNormKind::Layer {
                    bias: self.filled(&summands),
                },
            },
            weight: self.filled(&factors),
            features: FEATURES,
            heads: 1,
            epsilon: EPSILON as f32,
        };
        let (x, y) = (self.tensor(&x, FEATURES), self.empty(x.len()));
        let record = |sequence: &mut Sequence| {
            layers::norm(self.recorder, sequence, &norm, &x, &y);
        };
        let got = self.run(&y, expected.len(), record)?;
        let name = if is_layer { "LayerNorm" } else { "RMSNorm" };
        Ok((name, expected, got))
    }

    /// Of heads that lie one after the other in a token's row.
    fn heads_params(&self) -> HeadsParams {
        HeadsParams {
            head_dim: HEAD_FEATURES as u32,
            token_stride: (HEADS * HEAD_FEATURES) as u32,
            head_stride: HEAD_FEATURES as u32,
            epsilon: EPSILON as f32,
            ..HeadsParams::default()
        }
    }

    fn normalise_heads(&self) -> Result<Case, Error> {
        let x = values(7, TOKENS * HEADS * HEAD_FEATURES);
        let factors = values(8, HEAD_FEATURES);
        let of_head = |x: &[f32]| {
            let normed = normalised(x, false).into_iter().zip(&factors);
            normed.map(|(x, &factor)| x * f64::from(factor)).collect()
        };
        let heads = x.chunks_exact(HEAD_FEATURES);
        let expected: Vec<f64> = heads.flat_map(|x| -> Vec<f64> { of_head(x) }).collect();
        let (x, weight) = (self.tensor(&x, HEAD_FEATURES), self.filled(&factors));
        let buffers = [(2, &weight), (3, &self.recorder.nothing), (4, &x.buffer)];
        let params = self.heads_params();
        let record = |sequence: &mut Sequence| {
            let groups = (HEADS, TOKENS);
            let kernel = "normalise_heads";
            self.recorder
                .dispatch(sequence, kernel, &params, &buffers, groups);
        };
        let got = self.run(&x.buffer, expected.len(), record)?;
        Ok(("norm of heads", expected, got))
    }

    fn turn_heads(&self) -> Result<Case, Error> {
        let x = values(9, TOKENS * HEADS * HEAD_FEATURES);
        let pairs = HEAD_FEATURES / 2;
        let turns = values(10, TOKENS * pairs * 2);
        let mut expected: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
        for (token, heads) in expected.chunks_exact_mut(HEADS * HEAD_FEATURES).enumerate() {
            for head in heads.chunks_exact_mut(HEAD_FEATURES) {
                for pair in 0..pairs {
                    let at = 2 * (token * pairs + pair);
                    let (cos, sin) = (f64::from(turns[at]), f64::from(turns[at + 1]));
                    let (a, b) = (head[pair], head[pair + pairs]);
                    head[pair] = a * cos - b * sin;
                    head[pair + pairs] = b * cos + a * sin;
                }
            }
        }
        let (x, turns) = (self.tensor(&x, HEAD_FEATURES), self.filled(&turns));
        let params = HeadsParams {
            pairs: pairs as u32,
            ..self.heads_params()
        };
        let buffers = [(1, &turns), (4, &x.buffer)];
        let record = |sequence: &mut Sequence| {
            let groups = (HEADS, TOKENS);
            self.recorder
                .dispatch(sequence, "turn_heads", &params, &buffers, groups);
        };
        let got = self.run(&x.buffer, expected.len(), record)?;
        Ok(("rotary embedding", expected, got))
    }

    fn copy_heads(&self) -> Result<Case, Error> {
        let x = values(11, TOKENS * HEADS * HEAD_FEATURES);
        // Of each head the last 15 features, one head after the other.
        let count = 15;
        let heads = x.chunks_exact(HEAD_FEATURES);
        let last = heads.flat_map(|head| &head[HEAD_FEATURES - count..]);
        let expected: Vec<f64> = last.map(|&x| f64::from(x)).collect();
        let (x, y) = (self.filled(&x), self.empty(expected.len()));
        let params = CopyHeadsParams {
            features: count as u32,
            from_first: (HEAD_FEATURES - count) as u32,
            from_token_stride: (HEADS * HEAD_FEATURES) as u32,
            from_head_stride: HEAD_FEATURES as u32,
            to_first: 0,
            to_token_stride: (HEADS * count) as u32,
            to_head_stride: count as u32,
        };
        let buffers = [(1, &x), (2, &y)];
        let record = |sequence: &mut Sequence| {
            let groups = (HEADS, TOKENS);
            self.recorder
                .dispatch(sequence, "copy_heads", &params, &buffers, groups);
        };
        let got = self.run(&y, expected.len(), record)?;
        Ok(("copy of heads", expected, got))
    }

    fn attention(&self) -> Result<Case, Error> {
        // Queries, keys and values of a token side by side.
        let (features, part) = (HEAD_FEATURES, HEADS * HEAD_FEATURES);
        let all = values(12, TOKENS * 3 * part);
        let of = |token: usize, which: usize, head: usize| {
            let first = (token * 3 + which) * part + head * features;
            &all[first..first + features]
        };
        let mut expected = Vec::new();
        for query in 0..TOKENS {
            for head in 0..HEADS {
                let score = |key: usize| -> f64 {
                    let pairs = of(query, 0, head).iter().zip(of(key, 1, head));
                    let products = pairs.map(|(&q, &k)| f64::from(q) * f64::from(k));
                    products.sum::<f64>().exp()
                };
                let shares: Vec<f64> = (0..=query).map(score).collect();
                let total: f64 = shares.iter().sum();
                for feature in 0..features {
                    let found = shares
                        .iter()
                        .enumerate()
                        .map(|(key, share)| share / total * f64::from(of(key, 2, head)[feature]));
                    expected.push(found.sum());
                }
            }
        }
        let (heads, found) = (self.filled(&all), self.empty(TOKENS * part));
        let params = |groups: Groups| AttentionParams {
            tokens: TOKENS as u32,
            head_dim: features as u32,
            value_dim: features as u32,
            query_heads: HEADS as u32,
            group_size: 1,
            token_stride: 3 * part as u32,
            query_stride: features as u32,
            key_stride: features as u32,
            value_stride: features as u32,
            first_query: 0,
            first_key: part as u32,
            first_value: 2 * part as u32,
            window: u32::MAX,
            chunk: u32::MAX,
            temperature_period: 1,
            scale: 1.0,
            first_group_x: groups.first[0] as u32,
            first_group_y: groups.first[1] as u32,
            ..AttentionParams::default()
        };
        let nothing = &self.recorder.nothing;
        let buffers = [(1, &heads), (2, &found), (3, nothing), (4, nothing)];
        let record = |sequence: &mut Sequence| {
            let groups = [TOKENS.div_ceil(16), HEADS];
            self.recorder
                .dispatch_in_parts(sequence, "attention", params, &buffers, groups, 1);
        };
        let got = self.run(&found, expected.len(), record)?;
        Ok(("attention", expected, got))
    }

    fn activation(&self, gated: bool) -> Result<Case, Error> {
        let (x, up) = (values(13, TOKENS * FEATURES), values(14, TOKENS * FEATURES));
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let pairs = x.iter().zip(&up);
        let expected: Vec<f64> = pairs
            .map(|(&x, &up)| silu(f64::from(x)) * if gated { f64::from(up) } else { 1.0 })
            .collect();
        let (x, up) = (self.tensor(&x, FEATURES), self.tensor(&up, FEATURES));
        let up = gated.then_some(&up);
        let record = |sequence: &mut Sequence| {
            layers::activate(self.recorder, sequence, Activation::Silu.into(), &x, up);
        };
        let got = self.run(&x.buffer, expected.len(), record)?;
        let name = if gated { "gated SiLU" } else { "SiLU" };
        Ok((name, expected, got))
    }

    fn gather_and_scatter(&self) -> Result<Case, Error> {
        let (x, sum) = (values(15, TOKENS * FEATURES), values(16, TOKENS * FEATURES));
        let share = Share {
            tokens: vec![66, 3, 20],
            weights: vec![1.0, 0.5, 0.25],
        };
        let mut expected: Vec<f64> = sum.iter().map(|&x| f64::from(x)).collect();
        for (&token, &weight) in share.tokens.iter().zip(&share.weights) {
            let row = token as usize * FEATURES..(token as usize + 1) * FEATURES;
            for (sum, &x) in expected[row.clone()].iter_mut().zip(&x[row]) {
                // Gathered by the weight, and scattered by it again.
                *sum += f64::from(weight) * f64::from(weight) * f64::from(x);
            }
        }
        let (x, sum) = (self.tensor(&x, FEATURES), self.tensor(&sum, FEATURES));
        let record = |sequence: &mut Sequence| {
            let some = rows::gather(self.recorder, sequence, &x, &share);
            rows::scatter(self.recorder, sequence, &some, &share, &sum);
        };
        let got = self.run(&sum.buffer, expected.len(), record)?;
        Ok(("gathering and scattering of rows", expected, got))
    }

    fn elementwise(&self, kernel: &'static str) -> Result<Case, Error> {
        let (x, y) = (values(17, TOKENS * FEATURES), values(18, TOKENS * FEATURES));
        let (scale, bound) = match kernel {
            "add_scaled" => (0.5, 0.0),
            _ => (1.0, 0.375),
        };
        let pairs = x
            .iter()
            .zip(&y)
            .map(|(&x, &y)| (f64::from(x), f64::from(y)));
        let expected: Vec<f64> = pairs
            .map(|(x, y)| match kernel {
                "add_scaled" => y + 0.5 * x,
                "clip_all" => y.clamp(-bound, bound),
                _ => bound * (y / bound).tanh(),
            })
            .collect();
        let (x, y) = (self.filled(&x), self.tensor(&y, FEATURES));
        let x = (kernel == "add_scaled").then_some(&x);
        let record = |sequence: &mut Sequence| {
            let to = (&y.buffer, [TOKENS, FEATURES]);
            let by = [scale, bound as f32];
            layers::elementwise(self.recorder, sequence, kernel, by, x, to);
        };
        let got = self.run(&y.buffer, expected.len(), record)?;
        Ok((kernel, expected, got))
    }

    fn site_norms(&self) -> Result<Case, Error> {
        let x = values(19, TOKENS * FEATURES);
        let mut expected = vec![0.0; FEATURES];
        for x in x.chunks_exact(FEATURES) {
            for (sum, &x) in expected.iter_mut().zip(x) {
                *sum += f64::from(x) * f64::from(x);
            }
        }
        let (x, sums) = (self.filled(&x), self.empty(FEATURES));
        let params = SiteNormsParams {
            tokens: TOKENS as u32,
            features: FEATURES as u32,
            first: 0,
            squared: 1,
        };
        let buffers = [(1, &x), (2, &sums)];
        let record = |sequence: &mut Sequence| {
            let groups = (FEATURES.div_ceil(64), 1);
            self.recorder
                .dispatch(sequence, "site_norms", &params, &buffers, groups);
        };
        let got = self.run(&sums, expected.len(), record)?;
        Ok(("column norms", expected, got))
    }

    fn sketch(&self) -> Result<Case, Error> {
        let rank = 37;
        let (x, p) = (values(23, TOKENS * FEATURES), values(24, TOKENS * rank));
        let mut expected = vec![0.0; FEATURES * rank];
        for (x, p) in x.chunks_exact(FEATURES).zip(p.chunks_exact(rank)) {
            for (sums, &x) in expected.chunks_exact_mut(rank).zip(x) {
                for (sum, &p) in sums.iter_mut().zip(p) {
                    *sum += f64::from(x) * f64::from(p);
                }
            }
        }
        let (x, p, sketch) = (self.filled(&x), self.filled(&p), self.empty(expected.len()));
        // Both operands by tokens, as for a sketch.
        let transposed = (Operand::by_terms(&x, FEATURES), [FEATURES, TOKENS]);
        let weights = Weights::of_floats(Operand::by_terms(&p, rank), rank);
        let to = Destination {
            buffer: &sketch,
            stride: rank,
            first: 0,
            add: false,
        };
        let record = |sequence: &mut Sequence| {
            product::product(self.recorder, sequence, transposed, &weights, to);
        };
        let got = self.run(&sketch, expected.len(), record)?;
        Ok(("matrix product by tokens", expected, got))
    }

    fn log_sum_exp(&self) -> Result<Case, Error> {
        let logits = values(20, TOKENS * FEATURES);
        let next: Vec<u32> = (0..TOKENS as u32).map(|token| token * 4).collect();
        let mut expected = Vec::new();
        for (logits, &next) in logits.chunks_exact(FEATURES).zip(&next) {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let shares = logits.iter().map(|&x| f64::from(x - largest).exp());
            let target = logits[next as usize];
            expected.extend([f64::from(largest), shares.sum(), f64::from(target)]);
        }
        let (logits, next) = (self.filled(&logits), self.filled(&next));
        let sums = self.empty(expected.len());
        let params = LogSumExpParams {
            rows: FEATURES as u32,
            first: 0,
        };
        let buffers = [(1, &logits), (2, &next), (3, &sums)];
        let record = |sequence: &mut Sequence| {
            self.recorder
                .dispatch(sequence, "log_sum_exp", &params, &buffers, (TOKENS, 1));
        };
        let got = self.run(&sums, expected.len(), record)?;
        Ok(("log-sum-exp", expected, got))
    }
}

const EPSILON: f64 = 1e-5;

/// Values divided by the root of their mean square; less their mean first, if they are centred.
fn normalised(x: &[f32], is_centred: bool) -> Vec<f64> {
    let count = x.len() as f64;
    let mean = match is_centred {
        true => x.iter().map(|&x| f64::from(x)).sum::<f64>() / count,
        false => 0.0,
    };
    let centred: Vec<f64> = x.iter().map(|&x| f64::from(x) - mean).collect();
    let square = centred.iter().map(|x| x * x).sum::<f64>() / count;
    centred
        .iter()
        .map(|x| x / (square + EPSILON).sqrt())
        .collect()
}

#[cfg(test)]
mod tests;
