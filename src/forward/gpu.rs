//! The forward pass on an adapter, in f32, by the kernels of `shaders/forward`.
//!
//! Weights go to the device as they are stored. A sequence is a submission of its own, so that none is so long that a
//! driver's watchdog takes the device for hung; what waits for the device is only the column norms of a few sequences.

use std::cell::RefCell;
use std::collections::HashMap;

use wgpu::BufferUsages as Usage;

use super::kernels::{self, KERNELS};
use super::weights::{BlockWeights, Weights};
use super::{Engine, Error, Partial, SiteNorms};
use crate::device::adapter::context::{Context, Pipelines};
use crate::dtype::Dtype;
use crate::model::{
    self, Architecture, Block, Linear, Mlp, NormKind, NormTensors, Projections, Site,
};

/// Sequences submitted before their column norms are waited for.
const IN_FLIGHT: usize = 8;

/// Bytes of a matrix that go through the host's memory at a time.
const UPLOAD_BYTES: usize = 32 << 20;

/// The longest head `attention.wgsl` has room for.
const MAX_HEAD_DIM: usize = 256;

/// An adapter with compiled kernels and the activations of one sequence.
pub(super) struct Gpu<'a> {
    architecture: &'a Architecture,
    context: &'a Context,
    pipelines: Pipelines,
    /// Cosines and sines, `[context, rotary dims / 2, 2]`.
    turns: wgpu::Buffer,
    activations: Activations,
    /// Column norms of the sequences in flight: per sequence, per site.
    norms: wgpu::Buffer,
    /// Where a kernel has a binding that it does not use this time.
    nothing: wgpu::Buffer,
    /// Uniform blocks by their bytes; the same few serve every block of the model.
    blocks: RefCell<HashMap<Vec<u8>, wgpu::Buffer>>,
}

/// The activations of one sequence, `[tokens, features]` each.
struct Activations {
    /// What attention reads.
    attention: wgpu::Buffer,
    /// Queries, keys and values, side by side.
    heads: wgpu::Buffer,
    /// What the heads found.
    found: wgpu::Buffer,
    /// What the MLP reads.
    mlp: wgpu::Buffer,
    gate: wgpu::Buffer,
    up: wgpu::Buffer,
}

/// One block's weights, as they are stored; norms and biases as f32.
type GpuBlock = BlockWeights<Matrix, Norm>;

/// A linear layer, in pieces that can be bound.
pub(super) struct Matrix {
    pieces: Vec<Piece>,
    bias: Option<wgpu::Buffer>,
    in_features: usize,
    out_features: usize,
    dtype: Dtype,
}

struct Piece {
    weights: wgpu::Buffer,
    rows: usize,
}

/// A norm's factors and summands.
pub(super) struct Norm {
    weight: wgpu::Buffer,
    bias: Option<wgpu::Buffer>,
    features: usize,
    kind: NormKind,
}

/// The hidden state of a sequence, `[tokens, hidden_size]`.
pub(super) struct GpuHidden {
    buffer: wgpu::Buffer,
    tokens: usize,
}

/// Where a product goes: the features of each token's row from `first` on.
struct Destination<'b> {
    buffer: &'b wgpu::Buffer,
    /// Features a row.
    stride: usize,
    first: usize,
    /// Add to what is there, the residual.
    add: bool,
}

impl<'b> Destination<'b> {
    /// Rows of their own.
    fn rows(buffer: &'b wgpu::Buffer, stride: usize) -> Self {
        Self {
            buffer,
            stride,
            first: 0,
            add: false,
        }
    }

    /// Added to the hidden state.
    fn residual(buffer: &'b wgpu::Buffer, stride: usize) -> Self {
        Self {
            add: true,
            ..Self::rows(buffer, stride)
        }
    }
}

/// Kernels on their way to the device.
struct Recording<'g> {
    gpu: &'g Gpu<'g>,
    pass: wgpu::ComputePass<'static>,
}

impl<'a> Gpu<'a> {
    /// An adapter for sequences of at most `tokens` tokens.
    pub(super) fn new(
        architecture: &'a Architecture,
        tokens: usize,
        context: &'a Context,
    ) -> Result<Self, Error> {
        let Architecture {
            hidden_size,
            intermediate_size,
            heads,
            kv_heads,
            head_dim,
            ..
        } = *architecture;
        let unfit = |reason: String| {
            Error::Engine(format!("{reason} (on {}; --device cpu can)", context.info))
        };
        if head_dim > MAX_HEAD_DIM {
            return Err(unfit(format!(
                "heads of {head_dim} features do not fit attention's kernel, which has room for {MAX_HEAD_DIM}"
            )));
        }
        let most = context.limits.max_compute_workgroups_per_dimension as usize;
        let widest = [
            hidden_size,
            (heads + 2 * kv_heads) * head_dim,
            intermediate_size,
        ];
        let widest = widest.into_iter().max().unwrap_or(0);
        let bytes = 4 * tokens as u64 * widest as u64;
        if tokens > most || bytes > context.largest_buffer() {
            return Err(unfit(format!(
                "sequences of {tokens} tokens are too long: their activations take {bytes} bytes; give a shorter --context"
            )));
        }

        let frequencies = &architecture.rotary.frequencies;
        let turns: Vec<[f32; 2]> = (0..tokens)
            .flat_map(|t| frequencies.iter().map(move |f| t as f64 * f))
            .map(|angle| [angle.cos() as f32, angle.sin() as f32])
            .collect();
        let floats = |label, features: usize, usage| {
            buffer(context, label, 4 * (tokens * features) as u64, usage)
        };
        let activations = |label, features| floats(label, features, Usage::STORAGE);
        let sites = hidden_size + heads * head_dim + hidden_size + intermediate_size;
        let gpu = Self {
            architecture,
            context,
            pipelines: KERNELS
                .iter()
                .flat_map(|kernel| context.compile(&kernel.shader))
                .collect(),
            turns: filled(context, "turns", &turns),
            activations: Activations {
                attention: activations("attention", hidden_size),
                heads: activations("heads", (heads + 2 * kv_heads) * head_dim),
                found: activations("found", heads * head_dim),
                mlp: activations("mlp", hidden_size),
                gate: activations("gate", intermediate_size),
                up: activations("up", intermediate_size),
            },
            norms: buffer(
                context,
                "norms",
                (4 * IN_FLIGHT * sites) as u64,
                Usage::STORAGE | Usage::COPY_SRC,
            ),
            nothing: buffer(context, "nothing", 4, Usage::STORAGE),
            blocks: RefCell::default(),
        };
        context.check()?;
        Ok(gpu)
    }

    /// Features at each site, in [`Site::ALL`]'s order.
    fn site_features(&self) -> [usize; Site::ALL.len()] {
        let Architecture {
            hidden_size,
            intermediate_size,
            heads,
            head_dim,
            ..
        } = *self.architecture;
        Site::ALL.map(|site| match site {
            Site::Attention | Site::Mlp => hidden_size,
            Site::Output => heads * head_dim,
            Site::Down => intermediate_size,
        })
    }

    /// A uniform block of these bytes.
    fn uniform<B: bytemuck::Pod>(&self, block: &B) -> wgpu::Buffer {
        let bytes = bytemuck::bytes_of(block);
        let mut blocks = self.blocks.borrow_mut();
        if let Some(found) = blocks.get(bytes) {
            return found.clone();
        }
        let size = bytes.len().next_multiple_of(16) as u64;
        let made = buffer(
            self.context,
            "params",
            size,
            Usage::UNIFORM | Usage::COPY_DST,
        );
        self.context.queue.write_buffer(&made, 0, bytes);
        blocks.insert(bytes.to_vec(), made.clone());
        made
    }

    /// Records what `record` dispatches as one submission.
    fn submit(
        &self,
        record: impl FnOnce(&mut Recording<'_>),
        then: impl FnOnce(&mut wgpu::CommandEncoder),
    ) -> Result<wgpu::SubmissionIndex, Error> {
        let _turn = self.context.turn();
        let mut encoder = self
            .context
            .device
            .create_command_encoder(&Default::default());
        let pass = encoder.begin_compute_pass(&Default::default());
        let mut recording = Recording {
            gpu: self,
            pass: pass.forget_lifetime(),
        };
        record(&mut recording);
        drop(recording);
        then(&mut encoder);
        let submission = self.context.queue.submit([encoder.finish()]);
        self.context.check()?;
        Ok(submission)
    }

    /// The first `count` floats of a buffer, once everything submitted so far is done.
    fn download(&self, from: &wgpu::Buffer, count: usize) -> Result<Vec<f32>, Error> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let bytes = 4 * count as u64;
        let to = buffer(
            self.context,
            "download",
            bytes,
            Usage::MAP_READ | Usage::COPY_DST,
        );
        let submission = self.submit(
            |_| {},
            |encoder| encoder.copy_buffer_to_buffer(from, 0, &to, 0, bytes),
        )?;
        let _turn = self.context.turn();
        let mapping = self.context.map(submission, &[(&to, wgpu::MapMode::Read)]);
        self.context.wait(mapping)?;
        Ok(self.context.take_words(&to, bytes)?)
    }

    fn norm(&self, weights: &Weights<'_>, norm: &NormTensors) -> Result<Norm, Error> {
        let read = |name: &String| -> Result<wgpu::Buffer, Error> {
            Ok(filled(self.context, "norm", &weights.read(name)?))
        };
        Ok(Norm {
            weight: read(&norm.weight)?,
            bias: norm.bias.as_ref().map(read).transpose()?,
            features: norm.len,
            kind: self.architecture.norm,
        })
    }

    fn matrix(&self, weights: &Weights<'_>, linear: &Linear) -> Result<Matrix, Error> {
        let dtype = weights.dtype(&linear.weight)?;
        let row_bytes = dtype.size() * linear.in_features;
        // An even number of rows, so that a piece of two-byte weights ends with a word.
        let largest = usize::try_from(self.context.largest_buffer()).unwrap_or(usize::MAX);
        let rows_bound = (largest / row_bytes / 2 * 2).max(2);
        let mut pieces = Vec::new();
        for first in (0..linear.out_features).step_by(rows_bound) {
            let rows = rows_bound.min(linear.out_features - first);
            pieces.push(Piece {
                weights: self.upload(
                    weights,
                    &linear.weight,
                    first * row_bytes,
                    rows * row_bytes,
                )?,
                rows,
            });
        }
        let bias = linear.bias.as_ref();
        let bias = bias.map(|name| -> Result<wgpu::Buffer, Error> {
            Ok(filled(self.context, "bias", &weights.read(name)?))
        });
        Ok(Matrix {
            pieces,
            bias: bias.transpose()?,
            in_features: linear.in_features,
            out_features: linear.out_features,
            dtype,
        })
    }

    /// Some bytes of a tensor on the device, through a bounded piece of the host's memory.
    fn upload(
        &self,
        weights: &Weights<'_>,
        name: &str,
        first: usize,
        bytes: usize,
    ) -> Result<wgpu::Buffer, Error> {
        let _turn = self.context.turn();
        let made = self.context.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("weights"),
            size: bytes.next_multiple_of(4) as u64,
            usage: Usage::STORAGE,
            mapped_at_creation: true,
        });
        self.context.check()?;
        let mut read = vec![0; UPLOAD_BYTES.min(bytes)];
        for at in (0..bytes).step_by(UPLOAD_BYTES) {
            let count = UPLOAD_BYTES.min(bytes - at);
            weights.read_bytes(name, first + at, &mut read[..count])?;
            let mut view = made
                .get_mapped_range_mut(at as u64..(at + count).next_multiple_of(4) as u64)
                .map_err(|error| self.context.failed(error.to_string()))?;
            view.slice(..count).copy_from_slice(&read[..count]);
        }
        made.unmap();
        Ok(made)
    }

    /// The logits of a normalised hidden state for some rows of the head, on the device.
    fn head_logits(
        &self,
        head_rows: &Matrix,
        hidden: &GpuHidden,
        logits: &wgpu::Buffer,
        then: impl FnOnce(&mut Recording<'_>),
    ) -> Result<(), Error> {
        self.submit(
            |recording| {
                let rows = head_rows.out_features;
                let to = Destination::rows(logits, rows);
                recording.product(head_rows, &hidden.buffer, hidden.tokens, to);
                then(recording);
            },
            |_| {},
        )?;
        Ok(())
    }

    fn head_matrix(&self, head_rows: &[f32]) -> Result<Matrix, Error> {
        let in_features = self.architecture.hidden_size;
        let largest = usize::try_from(self.context.largest_buffer() / 4).unwrap_or(usize::MAX);
        let rows_bound = (largest / in_features).max(1);
        let pieces = head_rows
            .chunks(rows_bound * in_features)
            .map(|rows| Piece {
                weights: filled(self.context, "head", rows),
                rows: rows.len() / in_features,
            });
        Ok(Matrix {
            pieces: pieces.collect(),
            bias: None,
            in_features,
            out_features: head_rows.len() / in_features,
            dtype: Dtype::F32,
        })
    }
}

impl Recording<'_> {
    fn dispatch<B: bytemuck::Pod>(
        &mut self,
        entry_point: &'static str,
        block: &B,
        buffers: &[(u32, &wgpu::Buffer)],
        (x, y): (usize, usize),
    ) {
        let pipeline = &self.gpu.pipelines[entry_point];
        let uniform = self.gpu.uniform(block);
        let mut all = vec![(0, &uniform)];
        all.extend(buffers);
        let group = self.gpu.context.bind(pipeline, entry_point, &all);
        self.pass.set_pipeline(pipeline);
        self.pass.set_bind_group(0, &group, &[]);
        self.pass.dispatch_workgroups(x as u32, y as u32, 1);
    }

    /// `x W^T + b` to where it goes.
    fn product(&mut self, matrix: &Matrix, x: &wgpu::Buffer, tokens: usize, to: Destination<'_>) {
        let gpu = self.gpu;
        let mut first = 0;
        for piece in &matrix.pieces {
            let block = kernels::Product {
                tokens: tokens as u32,
                in_features: matrix.in_features as u32,
                out_features: piece.rows as u32,
                dtype: matrix.dtype as u32,
                out_stride: to.stride as u32,
                out_first: (to.first + first) as u32,
                biased: u32::from(matrix.bias.is_some()),
                bias_first: first as u32,
                add: u32::from(to.add),
            };
            let bias = matrix.bias.as_ref().unwrap_or(&gpu.nothing);
            let tiles = (piece.rows.div_ceil(64), tokens.div_ceil(64));
            let buffers = [(1, &piece.weights), (2, x), (3, bias), (4, to.buffer)];
            self.dispatch("product", &block, &buffers, tiles);
            first += piece.rows;
        }
    }

    fn norm(&mut self, norm: &Norm, x: &wgpu::Buffer, tokens: usize, y: &wgpu::Buffer) {
        let block = kernels::Norm {
            features: norm.features as u32,
            epsilon: self.gpu.architecture.epsilon as f32,
        };
        match (norm.kind, &norm.bias) {
            (NormKind::Layer, Some(bias)) => {
                let buffers = [(1, x), (2, &norm.weight), (3, bias), (4, y)];
                self.dispatch("layer_norm", &block, &buffers, (tokens, 1));
            }
            _ => {
                let buffers = [(1, x), (2, &norm.weight), (4, y)];
                self.dispatch("rms_norm", &block, &buffers, (tokens, 1));
            }
        }
    }

    /// Queries, keys and values of `x`; then what the heads found.
    fn attention(&mut self, block: &GpuBlock, x: &wgpu::Buffer, tokens: usize) {
        let gpu = self.gpu;
        let Architecture {
            heads,
            kv_heads,
            head_dim,
            ..
        } = *gpu.architecture;
        let token_stride = (heads + 2 * kv_heads) * head_dim;
        let to = &gpu.activations.heads;
        let mut first = 0;
        for projection in &block.projections {
            let part = Destination {
                first,
                ..Destination::rows(to, token_stride)
            };
            self.product(projection, x, tokens, part);
            first += projection.out_features;
        }
        let (stride, keys, values) = match gpu.architecture.projections {
            Projections::Separate => (head_dim, heads * head_dim, (heads + kv_heads) * head_dim),
            Projections::Interleaved => (3 * head_dim, head_dim, 2 * head_dim),
        };
        let norms = match &block.head_norms {
            Some([of_queries, of_keys]) => [Some(of_queries), Some(of_keys)],
            None => [None, None],
        };
        for (first, count, norm) in [(0, heads, norms[0]), (keys, kv_heads, norms[1])] {
            let block = kernels::Heads {
                head_dim: head_dim as u32,
                pairs: gpu.architecture.rotary.frequencies.len() as u32,
                first: first as u32,
                token_stride: token_stride as u32,
                head_stride: stride as u32,
                epsilon: gpu.architecture.epsilon as f32,
            };
            if let Some(norm) = norm {
                let buffers = [(2, &norm.weight), (3, to)];
                self.dispatch("normalise_heads", &block, &buffers, (count, tokens));
            }
            self.dispatch(
                "turn_heads",
                &block,
                &[(1, &gpu.turns), (3, to)],
                (count, tokens),
            );
        }
        let attention = kernels::Attention {
            tokens: tokens as u32,
            head_dim: head_dim as u32,
            query_heads: heads as u32,
            group_size: (heads / kv_heads) as u32,
            token_stride: token_stride as u32,
            query_stride: stride as u32,
            key_stride: stride as u32,
            first_query: 0,
            first_key: keys as u32,
            first_value: values as u32,
            window: block.window.map_or(u32::MAX, |window| window as u32),
            scale: (head_dim as f32).powf(-0.5),
        };
        let buffers = [(1, to), (2, &gpu.activations.found)];
        self.dispatch(
            "attention",
            &attention,
            &buffers,
            (tokens.div_ceil(16), heads),
        );
    }

    /// `down`'s input, into the gate.
    fn mlp(&mut self, block: &GpuBlock, x: &wgpu::Buffer, tokens: usize) {
        let gpu = self.gpu;
        let Activations { gate, up, .. } = &gpu.activations;
        let features = gpu.architecture.intermediate_size;
        let activation = kernels::Activation {
            count: (tokens * features) as u32,
            activation: match gpu.architecture.activation {
                model::Activation::Silu => 0,
                model::Activation::Gelu => 1,
                model::Activation::GeluTanh => 2,
            },
            row: features as u32,
        };
        self.product(&block.up[0], x, tokens, Destination::rows(gate, features));
        let groups = (features.div_ceil(256), tokens);
        match gpu.architecture.mlp {
            Mlp::Gated => {
                self.product(&block.up[1], x, tokens, Destination::rows(up, features));
                self.dispatch("gated", &activation, &[(1, gate), (2, up)], groups);
            }
            Mlp::Plain => self.dispatch("plain", &activation, &[(1, gate)], groups),
        }
    }

    /// The column norms of `x`, into the norms from `first` on.
    fn site_norms(&mut self, x: &wgpu::Buffer, tokens: usize, features: usize, first: usize) {
        let block = kernels::SiteNorms {
            tokens: tokens as u32,
            features: features as u32,
            first: first as u32,
        };
        let groups = (features.div_ceil(64), 1);
        self.dispatch(
            "site_norms",
            &block,
            &[(1, x), (2, &self.gpu.norms)],
            groups,
        );
    }

    /// A sequence through a block; its column norms begin at `first_norm`.
    fn block(&mut self, block: &GpuBlock, hidden: &GpuHidden, first_norm: usize) {
        let gpu = self.gpu;
        let (x, tokens) = (&hidden.buffer, hidden.tokens);
        let hidden_size = gpu.architecture.hidden_size;
        let Activations {
            attention,
            found,
            mlp,
            gate,
            ..
        } = &gpu.activations;
        self.norm(&block.attention_norm, x, tokens, attention);
        self.attention(block, attention, tokens);
        if gpu.architecture.parallel {
            self.norm(&block.mlp_norm, x, tokens, mlp);
        }
        self.product(
            &block.output,
            found,
            tokens,
            Destination::residual(x, hidden_size),
        );
        if !gpu.architecture.parallel {
            self.norm(&block.mlp_norm, x, tokens, mlp);
        }
        self.mlp(block, mlp, tokens);
        self.product(
            &block.down,
            gate,
            tokens,
            Destination::residual(x, hidden_size),
        );
        let mut first = first_norm;
        for (x, features) in [attention, found, mlp, gate]
            .into_iter()
            .zip(gpu.site_features())
        {
            self.site_norms(x, tokens, features, first);
            first += features;
        }
    }
}

impl Engine for Gpu<'_> {
    type Block = GpuBlock;
    type Hidden = GpuHidden;
    type Head = Norm;

    fn embed(&self, rows: Vec<f32>, tokens: usize) -> Result<GpuHidden, Error> {
        let hidden = GpuHidden {
            buffer: filled(self.context, "hidden", &rows),
            tokens,
        };
        self.context.check()?;
        Ok(hidden)
    }

    fn load(&self, weights: &Weights<'_>, block: &Block) -> Result<GpuBlock, Error> {
        let block = BlockWeights::load(
            block,
            |linear| self.matrix(weights, linear),
            |norm| self.norm(weights, norm),
        )?;
        self.context.check()?;
        Ok(block)
    }

    fn in_flight(&self, _context: usize) -> usize {
        IN_FLIGHT
    }

    fn run(&self, block: &GpuBlock, hidden: &mut [GpuHidden]) -> Result<Vec<SiteNorms>, Error> {
        let features = self.site_features();
        let norms: usize = features.iter().sum();
        for (index, hidden) in hidden.iter().enumerate() {
            self.submit(
                |recording| recording.block(block, hidden, index * norms),
                |_| {},
            )?;
        }
        let all = self.download(&self.norms, hidden.len() * norms)?;
        let of_sequence = |mut norms: &[f32]| {
            features.map(|features| {
                let (site, rest) = norms.split_at(features);
                norms = rest;
                site.to_vec()
            })
        };
        Ok(all.chunks_exact(norms).map(of_sequence).collect())
    }

    fn load_head(&self, weights: &Weights<'_>, norm: &NormTensors) -> Result<Norm, Error> {
        self.norm(weights, norm)
    }

    fn finish(&self, head: &Norm, hidden: &GpuHidden) -> Result<GpuHidden, Error> {
        let finished = buffer(self.context, "hidden", hidden.buffer.size(), Usage::STORAGE);
        self.submit(
            |recording| recording.norm(head, &hidden.buffer, hidden.tokens, &finished),
            |_| {},
        )?;
        Ok(GpuHidden {
            buffer: finished,
            tokens: hidden.tokens,
        })
    }

    fn partials(
        &self,
        head_rows: &[f32],
        first_row: usize,
        hidden: &[GpuHidden],
        next: &[&[u32]],
    ) -> Result<Vec<Vec<Partial>>, Error> {
        let head_rows = self.head_matrix(head_rows)?;
        let rows = head_rows.out_features;
        let longest = hidden.iter().map(|hidden| hidden.tokens).max().unwrap_or(0);
        let bytes = 4 * (longest * rows) as u64;
        let logits = buffer(self.context, "logits", bytes, Usage::STORAGE);
        let mut all = Vec::new();
        for (hidden, &next) in hidden.iter().zip(next) {
            let mut targets = next.to_vec();
            // The last token has no successor.
            targets.resize(hidden.tokens, u32::MAX);
            let targets = filled(self.context, "next", &targets);
            let bytes = 12 * hidden.tokens as u64;
            let sums = buffer(
                self.context,
                "sums",
                bytes,
                Usage::STORAGE | Usage::COPY_SRC,
            );
            let block = kernels::LogSumExp {
                rows: rows as u32,
                first: first_row as u32,
            };
            self.head_logits(&head_rows, hidden, &logits, |recording| {
                let buffers = [(1, &logits), (2, &targets), (3, &sums)];
                recording.dispatch("log_sum_exp", &block, &buffers, (hidden.tokens, 1));
            })?;
            all.push(sums);
        }
        let sums = all.iter().zip(next);
        sums.map(|(sums, next)| {
            let words = self.download(sums, 3 * next.len())?;
            let partial = |of_token: &[f32]| Partial {
                largest: of_token[0],
                sum: of_token[1],
                target: of_token[2],
            };
            Ok(words.chunks_exact(3).map(partial).collect())
        })
        .collect()
    }

    fn logits(&self, head_rows: &[f32], hidden: &GpuHidden) -> Result<Vec<f32>, Error> {
        let head_rows = self.head_matrix(head_rows)?;
        let count = hidden.tokens * head_rows.out_features;
        let logits = buffer(
            self.context,
            "logits",
            4 * count as u64,
            Usage::STORAGE | Usage::COPY_SRC,
        );
        self.head_logits(&head_rows, hidden, &logits, |_| {})?;
        self.download(&logits, count)
    }
}

/// A buffer of at least `bytes` bytes.
fn buffer(context: &Context, label: &str, bytes: u64, usage: Usage) -> wgpu::Buffer {
    context.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.next_multiple_of(4).max(4),
        usage,
        mapped_at_creation: false,
    })
}

/// A storage buffer that holds `values`.
fn filled<T: bytemuck::Pod>(context: &Context, label: &str, values: &[T]) -> wgpu::Buffer {
    let bytes = bytemuck::cast_slice(values);
    let made = buffer(
        context,
        label,
        bytes.len() as u64,
        Usage::STORAGE | Usage::COPY_DST,
    );
    context.queue.write_buffer(&made, 0, bytes);
    made
}
