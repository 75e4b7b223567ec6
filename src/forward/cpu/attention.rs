//! Heads and causal attention on the CPU.

use candle_core::{CpuStorage, D, Device, InplaceOp1, Layout, Result, Tensor};
use candle_nn::rotary_emb;
use half::bf16;
use rayon::prelude::*;

use super::exp;
use super::weights::{CpuMatrix, CpuNorm};
use crate::model::{
    Alibi, HeadCounts, HeadNorms, LatentWidths, NormedWidth, Pairing, Projections,
    QueryTemperature, Reach, Rotary, SelfAttention,
};

/// Bytes that the attention scores of a chunk of queries may take.
pub(super) const SCORES_BYTES: usize = 32 << 20;

/// Cosines and sines of the angles by which heads turn, `[context, pairs]` each.
pub(super) struct TurnTable {
    pairing: Pairing,
    /// For sequences of at most so many tokens, and for those that are longer.
    tables: Vec<(usize, [Tensor; 2])>,
}

impl TurnTable {
    pub(super) fn new(rotary: &Rotary, context: usize) -> Result<Self> {
        let tables = rotary.by_length(context).map(|(tokens, frequencies)| {
            let turns = Rotary::turns(frequencies, rotary.amplitude, tokens.min(context));
            let table = |i: usize| {
                let values: Vec<f32> = turns.iter().map(|turn| turn[i]).collect();
                let pairs = frequencies.len();
                Tensor::from_vec(values, (turns.len() / pairs, pairs), &Device::Cpu)
            };
            Ok((tokens, [table(0)?, table(1)?]))
        });
        Ok(Self {
            pairing: rotary.pairing,
            tables: tables.collect::<Result<_>>()?,
        })
    }

    /// Turns the first features of every head, `[heads, tokens, features]`, by their position.
    fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let (_, tokens, features) = x.dims3()?;
        let fits = |(longest, _): &&(usize, _)| tokens <= *longest;
        let Some((_, [cos, sin])) = self.tables.iter().find(fits) else {
            candle_core::bail!("a sequence of {tokens} tokens is longer than was announced");
        };
        let dims = 2 * cos.dim(1)?;
        let turned = x.narrow(D::Minus1, 0, dims)?.contiguous()?.unsqueeze(0)?;
        let turned = match self.pairing {
            Pairing::Halves => rotary_emb::rope(&turned, cos, sin)?,
            Pairing::Interleaved => rotary_emb::rope_i(&turned, cos, sin)?,
        };
        let turned = turned.squeeze(0)?;
        if dims == features {
            return Ok(turned);
        }
        let rest = x.narrow(D::Minus1, dims, features - dims)?;
        Tensor::cat(&[&turned, &rest], D::Minus1)?.contiguous()
    }
}

/// Queries, keys and values of one sequence, each `[heads, tokens, features]`.
pub(crate) struct CpuHeads {
    counts: HeadCounts,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
}

impl CpuHeads {
    /// The heads of a hidden state.
    pub(super) fn of(
        counts: HeadCounts,
        projections: &Projections<CpuMatrix, CpuNorm>,
        x: &Tensor,
    ) -> Result<Self> {
        let tokens = x.dim(0)?;
        let by_head = |x: Tensor, heads| {
            x.reshape((tokens, heads, counts.features))?
                .transpose(0, 1)?
                .contiguous()
        };
        let [queries, keys, values] = match projections {
            Projections::Separate([q, k, v]) => {
                let (q, k, v) = (q.apply(x)?, k.apply(x)?, v.apply(x)?);
                [
                    by_head(q, counts.queries)?,
                    by_head(k, counts.keys)?,
                    by_head(v, counts.keys)?,
                ]
            }
            Projections::Interleaved(all) => {
                let shape = (tokens, counts.queries, 3 * counts.features);
                let all = all.apply(x)?.reshape(shape)?;
                let part = |i| {
                    all.narrow(2, i * counts.features, counts.features)?
                        .transpose(0, 1)?
                        .contiguous()
                };
                [part(0)?, part(1)?, part(2)?]
            }
            Projections::Latent(_) => candle_core::bail!("latent projections have parts"),
            Projections::Grouped(layers) => {
                let part = |i, heads| {
                    let groups = layers.iter().skip(i).step_by(3);
                    let groups = groups.map(|layer| layer.apply(x));
                    let all = Tensor::cat(&groups.collect::<Result<Vec<_>>>()?, 1)?;
                    by_head(all, heads)
                };
                [
                    part(0, counts.queries)?,
                    part(1, counts.keys)?,
                    part(2, counts.keys)?,
                ]
            }
        };
        Ok(Self {
            counts,
            queries,
            keys,
            values,
        })
    }

    /// The heads out of what latent projections made: of each, now first what turns.
    pub(super) fn of_latents(
        widths: LatentWidths,
        queries: &Tensor,
        rotated_key: &Tensor,
        keys_and_values: &Tensor,
    ) -> Result<Self> {
        let LatentWidths {
            heads,
            rotated,
            plain,
            value,
        } = widths;
        let tokens = queries.dim(0)?;
        let by_head = |x: &Tensor, features| x.reshape((tokens, heads, features))?.transpose(0, 1);
        let turning_first = |turning: &Tensor, rest: &Tensor| {
            Tensor::cat(&[turning, rest], D::Minus1)?.contiguous()
        };
        let q = by_head(queries, plain + rotated)?;
        let kv = by_head(keys_and_values, plain + value)?;
        let shared = rotated_key
            .unsqueeze(0)?
            .broadcast_as((heads, tokens, rotated))?;
        let counts = HeadCounts {
            queries: heads,
            keys: heads,
            features: rotated + plain,
        };
        Ok(Self {
            counts,
            queries: turning_first(
                &q.narrow(D::Minus1, plain, rotated)?,
                &q.narrow(D::Minus1, 0, plain)?,
            )?,
            keys: turning_first(&shared, &kv.narrow(D::Minus1, 0, plain)?)?,
            values: kv.narrow(D::Minus1, plain, value)?.contiguous()?,
        })
    }

    /// Brings every feature within `-clip ..= clip`.
    pub(super) fn clip(&mut self, clip: f32) -> Result<()> {
        for x in [&mut self.queries, &mut self.keys, &mut self.values] {
            *x = x.clamp(-clip, clip)?;
        }
        Ok(())
    }

    /// Normalises the queries and the keys.
    pub(super) fn normalise(&mut self, norms: &HeadNorms<CpuNorm>) -> Result<()> {
        let [of_queries, of_keys] = &norms.norms;
        for (norm, x) in [(of_queries, &mut self.queries), (of_keys, &mut self.keys)] {
            *x = match norms.width {
                NormedWidth::Head => norm.apply(x)?,
                NormedWidth::AllHeads => {
                    let (heads, tokens, features) = x.dims3()?;
                    let rows = x.transpose(0, 1)?.contiguous()?;
                    let rows = norm.apply(&rows.reshape((tokens, heads * features))?)?;
                    let by_head = rows.reshape((tokens, heads, features))?;
                    by_head.transpose(0, 1)?.contiguous()?
                }
            };
        }
        Ok(())
    }

    /// Turns queries and keys by their position.
    pub(super) fn turn(&mut self, table: &TurnTable) -> Result<()> {
        self.queries = table.turn(&self.queries)?;
        self.keys = table.turn(&self.keys)?;
        Ok(())
    }

    /// Causal attention, `[tokens, query heads * features of a value]`; a chunk of queries at a time against the keys up to
    /// its end. `alibi` is for heads that know their place by it.
    pub(super) fn attend<L, N>(
        self,
        attention: &SelfAttention<L, N, Vec<f32>>,
        alibi: Option<&Alibi>,
    ) -> Result<Tensor> {
        let &SelfAttention {
            scale, soft_cap, ..
        } = attention;
        let Self {
            counts,
            queries,
            keys: k,
            values: v,
        } = self;
        let (heads, features) = (counts.queries, counts.features);
        let tokens = queries.dim(1)?;
        let value_features = v.dim(2)?;
        let group = heads / counts.keys;
        let queries = queries.reshape((counts.keys, group, tokens, features))?;
        let chunk = (SCORES_BYTES / (4 * heads * tokens)).clamp(1, 128);
        let mut chunks = Vec::new();
        for first in (0..tokens).step_by(chunk) {
            let rows = chunk.min(tokens - first);
            let start = attention.reach().first_seen(first);
            let keys = first + rows - start;
            let q = queries.narrow(2, first, rows)?.contiguous()?.reshape((
                counts.keys,
                group * rows,
                features,
            ))?;
            let scores = q.matmul(&k.narrow(1, start, keys)?.t()?)?;
            scores.inplace_op1(&CausalSoftmax {
                scale,
                soft_cap,
                rows,
                first: first - start,
                start,
                reach: attention.reach(),
                temperature: attention.temperature,
                sinks: attention.sinks.as_deref(),
                alibi,
            })?;
            let found = scores.matmul(&v.narrow(1, start, keys)?)?;
            chunks.push(found.reshape((heads, rows, value_features))?);
        }
        let found = match chunks.len() {
            1 => chunks.swap_remove(0),
            _ => Tensor::cat(&chunks, 1)?,
        };
        found
            .transpose(0, 1)?
            .contiguous()?
            .reshape((tokens, heads * value_features))
    }
}

/// Softmax over the keys a query may see, in place; the others become 0.
///
/// Rows are queries, `rows` of each head one behind the other; query `r` is key number `first + r`, and the first key is
/// token number `start`.
struct CausalSoftmax<'a> {
    scale: f32,
    soft_cap: Option<f32>,
    rows: usize,
    first: usize,
    start: usize,
    reach: Reach,
    temperature: Option<QueryTemperature>,
    /// Of each head, the score of a key without a value.
    sinks: Option<&'a [f32]>,
    alibi: Option<&'a Alibi>,
}

impl CausalSoftmax<'_> {
    /// Scales the scores of one query of a head, the last of which is with token `query`, and adds their biases.
    fn add_biases(&self, alibi: &Alibi, head: usize, query: usize, scores: &mut [f32]) {
        let slope = alibi.slopes[head];
        let first = query + 1 - scores.len();
        let rounded = |x: f32| bf16::from_f32(x).to_f32();
        let far = |token: usize| rounded(rounded(slope) * rounded(token as f32));
        for (key, score) in (first..).zip(scores) {
            let bias = match alibi.in_bf16 {
                true => far(key) - far(query),
                false => -slope * (query - key) as f32,
            };
            *score = *score * self.scale + bias * alibi.factor;
        }
    }
}

impl InplaceOp1 for CausalSoftmax<'_> {
    fn name(&self) -> &'static str {
        "causal-softmax"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let keys = layout.dims().last().copied().unwrap_or(1);
        let CpuStorage::F32(scores) = storage else {
            candle_core::bail!("attention scores are f32");
        };
        scores
            .par_chunks_mut(keys)
            .enumerate()
            .for_each(|(row, scores)| {
                let end = self.first + row % self.rows + 1;
                let query = self.start + end - 1;
                let start = self.reach.first_seen(query) - self.start;
                let factor = self.temperature.map_or(1.0, |of| of.factor(query));
                let scale = self.scale * factor;
                scores[..start].fill(0.0);
                scores[end..].fill(0.0);
                let seen = &mut scores[start..end];
                let (largest, sum) = match (self.alibi, self.soft_cap) {
                    (Some(alibi), _) => {
                        self.add_biases(alibi, row / self.rows, query, seen);
                        exp::softmax(seen, 1.0)
                    }
                    (None, Some(cap)) => {
                        exp::soft_cap(seen, scale, cap);
                        exp::softmax(seen, 1.0)
                    }
                    (None, None) => exp::softmax(seen, scale),
                };
                if let Some(sinks) = self.sinks {
                    // Its share goes nowhere.
                    let sink = f64::from(sinks[row / self.rows] - largest).exp();
                    let sum = f64::from(sum);
                    let rest = (sum / (sum + sink)) as f32;
                    seen.iter_mut().for_each(|share| *share *= rest);
                }
            });
        Ok(())
    }
}
