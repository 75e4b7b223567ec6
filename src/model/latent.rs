//! Multi-head latent attention (arXiv 2405.04434) as data: queries, keys and values out of narrow vectors.
//!
//! ```text
//! q = query(x), or up(norm(down(x)));  c = norm(compression(x));  k, v = expansion(c), head by head;  r = rope_key(x)
//! ```
//!
//! Of a query, one part has rope and one has none (nope); so of a key, whose rope part, `r`, all heads share.

/// From the hidden state to queries, keys and values.
#[derive(Clone, Debug)]
pub(crate) struct LatentProjections<L, N> {
    pub(crate) widths: LatentWidths,
    pub(crate) query: LatentQuery<L, N>,
    /// To the vector that keys and values come from.
    pub(crate) compression: L,
    pub(crate) compression_norm: N,
    /// To the rope part of the key.
    pub(crate) rope_key: L,
    /// To each head's key, its nope part, and its value.
    pub(crate) expansion: L,
}

/// Where queries come from; of each head, the nope part first.
#[derive(Clone, Debug)]
pub(crate) enum LatentQuery<L, N> {
    /// The hidden state.
    Direct(L),
    /// A narrow vector, normalised.
    Latent { down: L, norm: N, up: L },
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

impl<L, N> LatentQuery<L, N> {
    /// The layer that reads the narrow vector, if there is one.
    pub(crate) fn of_latent(&self) -> Option<&L> {
        match self {
            Self::Direct(_) => None,
            Self::Latent { up, .. } => Some(up),
        }
    }
}

impl<L, N> LatentProjections<L, N> {
    /// The layers that read the hidden state.
    pub(super) fn first_layers(&self) -> Vec<&L> {
        let query = match &self.query {
            LatentQuery::Direct(query) => query,
            LatentQuery::Latent { down, .. } => down,
        };
        vec![query, &self.compression, &self.rope_key]
    }

    /// The same with something else for each layer and norm.
    pub(super) fn try_map<M, K, E>(
        &self,
        layer: &impl Fn(&L) -> Result<M, E>,
        norm: &impl Fn(&N) -> Result<K, E>,
    ) -> Result<LatentProjections<M, K>, E> {
        let query = match &self.query {
            LatentQuery::Direct(query) => LatentQuery::Direct(layer(query)?),
            LatentQuery::Latent { down, norm: n, up } => LatentQuery::Latent {
                down: layer(down)?,
                norm: norm(n)?,
                up: layer(up)?,
            },
        };
        Ok(LatentProjections {
            widths: self.widths,
            query,
            compression: layer(&self.compression)?,
            compression_norm: norm(&self.compression_norm)?,
            rope_key: layer(&self.rope_key)?,
            expansion: layer(&self.expansion)?,
        })
    }
}
