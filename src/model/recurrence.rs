//! Recurrences as data: what runs along a window with a state, in the place of attention or beside it.
//!
//! ```text
//! short convolution   y = c * conv(b * x)
//! selective scan      u = silu(conv(x));  y = scan(u, dt(u), B(u), C(u)) * silu(z)
//! state space         u, B, C = silu(conv(x, B, C));  y = norm(scan(u, dt, B, C) * silu(z))
//! delta net           q, k, v = silu(conv(q, k, v));  y = norm(delta(q, k, v, a, b)) * silu(z)
//! ```
//!
//! `b`, `c`, `x`, `z` and what else has no definition here are linear in the hidden state; `src/forward/recurrence.rs`
//! computes them, and an engine the convolutions and the [`Scan`](super::Scan)s.

use super::activation::Activation;
use super::parts::{Loader, Named, Parts};
use super::scan::ScanSizes;

/// A recurrence, and the way back to the residual stream.
#[derive(Clone, Debug)]
pub(crate) struct Recurrence<P: Parts = Named> {
    pub(crate) ssm: Ssm<P>,
    pub(crate) output: P::Linear,
}

/// The kinds of recurrences.
#[derive(Clone, Debug)]
pub(crate) enum Ssm<P: Parts> {
    ShortConvolution(ShortConvolution<P>),
    SelectiveScan(Box<SelectiveScan<P>>),
    StateSpace(Box<StateSpace<P>>),
    DeltaNet(Box<DeltaNet<P>>),
}

/// A short convolution between two gates (LFM 2, arXiv 2511.23404).
#[derive(Clone, Debug)]
pub(crate) struct ShortConvolution<P: Parts> {
    pub(crate) gate_before: P::Linear,
    pub(crate) gate_after: P::Linear,
    pub(crate) values: P::Linear,
    pub(crate) convolution: P::Convolution,
}

/// The first Mamba (arXiv 2312.00752).
#[derive(Clone, Debug)]
pub(crate) struct SelectiveScan<P: Parts> {
    pub(crate) activation: Activation,
    pub(crate) values: P::Linear,
    pub(crate) gate: P::Linear,
    pub(crate) convolution: P::Convolution,
    /// From the convolved values to the narrow vector of the time step, to B and to C.
    pub(crate) x_proj: [P::Linear; 3],
    /// Norms of these three.
    pub(crate) norms: Option<[P::Norm; 3]>,
    /// From the narrow vector to the time step of every channel.
    pub(crate) time_step: P::Linear,
    /// Every channel is a head.
    pub(crate) scan: P::Scan,
}

/// Mamba 2 (arXiv 2405.21060).
#[derive(Clone, Debug)]
pub(crate) struct StateSpace<P: Parts> {
    pub(crate) activation: Activation,
    pub(crate) gate: P::Linear,
    /// The values, B and C, each with its convolution.
    pub(crate) convolved: [(P::Linear, P::Convolution); 3],
    /// To the time step of each head.
    pub(crate) time_step: P::Linear,
    pub(crate) scan: P::Scan,
    pub(crate) norm: Option<GatedNorm<P::Norm>>,
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
pub(crate) struct DeltaNet<P: Parts> {
    pub(crate) activation: Activation,
    pub(crate) gate: P::Linear,
    /// Queries, keys and values, each with its convolution.
    pub(crate) convolved: [(P::Linear, P::Convolution); 3],
    /// To the time step of each value head, and to how strongly it writes.
    pub(crate) time_step: P::Linear,
    pub(crate) beta: P::Linear,
    pub(crate) scan: P::Scan,
    /// Of each head.
    pub(crate) norm: P::Norm,
}

impl<P: Parts> Recurrence<P> {
    /// The layers that read the hidden state.
    pub(super) fn first_layers(&self) -> Vec<&P::Linear> {
        match &self.ssm {
            Ssm::ShortConvolution(ssm) => vec![&ssm.gate_before, &ssm.gate_after, &ssm.values],
            Ssm::SelectiveScan(ssm) => vec![&ssm.values, &ssm.gate],
            Ssm::StateSpace(ssm) => {
                let convolved = ssm.convolved.iter().map(|(layer, _)| layer);
                convolved.chain([&ssm.gate, &ssm.time_step]).collect()
            }
            Ssm::DeltaNet(ssm) => {
                let convolved = ssm.convolved.iter().map(|(layer, _)| layer);
                let others = [&ssm.gate, &ssm.time_step, &ssm.beta];
                convolved.chain(others).collect()
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
            Ssm::SelectiveScan(ssm) => Some(ssm.scan.sizes),
            Ssm::StateSpace(ssm) => Some(ssm.scan.sizes),
            Ssm::DeltaNet(ssm) => Some(ssm.scan.sizes),
        }
    }

    /// The same with other parts.
    pub(super) fn load<L: Loader>(&self, loader: &mut L) -> Result<Recurrence<L::Parts>, L::Error> {
        let ssm = match &self.ssm {
            Ssm::ShortConvolution(ssm) => Ssm::ShortConvolution(ShortConvolution {
                gate_before: loader.linear(&ssm.gate_before)?,
                gate_after: loader.linear(&ssm.gate_after)?,
                values: loader.linear(&ssm.values)?,
                convolution: loader.convolution(&ssm.convolution)?,
            }),
            Ssm::SelectiveScan(ssm) => Ssm::SelectiveScan(Box::new(SelectiveScan {
                activation: ssm.activation,
                values: loader.linear(&ssm.values)?,
                gate: loader.linear(&ssm.gate)?,
                convolution: loader.convolution(&ssm.convolution)?,
                x_proj: three(&ssm.x_proj, |layer| loader.linear(layer))?,
                norms: (ssm.norms.as_ref())
                    .map(|norms| three(norms, |norm| loader.norm(norm)))
                    .transpose()?,
                time_step: loader.linear(&ssm.time_step)?,
                scan: loader.scan(&ssm.scan)?,
            })),
            Ssm::StateSpace(ssm) => Ssm::StateSpace(Box::new(StateSpace {
                activation: ssm.activation,
                gate: loader.linear(&ssm.gate)?,
                convolved: convolved(&ssm.convolved, loader)?,
                time_step: loader.linear(&ssm.time_step)?,
                scan: loader.scan(&ssm.scan)?,
                norm: match &ssm.norm {
                    Some(gated) => Some(GatedNorm {
                        norm: loader.norm(&gated.norm)?,
                        before_gate: gated.before_gate,
                    }),
                    None => None,
                },
            })),
            Ssm::DeltaNet(ssm) => Ssm::DeltaNet(Box::new(DeltaNet {
                activation: ssm.activation,
                gate: loader.linear(&ssm.gate)?,
                convolved: convolved(&ssm.convolved, loader)?,
                time_step: loader.linear(&ssm.time_step)?,
                beta: loader.linear(&ssm.beta)?,
                scan: loader.scan(&ssm.scan)?,
                norm: loader.norm(&ssm.norm)?,
            })),
        };
        let output = loader.linear(&self.output)?;
        Ok(Recurrence { ssm, output })
    }
}

fn three<T, U, E>(of: &[T; 3], mut map: impl FnMut(&T) -> Result<U, E>) -> Result<[U; 3], E> {
    let [a, b, c] = of;
    Ok([map(a)?, map(b)?, map(c)?])
}

/// Layers with their convolutions, loaded.
type Convolved<P> = [(<P as Parts>::Linear, <P as Parts>::Convolution); 3];

fn convolved<L: Loader>(
    of: &Convolved<Named>,
    loader: &mut L,
) -> Result<Convolved<L::Parts>, L::Error> {
    three(of, |(layer, convolution)| {
        Ok((loader.linear(layer)?, loader.convolution(convolution)?))
    })
}
