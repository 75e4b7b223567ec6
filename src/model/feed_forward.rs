//! The feed-forward part of a block as data.

use super::experts::Experts;
use super::mlp::Mlp;
use super::tensors::{Linear, Vector};

/// The feed-forward part.
#[derive(Clone, Debug)]
pub(crate) enum FeedForward<L, V = Vector> {
    /// The same layers for every token.
    Dense(Mlp<L, V>),
    /// Some of many, chosen for each token.
    Experts(Box<Experts<L, V>>),
}

impl FeedForward<Linear> {
    /// The most features that one of its layers puts out, but for those of the residual stream.
    pub(crate) fn widest(&self) -> usize {
        match self {
            Self::Dense(mlp) => mlp.down.in_features,
            Self::Experts(experts) => {
                let mlps = experts.experts.iter();
                let mlps = mlps.chain(experts.shared.iter().map(|shared| &shared.mlp));
                let widest = mlps.map(|mlp| mlp.down.in_features).max();
                widest.unwrap_or(0).max(experts.router.layer.out_features)
            }
        }
    }
}

impl<L, V> FeedForward<L, V> {
    /// The same with something else for each layer and list of numbers.
    pub(super) fn try_map<M, W, E>(
        &self,
        layer: &impl Fn(&L) -> Result<M, E>,
        vector: &impl Fn(&V) -> Result<W, E>,
    ) -> Result<FeedForward<M, W>, E> {
        Ok(match self {
            Self::Dense(mlp) => FeedForward::Dense(mlp.try_map(layer, vector)?),
            Self::Experts(experts) => {
                FeedForward::Experts(Box::new(experts.try_map(layer, vector)?))
            }
        })
    }
}
