//! Causal attention as data.

use super::latent::LatentProjections;
use super::parts::{Loader, Named, Parts};
use super::tensors::Linear;

/// How queries, keys and values come out of the hidden state.
#[derive(Clone, Debug)]
pub(crate) enum Projections<P: Parts = Named> {
    /// A layer each: queries, keys, values.
    Separate([P::Linear; 3]),
    /// One layer, whose output features go head by head: its query, its key, its value.
    Interleaved(P::Linear),
    /// By way of narrow vectors.
    Latent(Box<LatentProjections<P>>),
    /// For each key head three layers: all queries that it serves, its key, its value.
    Grouped(Vec<P::Linear>),
}

impl Projections {
    /// One stored tensor whose output features are all queries, then all keys, then all values.
    pub(super) fn one_after_the_other(all: Linear, heads: HeadCounts) -> Self {
        let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
        Self::Separate(all.split([queries, keys, keys]))
    }

    /// One stored tensor whose output features go by key head: all queries that it serves, its key, its value.
    pub(super) fn by_key_head(all: &Linear, heads: HeadCounts) -> Self {
        let queries = heads.queries / heads.keys * heads.features;
        let of_head = |head: usize| {
            let first = head * (queries + 2 * heads.features);
            let parts = [
                (0, queries),
                (queries, heads.features),
                (queries + heads.features, heads.features),
            ];
            parts.map(|(at, out_features)| Linear {
                out_features,
                first_feature: all.first_feature + first + at,
                ..all.clone()
            })
        };
        Self::Grouped((0..heads.keys).flat_map(of_head).collect())
    }
}

impl<P: Parts> Projections<P> {
    /// The layers that read the hidden state.
    pub(crate) fn layers(&self) -> Vec<&P::Linear> {
        match self {
            Self::Separate(layers) => layers.iter().collect(),
            Self::Interleaved(layer) => vec![layer],
            Self::Latent(latent) => latent.first_layers(),
            Self::Grouped(layers) => layers.iter().collect(),
        }
    }
}

/// Heads, and how wide each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadCounts {
    /// Query heads.
    pub(crate) queries: usize,
    /// Key heads, and as many value heads; each serves `queries / keys` query heads.
    pub(crate) keys: usize,
    /// Features of a head.
    pub(crate) features: usize,
}

/// How queries and keys know their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// Not at all (nope): the hidden state has it from an embedding, or nothing has.
    None,
    /// Rope, in the way of this index in the architecture's list.
    Rotary(usize),
    /// Each head prefers what is near, by the architecture's slopes.
    Alibi,
}

/// Over what a norm of heads goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormedWidth {
    /// Each head for itself.
    Head,
    /// All heads of the queries together, and all of the keys.
    AllHeads,
}

/// Norms of the queries and of the keys.
#[derive(Clone, Debug)]
pub(crate) struct HeadNorms<N> {
    /// Of the queries, of the keys.
    pub(crate) norms: [N; 2],
    pub(crate) width: NormedWidth,
    /// After rope; before, otherwise.
    pub(crate) after_rotation: bool,
}

/// Causal attention.
#[derive(Clone, Debug)]
pub(crate) struct SelfAttention<P: Parts = Named> {
    pub(crate) heads: HeadCounts,
    pub(crate) projections: Projections<P>,
    /// The largest that a feature of a query, key or value may be, and its negative the smallest.
    pub(crate) clip: Option<f32>,
    pub(crate) head_norms: Option<HeadNorms<P::Norm>>,
    /// How queries and keys know their place.
    pub(crate) position: Position,
    /// What the product of a query and a key is multiplied by.
    pub(crate) scale: f32,
    /// What the products so scaled are kept within: `cap tanh(s / cap)`.
    pub(crate) soft_cap: Option<f32>,
    /// How many tokens back a query sees, itself included; none where it sees all of them.
    pub(crate) window: Option<usize>,
    /// Tokens of a chunk, beyond whose first one no query of it sees.
    pub(crate) chunk: Option<usize>,
    /// How much more sharply later queries choose.
    pub(crate) temperature: Option<QueryTemperature>,
    /// Of each query head, the score of a key that every query sees and that has no value.
    pub(crate) sinks: Option<P::Vector>,
    /// The output gate: the attention output is multiplied by the sigmoid of what it gives.
    pub(crate) gate: Option<P::Linear>,
    /// From the attention output back to the residual stream.
    pub(crate) output: P::Linear,
}

/// How far back queries see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reach {
    window: usize,
    chunk: usize,
}

impl Reach {
    /// The first token that a query sees.
    pub(crate) fn first_seen(self, query: usize) -> usize {
        let of_window = (query + 1).saturating_sub(self.window);
        of_window.max(query / self.chunk * self.chunk)
    }
}

/// The query of token `t`, counted from 1, is multiplied by `1 + strength ln(1 + floor(t / period))` (arXiv 2501.19399).
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct QueryTemperature {
    pub(crate) strength: f32,
    pub(crate) period: usize,
}

impl QueryTemperature {
    /// The factor of the query at this place, counted from 0.
    pub(crate) fn factor(self, query: usize) -> f32 {
        let periods = ((query + 1) / self.period) as f64;
        (1.0 + f64::from(self.strength) * periods.ln_1p()) as f32
    }
}

impl<P: Parts> SelfAttention<P> {
    /// Attention to all tokens before, in which nothing is clipped, capped or normalised.
    pub(super) fn plain(
        heads: HeadCounts,
        projections: Projections<P>,
        position: Position,
        output: P::Linear,
    ) -> Self {
        Self {
            heads,
            projections,
            clip: None,
            head_norms: None,
            position,
            scale: (heads.features as f32).powf(-0.5),
            soft_cap: None,
            window: None,
            chunk: None,
            temperature: None,
            sinks: None,
            gate: None,
            output,
        }
    }
}

impl<P: Parts> SelfAttention<P> {
    /// Features of the widest of a head's query, key and value.
    pub(crate) fn widest_head(&self) -> usize {
        match &self.projections {
            Projections::Latent(latent) => self.heads.features.max(latent.widths.value),
            _ => self.heads.features,
        }
    }

    /// How far back queries see.
    pub(crate) fn reach(&self) -> Reach {
        Reach {
            window: self.window.unwrap_or(usize::MAX),
            chunk: self.chunk.unwrap_or(usize::MAX),
        }
    }
}

impl SelfAttention {
    /// The same with other parts.
    pub(super) fn load<L: Loader>(
        &self,
        loader: &mut L,
    ) -> Result<SelfAttention<L::Parts>, L::Error> {
        let projections = match &self.projections {
            Projections::Separate([q, k, v]) => {
                Projections::Separate([loader.linear(q)?, loader.linear(k)?, loader.linear(v)?])
            }
            Projections::Interleaved(all) => Projections::Interleaved(loader.linear(all)?),
            Projections::Latent(latent) => Projections::Latent(Box::new(latent.load(loader)?)),
            Projections::Grouped(layers) => {
                let layers = layers.iter().map(|layer| loader.linear(layer));
                Projections::Grouped(layers.collect::<Result<_, _>>()?)
            }
        };
        let head_norms = match &self.head_norms {
            Some(heads) => Some(HeadNorms {
                norms: [loader.norm(&heads.norms[0])?, loader.norm(&heads.norms[1])?],
                width: heads.width,
                after_rotation: heads.after_rotation,
            }),
            None => None,
        };
        let (sinks, gate) = (self.sinks.as_ref(), self.gate.as_ref());
        Ok(SelfAttention {
            heads: self.heads,
            projections,
            clip: self.clip,
            head_norms,
            position: self.position,
            scale: self.scale,
            soft_cap: self.soft_cap,
            window: self.window,
            chunk: self.chunk,
            temperature: self.temperature,
            sinks: sinks.map(|sinks| loader.vector(sinks)).transpose()?,
            gate: gate.map(|gate| loader.linear(gate)).transpose()?,
            output: loader.linear(&self.output)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{LatentProjections, LatentQuery, LatentWidths};

    /// Attention by latent projections, whose layers and norms do not matter.
    fn latent(value: usize) -> SelfAttention<()> {
        let widths = LatentWidths {
            heads: 4,
            rope: 64,
            nope: 128,
            value,
        };
        let projections = LatentProjections {
            widths,
            query: LatentQuery::Direct(()),
            compression: (),
            compression_norm: (),
            rope_key: (),
            expansion: (),
        };
        let heads = HeadCounts {
            queries: 4,
            keys: 4,
            features: 192,
        };
        SelfAttention::plain(
            heads,
            Projections::Latent(Box::new(projections)),
            Position::None,
            (),
        )
    }

    #[test]
    fn a_head_is_as_wide_as_the_widest_of_its_query_key_and_value() {
        assert_eq!(latent(128).widest_head(), 192);
        assert_eq!(latent(512).widest_head(), 512);
    }
}
