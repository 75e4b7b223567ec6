//! A multilayer perceptron as data: a whole feed-forward part, or one expert of it.

use super::activation::{Activation, Nonlinearity, Xielu};
use super::parts::{Loader, Named, Parts};

/// A multilayer perceptron: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Clone, Debug)]
pub(crate) struct Mlp<P: Parts = Named> {
    pub(crate) activation: Activation,
    /// The learned numbers of [`Activation::Xielu`].
    pub(crate) xielu: Option<Xielu<P::Numbers>>,
    pub(crate) gate: Option<P::Linear>,
    pub(crate) up: P::Linear,
    pub(crate) down: P::Linear,
}

impl<P: Parts> Mlp<P> {
    /// The layers that read what comes in.
    pub(crate) fn first_layers(&self) -> impl Iterator<Item = &P::Linear> {
        self.gate.iter().chain([&self.up])
    }
}

impl Mlp {
    /// The same with other parts.
    pub(super) fn load<L: Loader>(&self, loader: &mut L) -> Result<Mlp<L::Parts>, L::Error> {
        let xielu = self.xielu.as_ref().map(|xielu| xielu.load(loader));
        let gate = self.gate.as_ref();
        Ok(Mlp {
            activation: self.activation,
            xielu: xielu.transpose()?,
            gate: gate.map(|gate| loader.linear(gate)).transpose()?,
            up: loader.linear(&self.up)?,
            down: loader.linear(&self.down)?,
        })
    }
}

impl<P: Parts<Numbers = Vec<f32>>> Mlp<P> {
    /// What it does between its layers.
    pub(crate) fn nonlinearity(&self) -> Nonlinearity {
        Nonlinearity {
            activation: self.activation,
            numbers: self.xielu.as_ref().map_or([0.0; 4], Xielu::numbers),
        }
    }
}
