//! Linear layers and norms on the adapter: matrices as they are stored, norms and biases as f32.

use wgpu::BufferUsages as Usage;

use crate::device::adapter::context::Context;
use crate::device::storage::filled;
use crate::dtype::Dtype;
use crate::forward::engine::LmHeadPart;
use crate::forward::error::Error;
use crate::forward::kernels::HeadsParams;
use crate::forward::weights::WeightReader;
use crate::model::{Linear, NormKind, NormTensors};

/// Bytes of a matrix that go through the host's memory at a time.
const UPLOAD_BYTES: usize = 32 << 20;

/// A linear layer, in pieces that can be bound.
#[derive(Clone, Debug)]
pub(crate) struct GpuMatrix {
    pub(super) pieces: Vec<MatrixPiece>,
    pub(super) bias: Option<wgpu::Buffer>,
    pub(super) in_features: usize,
    pub(super) out_features: usize,
    pub(super) dtype: Dtype,
    /// What the product, with the bias, is multiplied by.
    pub(super) scale: f32,
}

/// Some output features of a matrix, `[features, in_features]`.
#[derive(Clone, Debug)]
pub(super) struct MatrixPiece {
    pub(super) weights: wgpu::Buffer,
    pub(super) features: usize,
}

/// How a norm normalises. The kernel of a LayerNorm adds a bias in any case.
#[derive(Clone, Debug)]
pub(super) enum GpuNormKind {
    Rms,
    Layer {
        /// Zeros where none is stored.
        bias: wgpu::Buffer,
    },
}

/// A norm's kind and factors.
#[derive(Clone, Debug)]
pub(crate) struct GpuNorm {
    pub(super) kind: GpuNormKind,
    pub(super) weight: wgpu::Buffer,
    pub(super) features: usize,
    /// Heads with factors of their own; 1 where there is one list for all.
    pub(super) heads: usize,
    pub(super) epsilon: f32,
}

impl GpuNorm {
    /// The bias of a LayerNorm.
    pub(super) fn bias(&self) -> Option<&wgpu::Buffer> {
        match &self.kind {
            GpuNormKind::Rms => None,
            GpuNormKind::Layer { bias } => Some(bias),
        }
    }

    /// What the kernel of heads has to know of it.
    pub(super) fn heads_params(&self) -> HeadsParams {
        let stride = if self.heads == 1 { 0 } else { self.features };
        HeadsParams {
            head_dim: self.features as u32,
            centred: u32::from(self.bias().is_some()),
            weight_stride: stride as u32,
            epsilon: self.epsilon,
            ..Default::default()
        }
    }

    pub(super) fn load(
        context: &Context,
        weights: &WeightReader<'_>,
        norm: &NormTensors,
    ) -> Result<Self, Error> {
        let (factors, summands) = weights.read_norm(norm)?;
        let kind = match norm.kind {
            NormKind::Rms => GpuNormKind::Rms,
            NormKind::Layer => GpuNormKind::Layer {
                bias: filled(
                    context,
                    "norm",
                    &summands.unwrap_or_else(|| vec![0.0; factors.len()]),
                ),
            },
        };
        let loaded = Self {
            kind,
            weight: filled(context, "norm", &factors),
            features: norm.features,
            heads: norm.heads,
            epsilon: norm.epsilon as f32,
        };
        context.check()?;
        Ok(loaded)
    }
}

impl GpuMatrix {
    pub(super) fn load(
        context: &Context,
        weights: &WeightReader<'_>,
        linear: &Linear,
    ) -> Result<Self, Error> {
        let dtype = weights.dtype(&linear.weight)?;
        let row_bytes = dtype.size() * linear.in_features;
        // An even number of rows, so that a piece of two-byte weights ends with a word.
        let largest = usize::try_from(context.largest_buffer()).unwrap_or(usize::MAX);
        let rows_bound = (largest / row_bytes / 2 * 2).max(2);
        let mut pieces = Vec::new();
        for first in (0..linear.out_features).step_by(rows_bound) {
            let features = rows_bound.min(linear.out_features - first);
            pieces.push(MatrixPiece {
                weights: upload(context, weights, linear, first, features * row_bytes)?,
                features,
            });
        }
        let bias = weights.read_bias(linear)?;
        let matrix = Self {
            pieces,
            bias: bias.map(|bias| filled(context, "bias", &bias)),
            in_features: linear.in_features,
            out_features: linear.out_features,
            dtype,
            scale: linear.scale,
        };
        context.check()?;
        Ok(matrix)
    }

    /// Rows of the head that are in f32 already.
    pub(super) fn of_head(context: &Context, part: &LmHeadPart, in_features: usize) -> Self {
        let rows = &part.rows;
        let largest = usize::try_from(context.largest_buffer() / 4).unwrap_or(usize::MAX);
        let rows_bound = (largest / in_features).max(1);
        let pieces = rows
            .chunks(rows_bound * in_features)
            .map(|rows| MatrixPiece {
                weights: filled(context, "head", rows),
                features: rows.len() / in_features,
            });
        Self {
            pieces: pieces.collect(),
            bias: part.bias.as_ref().map(|bias| filled(context, "bias", bias)),
            in_features,
            out_features: rows.len() / in_features,
            dtype: Dtype::F32,
            scale: 1.0,
        }
    }
}

/// The weights of a layer's output features from `first` on, through a bounded piece of the host's memory.
fn upload(
    context: &Context,
    weights: &WeightReader<'_>,
    linear: &Linear,
    first: usize,
    bytes: usize,
) -> Result<wgpu::Buffer, Error> {
    let _turn = context.turn();
    let made = context.buffer(&wgpu::BufferDescriptor {
        label: Some("weights"),
        size: bytes.next_multiple_of(4) as u64,
        usage: Usage::STORAGE,
        mapped_at_creation: true,
    });
    context.check()?;
    let row_bytes = linear.in_features * weights.dtype(&linear.weight)?.size();
    // Whole features at a time; four of them, as a buffer is mapped from a multiple of eight bytes on.
    let features = (UPLOAD_BYTES / row_bytes / 4 * 4).max(4);
    let mut read = vec![0; (features * row_bytes).min(bytes)];
    for at in (0..bytes).step_by(features * row_bytes) {
        let count = (features * row_bytes).min(bytes - at);
        weights.read_features(linear, first + at / row_bytes, &mut read[..count])?;
        let mut view = made
            .get_mapped_range_mut(at as u64..(at + count).next_multiple_of(4) as u64)
            .map_err(|error| context.failed(error.to_string()))?;
        view.slice(..count).copy_from_slice(&read[..count]);
    }
    made.unmap();
    Ok(made)
}
