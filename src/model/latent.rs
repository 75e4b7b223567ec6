//! Multi-head latent attention (arXiv 2405.04434) as data: queries, keys and values out of narrow vectors.
//!
//! ```text
//! q = query(x), or up(norm(down(x)));  c = norm(compression(x));  k, v = expansion(c), head by head;  r = rope_key(x)
//! ```
//!
//! Of a query, one part has rope and one has none (nope); so of a key, whose rope part, `r`, all heads share.

use super::parts::{Loader, Named, Parts};

/// From the hidden state to queries, keys and values.
#[derive(Clone, Debug)]
pub(crate) struct LatentProjections<P: Parts = Named> {
    pub(crate) widths: LatentWidths,
    pub(crate) query: LatentQuery<P>,
    /// To the vector that keys and values come from.
    pub(crate) compression: P::Linear,
    pub(crate) compression_norm: P::Norm,
    /// To the rope part of the key.
    pub(crate) rope_key: P::Linear,
    /// To each head's key, its nope part, and its value.
    pub(crate) expansion: P::Linear,
}

/// Where queries come from; of each head, the nope part first.
#[derive(Clone, Debug)]
pub(crate) enum LatentQuery<P: Parts> {
    /// The hidden state.
    Direct(P::Linear),
    /// A narrow vector, normalised.
    Latent {
        down: P::Linear,
        norm: P::Norm,
        up: P::Linear,
    },
}

/// Features of each head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LatentWidths {
    pub(crate) heads: usize,
    /// Of queries and keys, those with rope.
    pub(crate) rope: usize,
    /// Of queries and keys, those without (nope).
    pub(crate) nope: usize,
    pub(crate) value: usize,
}

impl<P: Parts> LatentQuery<P> {
    /// The layer that reads the narrow vector, if there is one.
    pub(crate) fn of_latent(&self) -> Option<&P::Linear> {
        match self {
            Self::Direct(_) => None,
            Self::Latent { up, .. } => Some(up),
        }
    }
}

impl<P: Parts> LatentProjections<P> {
    /// The layers that read the hidden state.
    pub(super) fn first_layers(&self) -> Vec<&P::Linear> {
        let query = match &self.query {
            LatentQuery::Direct(query) => query,
            LatentQuery::Latent { down, .. } => down,
        };
        vec![query, &self.compression, &self.rope_key]
    }
}

impl LatentProjections {
    /// The same with other parts.
    pub(super) fn load<L: Loader>(
        &self,
        loader: &mut L,
    ) -> Result<LatentProjections<L::Parts>, L::Error> {
        let query = match &self.query {
            LatentQuery::Direct(query) => LatentQuery::Direct(loader.linear(query)?),
            LatentQuery::Latent { down, norm, up } => LatentQuery::Latent {
                down: loader.linear(down)?,
                norm: loader.norm(norm)?,
                up: loader.linear(up)?,
            },
        };
        Ok(LatentProjections {
            widths: self.widths,
            query,
            compression: loader.linear(&self.compression)?,
            compression_norm: loader.norm(&self.compression_norm)?,
            rope_key: loader.linear(&self.rope_key)?,
            expansion: loader.linear(&self.expansion)?,
        })
    }
}
