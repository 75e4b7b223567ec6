//! The feed-forward part of a block as data.

use super::experts::Experts;
use super::mlp::Mlp;
use super::parts::{Loader, Named, Parts};

/// The feed-forward part.
#[derive(Clone, Debug)]
pub(crate) enum FeedForward<P: Parts = Named> {
    /// The same layers for every token.
    Dense(Mlp<P>),
    /// Some of many, chosen for each token.
    Experts(Box<Experts<P>>),
}

impl FeedForward {
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

    /// The same with other parts.
    pub(super) fn load<L: Loader>(
        &self,
        loader: &mut L,
    ) -> Result<FeedForward<L::Parts>, L::Error> {
        Ok(match self {
            Self::Dense(mlp) => FeedForward::Dense(mlp.load(loader)?),
            Self::Experts(experts) => FeedForward::Experts(Box::new(experts.load(loader)?)),
        })
    }
}
