//! Linear layers and norms as candle's tensors, in f32.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::ops;

use super::in_place;
use crate::model::{Linear, NormKind, NormTensors};

/// A linear layer: `x W^T + b`.
pub(crate) struct CpuMatrix {
    /// `[out_features, in_features]`.
    weight: Tensor,
    bias: Option<Tensor>,
    scale: f32,
}

impl CpuMatrix {
    pub(super) fn new(weight: Vec<f32>, bias: Option<Vec<f32>>, linear: &Linear) -> Result<Self> {
        let shape = (linear.out_features, linear.in_features);
        let bias = bias.map(|bias| Tensor::from_vec(bias, linear.out_features, &Device::Cpu));
        Ok(Self {
            weight: Tensor::from_vec(weight, shape, &Device::Cpu)?,
            bias: bias.transpose()?,
            scale: linear.scale,
        })
    }

    pub(super) fn in_features(&self) -> usize {
        self.weight.dims()[1]
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
            scale: 1.0,
        })
    }

    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        if let Some(bias) = &self.bias {
            in_place::add_to_rows(&y, bias)?;
        }
        if self.scale != 1.0 {
            in_place::change(&y, |y| y.iter_mut().for_each(|y| *y *= self.scale))?;
        }
        Ok(y)
    }
}

/// A norm's factors and summands.
pub(crate) struct CpuNorm {
    kind: NormKind,
    features: usize,
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
        // One list a head goes over `[heads, tokens, features]`.
        let shape = match norm.heads {
            1 => vec![norm.features],
            heads => vec![heads, 1, norm.features],
        };
        let tensor = |values| Tensor::from_vec(values, shape.clone(), &Device::Cpu);
        Ok(Self {
            kind: norm.kind,
            features: norm.features,
            weight: tensor(weight)?,
            bias: bias.map(tensor).transpose()?,
            epsilon: norm.epsilon as f32,
        })
    }

    /// The last dimension of `x`, normalised.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        if self.weight.rank() > 1 {
            return self.apply_by_head(x);
        }
        match (self.kind, &self.bias) {
            (NormKind::Layer, Some(bias)) => ops::layer_norm(x, &self.weight, bias, self.epsilon),
            _ => ops::rms_norm(x, &self.weight, self.epsilon),
        }
    }

    /// Each part of a row, of as many features as this has, for itself.
    pub(super) fn apply_to_parts(&self, x: &Tensor) -> Result<Tensor> {
        let (tokens, all) = x.dims2()?;
        let parts = x.reshape((tokens, all / self.features, self.features))?;
        let parts = match self.weight.rank() {
            1 => self.apply(&parts)?,
            _ => {
                let by_part = parts.transpose(0, 1)?.contiguous()?;
                self.apply_by_head(&by_part)?
                    .transpose(0, 1)?
                    .contiguous()?
            }
        };
        parts.reshape((tokens, all))
    }

    /// The same with factors for each head of `[heads, tokens, features]`.
    fn apply_by_head(&self, x: &Tensor) -> Result<Tensor> {
        let ones = Tensor::ones(self.features, DType::F32, &Device::Cpu)?;
        let y = match self.kind {
            NormKind::Layer => ops::layer_norm(x, &ones, &ones.zeros_like()?, self.epsilon)?,
            NormKind::Rms => ops::rms_norm(x, &ones, self.epsilon)?,
        };
        let y = y.broadcast_mul(&self.weight)?;
        match &self.bias {
            Some(bias) => y.broadcast_add(bias),
            None => Ok(y),
        }
    }
}
