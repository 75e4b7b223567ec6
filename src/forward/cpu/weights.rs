//! Linear layers and norms as candle's tensors, in f32.

use candle_core::{Device, Result, Tensor};
use candle_nn::ops;

use crate::model::{Linear, NormKind, NormTensors};

/// A linear layer: `x W^T + b`.
pub(crate) struct CpuMatrix {
    /// `[out_features, in_features]`.
    weight: Tensor,
    bias: Option<Tensor>,
}

impl CpuMatrix {
    pub(super) fn new(weight: Vec<f32>, bias: Option<Vec<f32>>, linear: &Linear) -> Result<Self> {
        let shape = (linear.out_features, linear.in_features);
        let bias = bias.map(|bias| Tensor::from_vec(bias, linear.out_features, &Device::Cpu));
        Ok(Self {
            weight: Tensor::from_vec(weight, shape, &Device::Cpu)?,
            bias: bias.transpose()?,
        })
    }

    /// Rows of the head.
    pub(super) fn of_head(
        rows: Vec<f32>,
        bias: Option<Vec<f32>>,
        in_features: usize,
    ) -> Result<Self> {
        let count = rows.len() / in_features;
        let bias = bias.map(|bias| Tensor::from_vec(bias, count, &Device::Cpu));
        Ok(Self {
            weight: Tensor::from_vec(rows, (count, in_features), &Device::Cpu)?,
            bias: bias.transpose()?,
        })
    }

    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}

/// A norm's factors and summands.
pub(crate) struct CpuNorm {
    kind: NormKind,
    weight: Tensor,
    bias: Option<Tensor>,
    epsilon: f32,
}

impl CpuNorm {
    pub(super) fn new(
        weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        norm: &NormTensors,
    ) -> Result<Self> {
        let tensor = |values| Tensor::from_vec(values, norm.features, &Device::Cpu);
        // candle's LayerNorm adds something in any case.
        let bias = match norm.kind {
            NormKind::Layer => Some(bias.unwrap_or_else(|| vec![0.0; norm.features])),
            NormKind::Rms => bias,
        };
        Ok(Self {
            kind: norm.kind,
            weight: tensor(weight)?,
            bias: bias.map(tensor).transpose()?,
            epsilon: norm.epsilon as f32,
        })
    }

    /// The last dimension of `x`, normalised.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        match (self.kind, &self.bias) {
            (NormKind::Layer, Some(bias)) => ops::layer_norm(x, &self.weight, bias, self.epsilon),
            _ => ops::rms_norm(x, &self.weight, self.epsilon),
        }
    }
}
