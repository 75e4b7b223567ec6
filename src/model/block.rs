//! A decoder block as data: what is computed, in which order, from which tensors.
//!
//! The types are generic over what stands for a linear layer, for a norm and for a list of numbers. As read from a model
//! these are the names of their tensors, [`Linear`], [`NormTensors`] and [`Vector`]; loaded by a device, they are its
//! weights. Everything else, such as the number of heads, goes along unchanged, so that the code that runs a block reads it
//! from the same place.

use super::experts::Experts;
use super::latent::LatentProjections;
use super::mlp::Mlp;
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

/// A tensor that is a list of numbers, which the host computes with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vector {
    pub(crate) tensor: String,
    pub(crate) len: usize,
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
    /// From one of them to the next that is this layer's: 2 where two layers take turns.
    pub(crate) feature_step: usize,
    /// Which of several matrices, where the tensor has three dimensions and the first counts them.
    pub(crate) slice: Option<Slice>,
}

/// One matrix of a tensor with several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Slice {
    pub(crate) index: usize,
    pub(crate) count: usize,
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
            feature_step: 1,
            slice: None,
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
    pub(super) fn stored_shape(&self) -> Vec<usize> {
        let matrices = self.slice.map(|slice| slice.count);
        let [first, last] = match self.layout {
            Layout::OutIn => [self.stored_features, self.in_features],
            Layout::InOut => [self.in_features, self.stored_features],
        };
        matrices.into_iter().chain([first, last]).collect()
    }

    /// The shape of the tensor that its bias is stored in.
    pub(super) fn stored_bias_shape(&self) -> Vec<usize> {
        let matrices = self.slice.map(|slice| slice.count);
        matrices.into_iter().chain([self.stored_features]).collect()
    }
}

/// How queries, keys and values come out of the hidden state.
#[derive(Clone, Debug)]
pub(crate) enum Projections<L, N = NormTensors> {
    /// A layer each: queries, keys, values.
    Separate([L; 3]),
    /// One layer, whose output features go head by head: its query, its key, its value.
    Interleaved(L),
    /// By way of narrow vectors.
    Latent(Box<LatentProjections<L, N>>),
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

impl<L, N> Projections<L, N> {
    /// The layers that read the hidden state.
    pub(crate) fn layers(&self) -> Vec<&L> {
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
pub(crate) struct SelfAttention<L, N, V = Vector> {
    pub(crate) heads: HeadCounts,
    pub(crate) projections: Projections<L, N>,
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
    /// Of each query head, the score of a key that every query sees and that has no value.
    pub(crate) sinks: Option<V>,
    /// From what the heads found back to the residual stream.
    pub(crate) output: L,
}

/// The feed-forward part.
#[derive(Clone, Debug)]
pub(crate) enum FeedForward<L, V = Vector> {
    /// The same layers for every token.
    Dense(Mlp<L>),
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
pub(crate) struct DecoderBlock<L = Linear, N = NormTensors, V = Vector> {
    pub(crate) order: BlockOrder,
    /// Of what attention reads.
    pub(crate) attention_norm: Option<N>,
    pub(crate) attention: SelfAttention<L, N, V>,
    /// Of what attention adds to the residual stream.
    pub(crate) attention_post_norm: Option<N>,
    /// Of what the feed-forward part reads.
    pub(crate) mlp_norm: Option<N>,
    pub(crate) mlp: FeedForward<L, V>,
    /// Of what the feed-forward part adds to the residual stream.
    pub(crate) mlp_post_norm: Option<N>,
    /// What both halves are multiplied by before they are added.
    pub(crate) residual_scale: f32,
}

impl<L, N, V> SelfAttention<L, N, V> {
    /// Attention to all tokens before, in which nothing is clipped, capped or normalised.
    pub(super) fn plain(
        heads: HeadCounts,
        projections: Projections<L, N>,
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
            sinks: None,
            output,
        }
    }
}

impl<L, N, V> DecoderBlock<L, N, V> {
    /// A block that normalises what its halves read, and not what they add.
    pub(super) fn plain(
        order: BlockOrder,
        (attention_norm, attention): (N, SelfAttention<L, N, V>),
        (mlp_norm, mlp): (Option<N>, FeedForward<L, V>),
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

impl<L, N, V> DecoderBlock<L, N, V> {
    /// The same block with something else for each layer, norm and list of numbers, in the order in which they are computed.
    pub(crate) fn try_map<M, K, W, E>(
        &self,
        layer: impl Fn(&L) -> Result<M, E>,
        norm: impl Fn(&N) -> Result<K, E>,
        vector: impl Fn(&V) -> Result<W, E>,
    ) -> Result<DecoderBlock<M, K, W>, E> {
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
                    Projections::Latent(latent) => {
                        Projections::Latent(Box::new(latent.try_map(&layer, &norm)?))
                    }
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
                sinks: attention.sinks.as_ref().map(&vector).transpose()?,
                output: layer(&attention.output)?,
            },
            attention_post_norm: optional(attention_post_norm)?,
            mlp_norm: optional(mlp_norm)?,
            mlp: match mlp {
                FeedForward::Dense(mlp) => FeedForward::Dense(mlp.try_map(&layer)?),
                FeedForward::Experts(experts) => {
                    FeedForward::Experts(Box::new(experts.try_map(&layer, &vector)?))
                }
            },
            mlp_post_norm: optional(mlp_post_norm)?,
            residual_scale: *residual_scale,
        })
    }
}

/// What some layers of a block read.
#[derive(Debug)]
pub(crate) struct BlockInput<'a> {
    /// What it is, in words.
    pub(crate) label: String,
    pub(crate) layers: Vec<&'a Linear>,
    /// The expert that reads it, which sees only some of the tokens.
    pub(crate) expert: Option<usize>,
}

impl<L, N, V> DecoderBlock<L, N, V> {
    /// Whether both halves read one normalised input.
    pub(crate) fn shares_input(&self) -> bool {
        self.order == BlockOrder::Parallel && self.mlp_norm.is_none()
    }
}

impl DecoderBlock {
    /// The distinct inputs of the layers that are pruned, in the order in which `forward/block.rs` comes to them.
    pub(crate) fn inputs(&self) -> Vec<BlockInput<'_>> {
        let Self { attention, mlp, .. } = self;
        let input = |label: &str, layers| BlockInput {
            label: label.to_owned(),
            layers,
            expert: None,
        };
        let mut projections = attention.projections.layers();
        let shared = self.shares_input().then_some(mlp);
        let mut inputs = vec![match shared {
            Some(FeedForward::Dense(mlp)) => {
                projections.extend(mlp.first_layers());
                input("attention and mlp", projections)
            }
            _ => input("attention", projections),
        }];
        if let Projections::Latent(latent) = &attention.projections {
            if let Some(query) = latent.query.of_latent() {
                inputs.push(input("query latent", vec![query]));
            }
            inputs.push(input("key and value latent", vec![&latent.expansion]));
        }
        inputs.push(input("attention output", vec![&attention.output]));
        match mlp {
            FeedForward::Dense(mlp) => {
                if shared.is_none() {
                    inputs.push(input("mlp", mlp.first_layers().collect()));
                }
                inputs.push(input("mlp output", vec![&mlp.down]));
            }
            FeedForward::Experts(experts) => {
                if let Some(shared) = &experts.shared {
                    let layers = shared.mlp.first_layers().collect();
                    inputs.push(input("shared experts", layers));
                    inputs.push(input("shared experts output", vec![&shared.mlp.down]));
                }
                for (expert, mlp) in experts.experts.iter().enumerate() {
                    let of_expert = |what: &str, layers| BlockInput {
                        expert: Some(expert),
                        ..input(&format!("expert {expert}{what}"), layers)
                    };
                    inputs.push(of_expert("", mlp.first_layers().collect()));
                    inputs.push(of_expert(" output", vec![&mlp.down]));
                }
            }
        }
        inputs
    }
}
