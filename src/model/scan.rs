//! What runs along the tokens of a window, as data: convolutions, and scans that keep a state.

use std::ops::Range;

use super::tensors::Vector;

/// A causal convolution of each channel for itself: some channels of a tensor.
#[derive(Clone, Debug)]
pub(crate) struct Convolution {
    /// `[all channels, 1, width]`; the last factor is that of the token itself.
    pub(crate) weight: Vector,
    /// `[all channels]`.
    pub(crate) bias: Option<Vector>,
    pub(crate) width: usize,
    /// Its channels.
    pub(crate) channels: Range<usize>,
}

/// A scan as it is stored. A state fades by `exp(-exp(log) dt)` a token, where `dt = softplus(time step + bias)`.
#[derive(Clone, Debug)]
pub(crate) struct ScanTensors {
    pub(crate) sizes: ScanSizes,
    /// `[heads]`, or `[heads, states]`.
    pub(crate) log: Vector,
    /// `[heads]`; none where the layer of the time step has it.
    pub(crate) bias: Option<Vector>,
    /// Of each head, what its input is multiplied by on the way around the state; of a delta net none.
    pub(crate) skip: Option<Vector>,
    /// The least and the most that `dt` is.
    pub(crate) limits: [f32; 2],
}

/// Sizes of a state space: each of `heads * features` channels has `states` of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateSizes {
    pub(crate) heads: usize,
    /// Channels of a head.
    pub(crate) features: usize,
    /// B and C are there once for each group of heads.
    pub(crate) groups: usize,
    pub(crate) states: usize,
}

/// Sizes of a delta net: each value head has a state of `key_features * value_features`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeltaSizes {
    pub(crate) key_heads: usize,
    /// Each key head serves `value_heads / key_heads`, one after the other.
    pub(crate) value_heads: usize,
    pub(crate) key_features: usize,
    pub(crate) value_features: usize,
}

/// The numbers of a scan.
#[derive(Clone, Debug)]
pub(crate) struct Scan {
    pub(crate) sizes: ScanSizes,
    /// `-exp(log)`: of each head, or of each head and state.
    pub(crate) decays: Vec<f32>,
    /// Of each head.
    pub(crate) bias: Vec<f32>,
    /// Of each head, what its input is multiplied by on the way around the state; of a delta net none.
    pub(crate) skip: Vec<f32>,
    pub(crate) limits: [f32; 2],
}

/// Which recurrence it is, and how large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScanSizes {
    /// `h = exp(A dt) h + dt B x;  y = C h + D x`. Inputs are `x`, the time step, `B`, `C`.
    StateSpace(StateSizes),
    /// `S = exp(A dt) S;  S = S + k (sigmoid(b) (v - S^T k))^T;  y = S^T q / sqrt(features)`, where `q` and `k` are brought
    /// to length 1. Inputs are `q`, `k`, `v`, the time step, `b`.
    DeltaNet(DeltaSizes),
}

impl StateSizes {
    pub(crate) fn channels(self) -> usize {
        self.heads * self.features
    }
}

impl ScanSizes {
    /// Those of a selective scan, where every channel is a head.
    pub(super) fn of_channels(channels: usize, states: usize) -> Self {
        Self::StateSpace(StateSizes {
            heads: channels,
            features: 1,
            groups: 1,
            states,
        })
    }

    /// Features of each of the inputs.
    pub(crate) fn inputs(self) -> Vec<usize> {
        match self {
            Self::StateSpace(sizes) => {
                let both = sizes.groups * sizes.states;
                vec![sizes.channels(), sizes.heads, both, both]
            }
            Self::DeltaNet(sizes) => {
                let keys = sizes.key_heads * sizes.key_features;
                let values = sizes.value_heads * sizes.value_features;
                vec![keys, keys, values, sizes.value_heads, sizes.value_heads]
            }
        }
    }

    /// Heads with a time step of their own.
    fn heads(self) -> usize {
        match self {
            Self::StateSpace(sizes) => sizes.heads,
            Self::DeltaNet(sizes) => sizes.value_heads,
        }
    }

    /// Numbers that each feature of what comes out keeps from token to token.
    pub(crate) fn kept(self) -> usize {
        match self {
            Self::StateSpace(sizes) => sizes.states,
            Self::DeltaNet(sizes) => sizes.key_features,
        }
    }

    /// Features of what comes out.
    pub(crate) fn output(self) -> usize {
        match self {
            Self::StateSpace(sizes) => sizes.channels(),
            Self::DeltaNet(sizes) => sizes.value_heads * sizes.value_features,
        }
    }
}

impl ScanTensors {
    /// Its tensors.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        [&self.log].into_iter().chain(&self.bias).chain(&self.skip)
    }

    /// Its numbers, as `read` gives those of a tensor.
    pub(crate) fn read<E>(&self, read: impl Fn(&Vector) -> Result<Vec<f32>, E>) -> Result<Scan, E> {
        let decay = |log: f32| -(f64::from(log).exp()) as f32;
        let bias = self.bias.as_ref().map(&read).transpose()?;
        Ok(Scan {
            sizes: self.sizes,
            decays: read(&self.log)?.into_iter().map(decay).collect(),
            bias: bias.unwrap_or_else(|| vec![0.0; self.sizes.heads()]),
            skip: self.skip.as_ref().map_or(Ok(Vec::new()), &read)?,
            limits: self.limits,
        })
    }
}

impl Convolution {
    /// Those of a tensor with so many channels, one part behind the other.
    pub(super) fn split<const N: usize>(self, channels: [usize; N]) -> [Self; N] {
        let mut first = self.channels.start;
        channels.map(|count| {
            let channels = first..first + count;
            first += count;
            Self {
                channels,
                ..self.clone()
            }
        })
    }

    /// Its tensors.
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector> {
        [&self.weight].into_iter().chain(&self.bias)
    }
}
