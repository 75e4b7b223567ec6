//! Heads and causal attention on the CPU.

use candle_core::{CpuStorage, D, Device, InplaceOp1, Layout, Result, Tensor};
use candle_nn::rotary_emb;
use rayon::prelude::*;

use super::exp;
use super::weights::{CpuMatrix, CpuNorm};
use crate::model::{HeadCounts, LatentWidths, Projections, Rotary};

/// Bytes that the attention scores of a chunk of queries may take.
pub(super) const SCORES_BYTES: usize = 32 << 20;

/// Cosines and sines of the angles by which heads turn, `[context, pairs]` each.
pub(super) struct TurnTable {
    cos: Tensor,
    sin: Tensor,
}

impl TurnTable {
    pub(super) fn new(rotary: &Rotary, context: usize) -> Result<Self> {
        let frequencies = &rotary.frequencies;
        let angles = || (0..context).flat_map(|t| frequencies.iter().map(move |f| t as f64 * f));
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles().map(|angle| of(angle) as f32).collect();
            Tensor::from_vec(values, (context, frequencies.len()), &Device::Cpu)
        };
        Ok(Self {
            cos: table(f64::cos)?,
            sin: table(f64::sin)?,
        })
    }

    /// Turns the first features of every head, `[heads, tokens, features]`, by their position.
    fn turn(&self, x: &Tensor) -> Result<Tensor> {
        let dims = 2 * self.cos.dim(1)?;
        let features = x.dim(D::Minus1)?;
        let turned = x.narrow(D::Minus1, 0, dims)?.contiguous()?.unsqueeze(0)?;
        let turned = rotary_emb::rope(&turned, &self.cos, &self.sin)?.squeeze(0)?;
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
        let [queries, keys, values] = match projections {
            Projections::Separate([q, k, v]) => {
                let by_head = |x: Tensor, heads| {
                    x.reshape((tokens, heads, counts.features))?
                        .transpose(0, 1)?
                        .contiguous()
                };
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

    /// Normalises each head of the queries and of the keys.
    pub(super) fn normalise(&mut self, [of_queries, of_keys]: &[CpuNorm; 2]) -> Result<()> {
        self.queries = of_queries.apply(&self.queries)?;
        self.keys = of_keys.apply(&self.keys)?;
        Ok(())
    }

    /// Turns queries and keys by their position.
    pub(super) fn turn(&mut self, table: &TurnTable) -> Result<()> {
        self.queries = table.turn(&self.queries)?;
        self.keys = table.turn(&self.keys)?;
        Ok(())
    }

    /// Causal attention, `[tokens, query heads * features of a value]`; a chunk of queries at a time against the keys up to its end.
    pub(super) fn attend(self, scale: f32, window: Option<usize>) -> Result<Tensor> {
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
            let start = window.map_or(0, |window| (first + 1).saturating_sub(window));
            let keys = first + rows - start;
            let q = queries.narrow(2, first, rows)?.contiguous()?.reshape((
                counts.keys,
                group * rows,
                features,
            ))?;
            let scores = q.matmul(&k.narrow(1, start, keys)?.t()?)?;
            scores.inplace_op1(&CausalSoftmax {
                scale,
                rows,
                first: first - start,
                window: window.unwrap_or(usize::MAX),
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
/// Rows are queries, `rows` of each head one behind the other; query `r` is key number `first + r`.
struct CausalSoftmax {
    scale: f32,
    rows: usize,
    first: usize,
    window: usize,
}

impl InplaceOp1 for CausalSoftmax {
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
                let start = end.saturating_sub(self.window);
                scores[..start].fill(0.0);
                scores[end..].fill(0.0);
                exp::softmax(&mut scores[start..end], self.scale);
            });
        Ok(())
    }
}
