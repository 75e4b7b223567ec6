//! A decoder block as data: what is computed, in which order, from which tensors.
//!
//! The types are generic over what stands for a linear layer and for a norm. As read from a model these are the names of
//! their tensors, [`Linear`] and [`NormTensors`]; loaded by a device, they are its weights. Everything else, such as the
//! number of heads, goes along unchanged, so that the code that runs a block reads it from the same place.

use super::activation::Activation;
use crate::names::rules::Layout;

/// How a hidden state is normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NormKind {
    /// By its root mean square (arXiv 1910.07467); one weight a feature.
    Rms,
    /// By its mean and deviation (arXiv 1607.06450); a weight a feature, and perhaps a bias.
    Layer,
}

/// A norm: the names of its tensors.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NormTensors {
    pub(crate) kind: NormKind,
    /// The factors, `[features]`, or `[heads, features]` where each head has its own; none where they are all 1.
    pub(crate) weight: Option<String>,
    /// What the factors are more than the tensor says.
    pub(crate) weight_offset: f32,
    /// The summands of [`NormKind::Layer`], in the shape of the factors.
    pub(crate) bias: Option<String>,
    pub(crate) features: usize,
    /// Heads with factors of their own; 1 where there is one list for all.
    pub(crate) heads: usize,
    /// What is added to the variance.
    pub(crate) epsilon: f64,
}

impl NormTensors {
    /// A norm with one weight a feature and no bias, which is what most are.
    pub(super) fn plain(kind: NormKind, weight: String, features: usize, epsilon: f64) -> Self {
        Self {
            kind,
            weight: Some(weight),
            weight_offset: 0.0,
            bias: None,
            features,
            heads: 1,
            epsilon,
        }
    }

    /// The shape of its tensors.
    pub(super) fn stored_shape(&self) -> Vec<usize> {
        match self.heads {
            1 => vec![self.features],
            heads => vec![heads, self.features],
        }
    }
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

    /// The layers that it holds, one behind the other, by their output features.
    pub(super) fn split<const N: usize>(&self, features: [usize; N]) -> [Self; N] {
        let mut first_feature = self.first_feature;
        features.map(|out_features| {
            let part = Self {
                out_features,
                first_feature,
                ..self.clone()
            };
            first_feature += out_features;
            part
        })
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

/// How queries and keys know their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Position {
    /// They do not: the hidden state has it.
    None,
    /// They turn, in the way of this index in the architecture's list.
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
    /// After they turned; before, otherwise.
    pub(crate) after_rotation: bool,
}

/// Causal attention.
#[derive(Clone, Debug)]
pub(crate) struct SelfAttention<L, N> {
    pub(crate) heads: HeadCounts,
    pub(crate) projections: Projections<L>,
    /// The largest that a feature of a query, key or value may be, and its negative the smallest.
    pub(crate) clip: Option<f32>,
    pub(crate) head_norms: Option<HeadNorms<N>>,
    /// How queries and keys know their place.
    pub(crate) position: Position,
    /// What the product of a query and a key is multiplied by.
    pub(crate) scale: f32,
    /// What the products so scaled are kept within: `cap tanh(s / cap)`.
    pub(crate) soft_cap: Option<f32>,
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
    /// Both read what came into the block: the same normalised input where the feed-forward part has no norm of its own.
    Parallel,
}

/// A decoder block.
#[derive(Clone, Debug)]
pub(crate) struct DecoderBlock<L = Linear, N = NormTensors> {
    pub(crate) order: BlockOrder,
    /// Of what attention reads.
    pub(crate) attention_norm: Option<N>,
    pub(crate) attention: SelfAttention<L, N>,
    /// Of what attention adds to the residual stream.
    pub(crate) attention_post_norm: Option<N>,
    /// Of what the feed-forward part reads.
    pub(crate) mlp_norm: Option<N>,
    pub(crate) mlp: FeedForward<L>,
    /// Of what the feed-forward part adds to the residual stream.
    pub(crate) mlp_post_norm: Option<N>,
    /// What both halves are multiplied by before they are added.
    pub(crate) residual_scale: f32,
}

impl<L, N> SelfAttention<L, N> {
    /// Attention to all tokens before, in which nothing is clipped, capped or normalised.
    pub(super) fn plain(
        heads: HeadCounts,
        projections: Projections<L>,
        position: Position,
        output: L,
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
            output,
        }
    }
}

impl<L, N> DecoderBlock<L, N> {
    /// A block that normalises what its halves read, and not what they add.
    pub(super) fn plain(
        order: BlockOrder,
        (attention_norm, attention): (N, SelfAttention<L, N>),
        (mlp_norm, mlp): (Option<N>, FeedForward<L>),
    ) -> Self {
        Self {
            order,
            attention_norm: Some(attention_norm),
            attention,
            attention_post_norm: None,
            mlp_norm,
            mlp,
            mlp_post_norm: None,
            residual_scale: 1.0,
        }
    }
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
            attention_post_norm,
            mlp_norm,
            mlp,
            mlp_post_norm,
            residual_scale,
        } = self;
        let optional = |of: &Option<N>| of.as_ref().map(&norm).transpose();
        Ok(DecoderBlock {
            order: *order,
            attention_norm: optional(attention_norm)?,
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
                clip: attention.clip,
                head_norms: match &attention.head_norms {
                    Some(heads) => Some(HeadNorms {
                        norms: [norm(&heads.norms[0])?, norm(&heads.norms[1])?],
                        width: heads.width,
                        after_rotation: heads.after_rotation,
                    }),
                    None => None,
                },
                position: attention.position,
                scale: attention.scale,
                soft_cap: attention.soft_cap,
                window: attention.window,
                output: layer(&attention.output)?,
            },
            attention_post_norm: optional(attention_post_norm)?,
            mlp_norm: optional(mlp_norm)?,
            mlp: FeedForward {
                activation: mlp.activation,
                gate: mlp.gate.as_ref().map(&layer).transpose()?,
                up: layer(&mlp.up)?,
                down: layer(&mlp.down)?,
            },
            mlp_post_norm: optional(mlp_post_norm)?,
            residual_scale: *residual_scale,
        })
    }
}

impl<L, N> DecoderBlock<L, N> {
    /// Whether both halves read one normalised input.
    pub(crate) fn shares_input(&self) -> bool {
        self.order == BlockOrder::Parallel && self.mlp_norm.is_none()
    }
}

impl DecoderBlock {
    /// The distinct inputs of its layers, each with a label and the layers that read it, in the order in which
    /// `forward/block.rs` comes to them.
    pub(crate) fn inputs(&self) -> Vec<(&'static str, Vec<&Linear>)> {
        let Self { attention, mlp, .. } = self;
        let mut projections: Vec<&Linear> = attention.projections.layers().iter().collect();
        let widening = mlp.gate.iter().chain([&mlp.up]);
        let output = ("attention output", vec![&attention.output]);
        let down = ("mlp output", vec![&mlp.down]);
        if self.shares_input() {
            projections.extend(widening);
            return vec![("attention and mlp", projections), output, down];
        }
        let mlp = ("mlp", widening.collect());
        vec![("attention", projections), output, mlp, down]
    }
}
