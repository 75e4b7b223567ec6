//! Recurrences as data: what runs along a sequence with a state, in the place of attention or beside it.
//!
//! ```text
//! short convolution   y = c * conv(b * x)
//! selective scan      u = silu(conv(x));  y = scan(u, dt(u), B(u), C(u)) * silu(z)
//! state space         u, B, C = silu(conv(x, B, C));  y = norm(scan(u, dt, B, C) * silu(z))
//! delta net           q, k, v = silu(conv(q, k, v));  y = norm(delta(q, k, v, a, b)) * silu(z)
//! ```
//!
//! `b`, `c`, `x`, `z` and what else has no definition here are linear in the hidden state; `src/forward/recurrence.rs`
//! computes them, and an engine the convolutions and the [`Scan`]s.

use super::activation::Activation;
use super::tensors::{Linear, NormTensors, Vector};

/// A recurrence, and the way back to the residual stream.
#[derive(Clone, Debug)]
pub(crate) struct Recurrence<L = Linear, N = NormTensors, V = Vector> {
    pub(crate) ssm: Ssm<L, N, V>,
    pub(crate) output: L,
}

/// The kinds of recurrences.
#[derive(Clone, Debug)]
pub(crate) enum Ssm<L, N, V> {
    ShortConvolution(ShortConvolution<L, V>),
    SelectiveScan(Box<SelectiveScan<L, N, V>>),
    StateSpace(Box<StateSpace<L, N, V>>),
    DeltaNet(Box<DeltaNet<L, N, V>>),
}

/// A causal convolution of each channel for itself.
#[derive(Clone, Debug)]
pub(crate) struct Convolution<V> {
    /// `[channels, 1, width]`; the last factor is that of the token itself.
    pub(crate) weight: V,
    /// `[channels]`.
    pub(crate) bias: Option<V>,
    pub(crate) width: usize,
}

/// A short convolution between two gates (LFM 2, arXiv 2511.23404).
#[derive(Clone, Debug)]
pub(crate) struct ShortConvolution<L, V> {
    pub(crate) gate_before: L,
    pub(crate) gate_after: L,
    pub(crate) values: L,
    pub(crate) convolution: Convolution<V>,
}

/// The first Mamba (arXiv 2312.00752).
#[derive(Clone, Debug)]
pub(crate) struct SelectiveScan<L, N, V> {
    pub(crate) activation: Activation,
    pub(crate) values: L,
    pub(crate) gate: L,
    pub(crate) convolution: Convolution<V>,
    /// From the convolved values to the narrow vector of the time step, to B and to C.
    pub(crate) x_proj: [L; 3],
    /// Norms of these three.
    pub(crate) norms: Option<[N; 3]>,
    /// From the narrow vector to the time step of every channel.
    pub(crate) time_step: L,
    pub(crate) decay: Decay<V>,
    /// `[channels]`.
    pub(crate) skip: V,
    pub(crate) states: usize,
}

/// Mamba 2 (arXiv 2405.21060).
#[derive(Clone, Debug)]
pub(crate) struct StateSpace<L, N, V> {
    pub(crate) activation: Activation,
    pub(crate) gate: L,
    /// The values, B and C; one convolution goes over all three, one behind the other.
    pub(crate) convolved: [L; 3],
    pub(crate) convolution: Convolution<V>,
    /// To the time step of each head.
    pub(crate) time_step: L,
    pub(crate) decay: Decay<V>,
    /// `[heads]`.
    pub(crate) skip: V,
    pub(crate) sizes: StateSizes,
    pub(crate) norm: Option<GatedNorm<N>>,
}

/// A norm beside a gate.
#[derive(Clone, Debug)]
pub(crate) struct GatedNorm<N> {
    pub(crate) norm: N,
    /// Whether it is of the values alone, and the gate comes after it.
    pub(crate) before_gate: bool,
}

/// A linear attention with the delta rule and a gate (arXiv 2412.06464).
#[derive(Clone, Debug)]
pub(crate) struct DeltaNet<L, N, V> {
    pub(crate) activation: Activation,
    pub(crate) gate: L,
    /// Queries, keys and values; one convolution goes over all three, one behind the other.
    pub(crate) convolved: [L; 3],
    pub(crate) convolution: Convolution<V>,
    /// To the time step of each value head, and to how strongly it writes.
    pub(crate) time_step: L,
    pub(crate) beta: L,
    pub(crate) decay: Decay<V>,
    pub(crate) sizes: DeltaSizes,
    /// Of each head.
    pub(crate) norm: N,
}

/// How fast a state fades: by `exp(-exp(log) dt)` a token, where `dt = softplus(time step + bias)`.
#[derive(Clone, Debug)]
pub(crate) struct Decay<V> {
    /// `[heads]`, or `[heads, states]`.
    pub(crate) log: V,
    /// `[heads]`; none where the layer of the time step has it.
    pub(crate) bias: Option<V>,
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

/// What an engine needs to run along a sequence.
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
    fn of_channels(channels: usize, states: usize) -> Self {
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

impl Decay<Vec<f32>> {
    /// The scan of these heads.
    fn scan(&self, sizes: ScanSizes, heads: usize, skip: Vec<f32>) -> Scan {
        let decay = |log: &f32| -(f64::from(*log).exp()) as f32;
        Scan {
            sizes,
            decays: self.log.iter().map(decay).collect(),
            bias: self.bias.clone().unwrap_or_else(|| vec![0.0; heads]),
            skip,
            limits: self.limits,
        }
    }
}

impl<L, N> SelectiveScan<L, N, Vec<f32>> {
    /// Its scan: every channel is a head.
    pub(crate) fn scan(&self) -> Scan {
        let heads = self.skip.len();
        let sizes = ScanSizes::of_channels(heads, self.states);
        self.decay.scan(sizes, heads, self.skip.clone())
    }
}

impl<L, N> StateSpace<L, N, Vec<f32>> {
    /// Its scan.
    pub(crate) fn scan(&self) -> Scan {
        let sizes = ScanSizes::StateSpace(self.sizes);
        self.decay.scan(sizes, self.sizes.heads, self.skip.clone())
    }
}

impl<L, N> DeltaNet<L, N, Vec<f32>> {
    /// Its scan.
    pub(crate) fn scan(&self) -> Scan {
        let sizes = ScanSizes::DeltaNet(self.sizes);
        self.decay.scan(sizes, self.sizes.value_heads, Vec::new())
    }
}

impl<L, N, V> Recurrence<L, N, V> {
    /// The layers that read the hidden state.
    pub(super) fn first_layers(&self) -> Vec<&L> {
        match &self.ssm {
            Ssm::ShortConvolution(ssm) => vec![&ssm.gate_before, &ssm.gate_after, &ssm.values],
            Ssm::SelectiveScan(ssm) => vec![&ssm.values, &ssm.gate],
            Ssm::StateSpace(ssm) => {
                let others = [&ssm.gate, &ssm.time_step];
                ssm.convolved.iter().chain(others).collect()
            }
            Ssm::DeltaNet(ssm) => {
                let others = [&ssm.gate, &ssm.time_step, &ssm.beta];
                ssm.convolved.iter().chain(others).collect()
            }
        }
    }
}

impl Recurrence {
    /// The most features that are alive at one time, roughly, and no fewer than all inputs of a scan side by side.
    pub(super) fn widest(&self) -> usize {
        let layers = self.first_layers().into_iter();
        let layers = layers.map(|layer| layer.out_features).sum();
        let inputs = self.sizes().map_or(0, |sizes| sizes.inputs().iter().sum());
        inputs.max(layers)
    }

    /// The numbers that a channel keeps from token to token.
    pub(crate) fn kept(&self) -> usize {
        self.sizes().map_or(0, ScanSizes::kept)
    }

    /// The sizes of its scan, if it has one.
    fn sizes(&self) -> Option<ScanSizes> {
        match &self.ssm {
            Ssm::ShortConvolution(_) => None,
            Ssm::SelectiveScan(ssm) => {
                let heads = ssm.values.out_features;
                Some(ScanSizes::of_channels(heads, ssm.states))
            }
            Ssm::StateSpace(ssm) => Some(ScanSizes::StateSpace(ssm.sizes)),
            Ssm::DeltaNet(ssm) => Some(ScanSizes::DeltaNet(ssm.sizes)),
        }
    }
}

impl<V> Convolution<V> {
    fn try_map<W, E>(&self, vector: &impl Fn(&V) -> Result<W, E>) -> Result<Convolution<W>, E> {
        Ok(Convolution {
            weight: vector(&self.weight)?,
            bias: self.bias.as_ref().map(vector).transpose()?,
            width: self.width,
        })
    }
}

impl<V> Decay<V> {
    fn try_map<W, E>(&self, vector: &impl Fn(&V) -> Result<W, E>) -> Result<Decay<W>, E> {
        Ok(Decay {
            log: vector(&self.log)?,
            bias: self.bias.as_ref().map(vector).transpose()?,
            limits: self.limits,
        })
    }
}

fn three<T, U, E>(of: &[T; 3], map: impl Fn(&T) -> Result<U, E>) -> Result<[U; 3], E> {
    let [a, b, c] = of;
    Ok([map(a)?, map(b)?, map(c)?])
}

impl<L, N, V> Recurrence<L, N, V> {
    /// The same with something else for each layer, norm and list of numbers.
    pub(super) fn try_map<M, K, W, E>(
        &self,
        layer: &impl Fn(&L) -> Result<M, E>,
        norm: &impl Fn(&N) -> Result<K, E>,
        vector: &impl Fn(&V) -> Result<W, E>,
    ) -> Result<Recurrence<M, K, W>, E> {
        let ssm = match &self.ssm {
            Ssm::ShortConvolution(ssm) => Ssm::ShortConvolution(ShortConvolution {
                gate_before: layer(&ssm.gate_before)?,
                gate_after: layer(&ssm.gate_after)?,
                values: layer(&ssm.values)?,
                convolution: ssm.convolution.try_map(vector)?,
            }),
            Ssm::SelectiveScan(ssm) => Ssm::SelectiveScan(Box::new(SelectiveScan {
                activation: ssm.activation,
                values: layer(&ssm.values)?,
                gate: layer(&ssm.gate)?,
                convolution: ssm.convolution.try_map(vector)?,
                x_proj: three(&ssm.x_proj, layer)?,
                norms: (ssm.norms.as_ref())
                    .map(|norms| three(norms, norm))
                    .transpose()?,
                time_step: layer(&ssm.time_step)?,
                decay: ssm.decay.try_map(vector)?,
                skip: vector(&ssm.skip)?,
                states: ssm.states,
            })),
            Ssm::StateSpace(ssm) => Ssm::StateSpace(Box::new(StateSpace {
                activation: ssm.activation,
                gate: layer(&ssm.gate)?,
                convolved: three(&ssm.convolved, layer)?,
                convolution: ssm.convolution.try_map(vector)?,
                time_step: layer(&ssm.time_step)?,
                decay: ssm.decay.try_map(vector)?,
                skip: vector(&ssm.skip)?,
                sizes: ssm.sizes,
                norm: match &ssm.norm {
                    Some(gated) => Some(GatedNorm {
                        norm: norm(&gated.norm)?,
                        before_gate: gated.before_gate,
                    }),
                    None => None,
                },
            })),
            Ssm::DeltaNet(ssm) => Ssm::DeltaNet(Box::new(DeltaNet {
                activation: ssm.activation,
                gate: layer(&ssm.gate)?,
                convolved: three(&ssm.convolved, layer)?,
                convolution: ssm.convolution.try_map(vector)?,
                time_step: layer(&ssm.time_step)?,
                beta: layer(&ssm.beta)?,
                decay: ssm.decay.try_map(vector)?,
                sizes: ssm.sizes,
                norm: norm(&ssm.norm)?,
            })),
        };
        let output = layer(&self.output)?;
        Ok(Recurrence { ssm, output })
    }
}
