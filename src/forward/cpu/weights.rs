//! Linear layers and norms on the CPU, in f32.

use super::activations::Activations;
use super::in_place;
use crate::forward::error::Error;
use crate::model::{Linear, NormKind, NormTensors};
use crate::products::{self, Packed, With};
use crate::simd::widest;

/// A linear layer: `(x W^T + b) scale`.
#[derive(Clone, Debug)]
pub(crate) struct CpuMatrix {
    weight: Packed,
    /// Scaled.
    bias: Option<Vec<f32>>,
    scale: f32,
}

impl CpuMatrix {
    /// Of `[out_features, in_features]`.
    pub(super) fn new(
        weight: &[f32],
        bias: Option<Vec<f32>>,
        linear: &Linear,
    ) -> Result<Self, Error> {
        let mut matrix = Self::of_head(weight, bias, linear.in_features)?;
        matrix.scale = linear.scale;
        let bias = matrix.bias.iter_mut().flatten();
        bias.for_each(|bias| *bias *= linear.scale);
        Ok(matrix)
    }

    /// Rows of the head.
    pub(super) fn of_head(
        rows: &[f32],
        bias: Option<Vec<f32>>,
        in_features: usize,
    ) -> Result<Self, Error> {
        Ok(Self {
            weight: Packed::new(products::rows(rows, in_features)?.transposed()),
            bias,
            scale: 1.0,
        })
    }

    pub(super) fn apply(&self, x: &Activations) -> Result<Activations, Error> {
        let mut y = Activations::zeros(x.tokens(), self.weight.columns());
        self.multiply(x, false, &mut y)?;
        Ok(y)
    }

    /// Adds what comes out to `sum`.
    pub(super) fn add(&self, x: &Activations, sum: &mut Activations) -> Result<(), Error> {
        self.multiply(x, true, sum)
    }

    fn multiply(&self, x: &Activations, adds: bool, into: &mut Activations) -> Result<(), Error> {
        let with = With {
            scale: Some(self.scale),
            bias: self.bias.as_deref(),
            adds,
        };
        let x = x.matrix()?;
        Ok(self.weight.multiply_with(x, with, into.values_mut())?)
    }
}

/// A norm's factors and summands.
#[derive(Clone, Debug)]
pub(crate) struct CpuNorm {
    kind: NormKind,
    features: usize,
    /// `[heads, features]`.
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    epsilon: f32,
}

impl CpuNorm {
    pub(super) fn new(weight: Vec<f32>, bias: Option<Vec<f32>>, norm: &NormTensors) -> Self {
        Self {
            kind: norm.kind,
            features: norm.features,
            weight,
            bias,
            epsilon: norm.epsilon as f32,
        }
    }

    /// `x`, normalised.
    pub(super) fn apply(&self, x: &Activations) -> Result<Activations, Error> {
        let mut y = x.clone();
        self.normalise(&mut y)?;
        Ok(y)
    }

    /// Normalises each part of a row, of as many features as this has, for itself: a row with one list of factors, or one of
    /// its heads after the other with a list each.
    pub(super) fn normalise(&self, x: &mut Activations) -> Result<(), Error> {
        let lists = self.weight.len();
        if self.features == 0 || !x.features().is_multiple_of(lists) {
            return Err(Error::Engine(format!(
                "a norm of {lists} factors does not fit rows of {}",
                x.features()
            )));
        }
        in_place::change_parts(x.values_mut(), lists, |x| {
            widest(
                #[inline(always)]
                || {
                    for heads in x.chunks_exact_mut(lists) {
                        for (list, x) in heads.chunks_exact_mut(self.features).enumerate() {
                            self.one(x, list * self.features);
                        }
                    }
                },
            );
        });
        Ok(())
    }

    /// One part, by the factors from number `first` on.
    #[inline(always)]
    fn one(&self, x: &mut [f32], first: usize) {
        let count = x.len() as f32;
        if self.kind == NormKind::Layer {
            let mean = sum(x, |x| x) / count;
            x.iter_mut().for_each(|x| *x -= mean);
        }
        let scale = 1.0 / (sum(x, |x| x * x) / count + self.epsilon).sqrt();
        for (x, factor) in x.iter_mut().zip(&self.weight[first..]) {
            *x = *x * scale * factor;
        }
        if let Some(summands) = &self.bias {
            for (x, summand) in x.iter_mut().zip(&summands[first..]) {
                *x += summand;
            }
        }
    }
}

/// The sum of a function of all values, in sixteen partial sums whatever the machine's vectors.
#[inline(always)]
fn sum(x: &[f32], of: impl Fn(f32) -> f32) -> f32 {
    let (chunks, rest) = x.as_chunks::<16>();
    let mut lanes = [0.0_f32; 16];
    for chunk in chunks {
        for (lane, &x) in lanes.iter_mut().zip(chunk) {
            *lane += of(x);
        }
    }
    lanes.iter().sum::<f32>() + rest.iter().map(|&x| of(x)).sum::<f32>()
}
