//! A multilayer perceptron as data: a whole feed-forward part, or one expert of it.

use super::activation::Activation;

/// A multilayer perceptron: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Clone, Debug)]
pub(crate) struct Mlp<L> {
    pub(crate) activation: Activation,
    pub(crate) gate: Option<L>,
    pub(crate) up: L,
    pub(crate) down: L,
}

impl<L> Mlp<L> {
    /// The layers that read what comes in.
    pub(crate) fn first_layers(&self) -> impl Iterator<Item = &L> {
        self.gate.iter().chain([&self.up])
    }

    /// The same with something else for each layer.
    pub(super) fn try_map<M, E>(&self, layer: &impl Fn(&L) -> Result<M, E>) -> Result<Mlp<M>, E> {
        Ok(Mlp {
            activation: self.activation,
            gate: self.gate.as_ref().map(layer).transpose()?,
            up: layer(&self.up)?,
            down: layer(&self.down)?,
        })
    }
}
