//! The forward pass on the CPU, in f32, by candle.

use candle_core::{CpuStorage, D, Device, InplaceOp1, InplaceOp2, Layout, Tensor};
use candle_nn::{ops, rotary_emb};
use rayon::prelude::*;

use super::weights::{BlockWeights, Weights};
use super::{Engine, Error, Partial, SiteNorms};
use super::{capture, exp};
use crate::model::{
    Activation, Architecture, Block, Linear, Mlp, NormKind, NormTensors, Projections,
};

/// Bytes that the attention scores of a chunk of queries may take.
const SCORES_BYTES: usize = 32 << 20;

/// Bytes that the activations of all sequences in flight may take.
const IN_FLIGHT_BYTES: usize = 192 << 20;

/// candle on this machine's cores.
pub(super) struct Cpu<'a> {
    architecture: &'a Architecture,
    pool: rayon::ThreadPool,
    /// Cosines and sines, `[context, rotary dims / 2]`.
    turns: (Tensor, Tensor),
}

/// One block's tensors as f32.
type CpuBlock = BlockWeights<Matrix, Norm>;

/// A linear layer: `x W^T + b`.
pub(super) struct Matrix {
    weight: Tensor,
    bias: Option<Tensor>,
}

/// A norm's factors and summands.
pub(super) struct Norm {
    weight: Tensor,
    bias: Option<Tensor>,
    kind: NormKind,
    epsilon: f32,
}

impl<'a> Cpu<'a> {
    /// Cores for sequences of at most `context` tokens.
    pub(super) fn new(
        architecture: &'a Architecture,
        context: usize,
        threads: usize,
    ) -> Result<Self, Error> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| Error::Engine(error.to_string()))?;
        let frequencies = &architecture.rotary.frequencies;
        let angles = || (0..context).flat_map(|t| frequencies.iter().map(move |f| t as f64 * f));
        let table = |of: fn(f64) -> f64| {
            let values: Vec<f32> = angles().map(|angle| of(angle) as f32).collect();
            Tensor::from_vec(values, (context, frequencies.len()), &Device::Cpu)
        };
        Ok(Self {
            architecture,
            pool,
            turns: (table(f64::cos)?, table(f64::sin)?),
        })
    }

    /// Rows of the head, `[hidden_size, rows]`.
    fn head_rows(&self, rows: &[f32]) -> candle_core::Result<Tensor> {
        let features = self.architecture.hidden_size;
        Tensor::from_slice(rows, (rows.len() / features, features), &Device::Cpu)?.t()
    }

    fn norm(&self, weights: &Weights<'_>, norm: &NormTensors) -> Result<Norm, Error> {
        let read = |name: &String| -> Result<Tensor, Error> {
            Ok(Tensor::from_vec(
                weights.read(name)?,
                norm.len,
                &Device::Cpu,
            )?)
        };
        Ok(Norm {
            weight: read(&norm.weight)?,
            bias: norm.bias.as_ref().map(read).transpose()?,
            // The norm of a head has no bias in any architecture, and is by the root mean square.
            kind: if norm.bias.is_some() {
                self.architecture.norm
            } else {
                NormKind::Rms
            },
            epsilon: self.architecture.epsilon as f32,
        })
    }

    /// Queries, keys and values, each `[heads, tokens, head_dim]`.
    fn queries_keys_values(
        &self,
        block: &CpuBlock,
        x: &Tensor,
    ) -> candle_core::Result<[Tensor; 3]> {
        let Architecture {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self.architecture;
        let tokens = x.dim(0)?;
        let by_head = |x: &Tensor, heads| {
            x.reshape((tokens, heads, head_dim))?
                .transpose(0, 1)?
                .contiguous()
        };
        let [q, k, v] = match self.architecture.projections {
            Projections::Separate => {
                let [q, k, v] = [0, 1, 2].map(|i| block.projections[i].apply(x));
                [
                    by_head(&q?, heads)?,
                    by_head(&k?, kv_heads)?,
                    by_head(&v?, kv_heads)?,
                ]
            }
            Projections::Interleaved => {
                let all = block.projections[0]
                    .apply(x)?
                    .reshape((tokens, heads, 3 * head_dim))?;
                let part = |i| {
                    all.narrow(2, i * head_dim, head_dim)?
                        .transpose(0, 1)?
                        .contiguous()
                };
                [part(0)?, part(1)?, part(2)?]
            }
        };
        let (q, k) = match &block.head_norms {
            Some([of_q, of_k]) => (of_q.apply(&q)?, of_k.apply(&k)?),
            None => (q, k),
        };
        Ok([self.turn(&q)?, self.turn(&k)?, v])
    }

    /// Turns the first features of every head by their position.
    fn turn(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let (cos, sin) = &self.turns;
        let dims = self.architecture.rotary.dims();
        let head_dim = x.dim(D::Minus1)?;
        let turned = x.narrow(D::Minus1, 0, dims)?.contiguous()?.unsqueeze(0)?;
        let turned = rotary_emb::rope(&turned, cos, sin)?.squeeze(0)?;
        if dims == head_dim {
            return Ok(turned);
        }
        let rest = x.narrow(D::Minus1, dims, head_dim - dims)?;
        Tensor::cat(&[&turned, &rest], D::Minus1)?.contiguous()
    }

    /// Causal attention, `[tokens, heads * head_dim]`; a chunk of queries at a time against the keys up to its end.
    fn attention(&self, block: &CpuBlock, [q, k, v]: [Tensor; 3]) -> candle_core::Result<Tensor> {
        let Architecture {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *self.architecture;
        let tokens = q.dim(1)?;
        let group = heads / kv_heads;
        let q = q.reshape((kv_heads, group, tokens, head_dim))?;
        let chunk = (SCORES_BYTES / (4 * heads * tokens)).clamp(1, 128);
        let mut chunks = Vec::new();
        for first in (0..tokens).step_by(chunk) {
            let rows = chunk.min(tokens - first);
            let start = block
                .window
                .map_or(0, |window| (first + 1).saturating_sub(window));
            let keys = first + rows - start;
            let q = q.narrow(2, first, rows)?.contiguous()?.reshape((
                kv_heads,
                group * rows,
                head_dim,
            ))?;
            let scores = q.matmul(&k.narrow(1, start, keys)?.t()?)?;
            scores.inplace_op1(&CausalSoftmax {
                scale: (head_dim as f32).powf(-0.5),
                rows,
                first: first - start,
                window: block.window.unwrap_or(usize::MAX),
            })?;
            let found = scores.matmul(&v.narrow(1, start, keys)?)?;
            chunks.push(found.reshape((heads, rows, head_dim))?);
        }
        let found = match chunks.len() {
            1 => chunks.swap_remove(0),
            _ => Tensor::cat(&chunks, 1)?,
        };
        found
            .transpose(0, 1)?
            .contiguous()?
            .reshape((tokens, heads * head_dim))
    }

    fn mlp(&self, block: &CpuBlock, x: &Tensor) -> candle_core::Result<Tensor> {
        let activate = |x: &Tensor| match self.architecture.activation {
            Activation::Silu => ops::silu(x),
            Activation::Gelu => x.gelu_erf(),
            Activation::GeluTanh => x.gelu(),
        };
        let first = block.up[0].apply(x)?;
        match (self.architecture.mlp, self.architecture.activation) {
            (Mlp::Gated, Activation::Silu) => {
                first.inplace_op2(&block.up[1].apply(x)?, &SiluGate)?;
                Ok(first)
            }
            (Mlp::Gated, _) => activate(&first)? * block.up[1].apply(x)?,
            (Mlp::Plain, _) => activate(&first),
        }
    }
}

impl Engine for Cpu<'_> {
    type Block = CpuBlock;
    type Hidden = Tensor;
    type Head = Norm;

    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<Tensor, Error> {
        let shape = (tokens, self.architecture.hidden_size);
        Ok(Tensor::from_vec(rows, shape, &Device::Cpu)?)
    }

    fn load(&self, weights: &Weights<'_>, block: &Block) -> Result<CpuBlock, Error> {
        self.pool.install(|| {
            let norm = |norm: &NormTensors| self.norm(weights, norm);
            BlockWeights::load(block, |linear| matrix(weights, linear), norm)
        })
    }

    fn in_flight(&self, context: usize) -> usize {
        let Architecture {
            hidden_size,
            intermediate_size,
            heads,
            head_dim,
            ..
        } = *self.architecture;
        // What is alive at the widest places of a block, roughly.
        let activations =
            4 * context * (3 * hidden_size + 3 * heads * head_dim + 2 * intermediate_size);
        (IN_FLIGHT_BYTES / (activations + SCORES_BYTES)).clamp(1, self.pool.current_num_threads())
    }

    fn run(&self, block: &CpuBlock, hidden: &mut [Tensor]) -> Result<Vec<SiteNorms>, Error> {
        let one = |x: &mut Tensor| -> Result<SiteNorms, Error> {
            let a = block.attention_norm.apply(x)?;
            let found = self.attention(block, self.queries_keys_values(block, &a)?)?;
            let h = (&*x + block.output.apply(&found)?)?;
            let m = block
                .mlp_norm
                .apply(if self.architecture.parallel { x } else { &h })?;
            let u = self.mlp(block, &m)?;
            *x = (h + block.down.apply(&u)?)?;
            let [a, found, m, u] = [a, found, m, u].map(|input| column_norms(&input));
            Ok([a?, found?, m?, u?])
        };
        // A core a sequence: products that share cores wait for each other.
        self.pool
            .install(|| hidden.par_iter_mut().map(one).collect())
    }

    fn load_head(&self, weights: &Weights<'_>, norm: &NormTensors) -> Result<Norm, Error> {
        self.norm(weights, norm)
    }

    fn finish(&self, norm: &Norm, x: &Tensor) -> Result<Tensor, Error> {
        Ok(self.pool.install(|| norm.apply(x))?)
    }

    fn partials(
        &self,
        head_rows: &[f32],
        first_row: usize,
        hidden: &[Tensor],
        next: &[&[u32]],
    ) -> Result<Vec<Vec<Partial>>, Error> {
        let rows = self.head_rows(head_rows)?;
        let count = rows.dim(1)?;
        let of_sequence = |(hidden, next): (&Tensor, &&[u32])| {
            let mut partials = Vec::with_capacity(next.len());
            with_slice(&hidden.matmul(&rows)?, |logits| {
                for (logits, &next) in logits.chunks_exact(count).zip(*next) {
                    let (largest, sum) = exp::log_sum_exp(logits);
                    let target = (next as usize).checked_sub(first_row);
                    partials.push(Partial {
                        largest,
                        sum,
                        target: target.and_then(|row| logits.get(row)).map_or(0.0, |&l| l),
                    });
                }
            })?;
            Ok(partials)
        };
        self.pool
            .install(|| hidden.par_iter().zip(next).map(of_sequence).collect())
    }

    fn logits(&self, head_rows: &[f32], hidden: &Tensor) -> Result<Vec<f32>, Error> {
        let mut all = Vec::new();
        with_slice(&hidden.matmul(&self.head_rows(head_rows)?)?, |logits| {
            all = logits.to_vec()
        })?;
        Ok(all)
    }
}

fn matrix(weights: &Weights<'_>, linear: &Linear) -> Result<Matrix, Error> {
    let shape = (linear.out_features, linear.in_features);
    let bias = match &linear.bias {
        Some(name) => Some(Tensor::from_vec(
            weights.read(name)?,
            linear.out_features,
            &Device::Cpu,
        )?),
        None => None,
    };
    Ok(Matrix {
        weight: Tensor::from_vec(weights.read(&linear.weight)?, shape, &Device::Cpu)?,
        bias,
    })
}

impl Matrix {
    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

impl Norm {
    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match (self.kind, &self.bias) {
            (NormKind::Layer, Some(bias)) => ops::layer_norm(x, &self.weight, bias, self.epsilon),
            _ => ops::rms_norm(x, &self.weight, self.epsilon),
        }
    }
}

/// The column norms of a contiguous `[tokens, features]`.
fn column_norms(x: &Tensor) -> Result<Vec<f32>, Error> {
    let features = x.dim(1)?;
    let mut norms = Vec::new();
    with_slice(x, |x| norms = capture::column_norms(x, features))?;
    Ok(norms)
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
    with(&storage.as_slice::<f32>()?[first..end]);
    Ok(())
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

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> candle_core::Result<()> {
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

/// `silu(gate) * up`, in the place of the gate.
struct SiluGate;

impl InplaceOp2 for SiluGate {
    fn name(&self) -> &'static str {
        "silu-gate"
    }

    fn cpu_fwd(
        &self,
        gate: &mut CpuStorage,
        _: &Layout,
        up: &CpuStorage,
        _: &Layout,
    ) -> candle_core::Result<()> {
        // Both are fresh results of a matrix product: contiguous, from their first value on.
        let (CpuStorage::F32(gate), CpuStorage::F32(up)) = (gate, up) else {
            candle_core::bail!("activations are f32");
        };
        let gates = gate.par_chunks_mut(1 << 14);
        gates
            .zip(up.par_chunks(1 << 14))
            .for_each(|(gate, up)| exp::silu_gate(gate, up));
        Ok(())
    }
}
