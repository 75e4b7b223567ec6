//! A decoder block as data: what is computed, in which order, from which tensors.
//!
//! The types are generic over what stands for a linear layer and for a norm. As read from a model these are the names of
//! their tensors, [`Linear`] and [`NormTensors`]; loaded by a device, they are its weights. Everything else, such as the
//! number of heads, goes along unchanged, so that the code that runs a block reads it from the same place.

use super::activation::Activation;
use super::position::Position;
use crate::targets::Layout;

/// How a hidden state is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// By its root mean square (arXiv 1910.07467); one weight a feature.
    Rms,
    /// By its mean and deviation (arXiv 1607.06450); a weight and a bias a feature.
    Layer,
}

/// A norm: the names of its tensors, all `[features]`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormTensors {
    pub(crate) kind: NormKind,
    /// The factors.
    pub(crate) weight: String,
    /// The summands of [`NormKind::Layer`].
    pub(crate) bias: Option<String>,
    pub(crate) features: usize,
    /// What is added to the variance.
    pub(crate) epsilon: f64,
}

/// A linear layer, `x W^T + b`, and where its weights are stored: its own tensor, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Linear {
    pub(crate) in_features: usize,
    pub(crate) out_features: usize,
    /// The tensor with its weights.
    pub(crate) weight: String,
    /// The tensor with its bias.
    pub(crate) bias: Option<String>,
    /// Which way the tensor lies.
    pub(crate) layout: Layout,
    /// Output features of the whole tensor: more than `out_features` where several layers are stored as one.
    pub(crate) stored_features: usize,
    /// The first of them that is this layer's, of the weights and of the bias.
    pub(crate) first_feature: usize,
}

impl Linear {
    /// A layer with a tensor of its own, `[out_features, in_features]`.
    pub(super) fn of_its_own(
        weight: String,
        bias: Option<String>,
        [out_features, in_features]: [usize; 2],
    ) -> Self {
        Self {
            in_features,
            out_features,
            weight,
            bias,
            layout: Layout::OutIn,
            stored_features: out_features,
            first_feature: 0,
        }
    }

    /// The shape of the tensor that it is stored in.
    pub(super) fn stored_shape(&self) -> [usize; 2] {
        match self.layout {
            Layout::OutIn => [self.stored_features, self.in_features],
            Layout::InOut => [self.in_features, self.stored_features],
        }
    }
}

/// How queries, keys and values come out of the hidden state.
#[derive(Clone, Debug)]
pub(crate) enum Projections<L> {
    /// A layer each: queries, keys, values.
    Separate([L; 3]),
    /// One layer, whose output features go head by head: its query, its key, its value.
    Interleaved(L),
    /// For each key head three layers: all queries that it serves, its key, its value.
    Grouped(Vec<L>),
}

impl Projections<Linear> {
    /// One stored tensor whose output features are all queries, then all keys, then all values.
    pub(super) fn one_after_the_other(all: Linear, heads: HeadCounts) -> Self {
        let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
        let part = |first, out_features| Linear {
            out_features,
            first_feature: all.first_feature + first,
            ..all.clone()
        };
        Self::Separate([
            part(0, queries),
            part(queries, keys),
            part(queries + keys, keys),
        ])
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

impl<L> Projections<L> {
    /// The layers, all of which read the same input.
    pub(crate) fn layers(&self) -> &[L] {
        match self {
            Self::Separate(layers) => layers,
            Self::Interleaved(layer) => std::slice::from_ref(layer),
            Self::Grouped(layers) => layers,
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

/// Causal attention.
#[derive(Clone, Debug)]
pub(crate) struct SelfAttention<L, N> {
    pub(crate) heads: HeadCounts,
    pub(crate) projections: Projections<L>,
    /// Norms of each head of the queries and of the keys, before they turn.
    pub(crate) head_norms: Option<[N; 2]>,
    /// How queries and keys know their place.
    pub(crate) position: Position,
    /// What the product of a query and a key is multiplied by.
    pub(crate) scale: f32,
    /// How many tokens back a query sees, itself included; none where it sees all of them.
    pub(crate) window: Option<usize>,
    /// From what the heads found back to the residual stream.
    pub(crate) output: L,
}

/// The feed-forward part: `down(act(gate(x)) * up(x))`, or `down(act(up(x)))` without a gate.
#[derive(Clone, Debug)]
pub(crate) struct FeedForward<L> {
    pub(crate) activation: Activation,
    pub(crate) gate: Option<L>,
    pub(crate) up: L,
    pub(crate) down: L,
}

/// How attention and the feed-forward part are joined to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockOrder {
    /// The feed-forward part reads what attention left.
    Sequential,
    /// Both read what came into the block.
    Parallel,
}

/// A decoder block.
#[derive(Clone, Debug)]
pub(crate) struct DecoderBlock<L = Linear, N = NormTensors> {
    pub(crate) order: BlockOrder,
    pub(crate) attention_norm: N,
    pub(crate) attention: SelfAttention<L, N>,
    pub(crate) mlp_norm: N,
    pub(crate) mlp: FeedForward<L>,
}

impl<L, N> DecoderBlock<L, N> {
    /// The same block with something else for each layer and norm, in the order in which they are computed.
    pub(crate) fn try_map<M, K, E>(
        &self,
        layer: impl Fn(&L) -> Result<M, E>,
        norm: impl Fn(&N) -> Result<K, E>,
    ) -> Result<DecoderBlock<M, K>, E> {
        let Self {
            order,
            attention_norm,
            attention,
            mlp_norm,
            mlp,
        } = self;
        Ok(DecoderBlock {
            order: *order,
            attention_norm: norm(attention_norm)?,
            attention: SelfAttention {
                heads: attention.heads,
                projections: match &attention.projections {
                    Projections::Separate([q, k, v]) => {
                        Projections::Separate([layer(q)?, layer(k)?, layer(v)?])
                    }
                    Projections::Interleaved(all) => Projections::Interleaved(layer(all)?),
                    Projections::Grouped(layers) => {
                        Projections::Grouped(layers.iter().map(&layer).collect::<Result<_, _>>()?)
                    }
                },
                head_norms: match &attention.head_norms {
                    Some([q, k]) => Some([norm(q)?, norm(k)?]),
                    None => None,
                },
                position: attention.position,
                scale: attention.scale,
                window: attention.window,
                output: layer(&attention.output)?,
            },
            mlp_norm: norm(mlp_norm)?,
            mlp: FeedForward {
                activation: mlp.activation,
                gate: mlp.gate.as_ref().map(&layer).transpose()?,
                up: layer(&mlp.up)?,
                down: layer(&mlp.down)?,
            },
        })
    }
}

impl DecoderBlock {
    /// The distinct inputs of its layers, each with a label and the layers that read it, in the order in which
    /// `forward/block.rs` comes to them.
    pub(crate) fn inputs(&self) -> Vec<(&'static str, Vec<&Linear>)> {
        let Self { attention, mlp, .. } = self;
        vec![
            ("attention", attention.projections.layers().iter().collect()),
            ("attention output", vec![&attention.output]),
            ("mlp", mlp.gate.iter().chain([&mlp.up]).collect()),
            ("mlp output", vec![&mlp.down]),
        ]
    }
}
