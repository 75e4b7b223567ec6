//! A multilayer perceptron as data: a whole feed-forward part, or one expert of it.

use super::activation::{Activation, Nonlinearity, Xielu};
use super::tensors::Vector;

/// A multilayer perceptron: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Clone, Debug)]
pub(crate) struct Mlp<L, V = Vector> {
    pub(crate) activation: Activation,
    /// The learned numbers of [`Activation::Xielu`].
    pub(crate) xielu: Option<Xielu<V>>,
    pub(crate) gate: Option<L>,
    pub(crate) up: L,
    pub(crate) down: L,
}

impl<L, V> Mlp<L, V> {
    /// The layers that read what comes in.
    pub(crate) fn first_layers(&self) -> impl Iterator<Item = &L> {
        self.gate.iter().chain([&self.up])
    }

    /// The same with something else for each layer and list of numbers.
    pub(super) fn try_map<M, W, E>(
        &self,
        layer: &impl Fn(&L) -> Result<M, E>,
        vector: &impl Fn(&V) -> Result<W, E>,
    ) -> Result<Mlp<M, W>, E> {
        Ok(Mlp {
            activation: self.activation,
            xielu: (self.xielu.as_ref())
                .map(|xielu| xielu.try_map(vector))
                .transpose()?,
            gate: self.gate.as_ref().map(layer).transpose()?,
            up: layer(&self.up)?,
            down: layer(&self.down)?,
        })
    }
}

impl<L> Mlp<L, Vec<f32>> {
    /// What it does between its layers.
    pub(crate) fn nonlinearity(&self) -> Nonlinearity {
        Nonlinearity {
            activation: self.activation,
            numbers: self.xielu.as_ref().map_or([0.0; 4], Xielu::numbers),
        }
    }
}
