//! A decoder block as data: what is computed, in which order, from which tensors.
//!
//! The types are generic over what stands for a linear layer, for a norm and for a list of numbers. As read from a model
//! these are the names of their tensors, [`Linear`], [`NormTensors`] and [`Vector`]; loaded by a device, they are its
//! weights. Everything else, such as the number of heads, goes along unchanged, so that the code that runs a block reads it
//! from the same place.

use super::attention::{Projections, SelfAttention};
use super::feed_forward::FeedForward;
use super::recurrence::{Recurrence, Ssm};
use super::tensors::{Linear, NormTensors, Vector};

/// How what mixes tokens and the feed-forward part are joined to the residual stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockOrder {
    /// The feed-forward part reads what came out of the first half.
    Sequential,
    /// Both read what came into the block: the same normalised input where the feed-forward part has no norm of its own.
    Parallel,
}

/// Token mixing.
#[derive(Clone, Debug)]
pub(crate) struct Mixer<L = Linear, N = NormTensors, V = Vector> {
    /// What its input is multiplied by.
    pub(crate) input_scale: f32,
    pub(crate) kind: MixerKind<L, N, V>,
}

/// The kinds of them.
#[derive(Clone, Debug)]
pub(crate) enum MixerKind<L, N, V> {
    Attention(Box<SelfAttention<L, N, V>>),
    Recurrence(Box<Recurrence<L, N, V>>),
}

/// A decoder block.
#[derive(Clone, Debug)]
pub(crate) struct DecoderBlock<L = Linear, N = NormTensors, V = Vector> {
    pub(crate) order: BlockOrder,
    /// Of what the mixers read.
    pub(crate) mixer_norm: Option<N>,
    /// One, or several that read the same and whose outputs are added.
    pub(crate) mixers: Vec<Mixer<L, N, V>>,
    /// Of what a mixer adds to the residual stream.
    pub(crate) mixer_post_norm: Option<N>,
    /// Of what the feed-forward part reads.
    pub(crate) mlp_norm: Option<N>,
    /// The feed-forward part, in a block that has one.
    pub(crate) mlp: Option<FeedForward<L, V>>,
    /// Of what the feed-forward part adds to the residual stream.
    pub(crate) mlp_post_norm: Option<N>,
    /// What both halves are multiplied by before they are added.
    pub(crate) residual_scale: f32,
    /// Whether each half is added to what it read, normalised, and not to what came into it.
    pub(crate) adds_to_normed: bool,
}

impl<L, N, V> From<SelfAttention<L, N, V>> for Mixer<L, N, V> {
    fn from(attention: SelfAttention<L, N, V>) -> Self {
        Self {
            input_scale: 1.0,
            kind: MixerKind::Attention(Box::new(attention)),
        }
    }
}

impl<L, N, V> From<Recurrence<L, N, V>> for Mixer<L, N, V> {
    fn from(recurrence: Recurrence<L, N, V>) -> Self {
        Self {
            input_scale: 1.0,
            kind: MixerKind::Recurrence(Box::new(recurrence)),
        }
    }
}

impl<L, N, V> Mixer<L, N, V> {
    /// The layer that leads back to the residual stream.
    pub(crate) fn output(&self) -> &L {
        match &self.kind {
            MixerKind::Attention(attention) => &attention.output,
            MixerKind::Recurrence(recurrence) => &recurrence.output,
        }
    }
}

impl<L, N, V> DecoderBlock<L, N, V> {
    /// A block that normalises what its halves read, and not what they add.
    pub(super) fn plain(
        order: BlockOrder,
        (mixer_norm, mixer): (N, impl Into<Mixer<L, N, V>>),
        (mlp_norm, mlp): (Option<N>, FeedForward<L, V>),
    ) -> Self {
        Self {
            order,
            mixer_norm: Some(mixer_norm),
            mixers: vec![mixer.into()],
            mixer_post_norm: None,
            mlp_norm,
            mlp: Some(mlp),
            mlp_post_norm: None,
            residual_scale: 1.0,
            adds_to_normed: false,
        }
    }

    /// The attention there is in it, to be changed.
    pub(crate) fn attentions_mut(&mut self) -> impl Iterator<Item = &mut SelfAttention<L, N, V>> {
        let mixers = self.mixers.iter_mut();
        mixers.filter_map(|mixer| match &mut mixer.kind {
            MixerKind::Attention(attention) => Some(&mut **attention),
            MixerKind::Recurrence(_) => None,
        })
    }

    /// Whether both halves read one normalised input.
    pub(crate) fn shares_input(&self) -> bool {
        self.order == BlockOrder::Parallel && self.mlp_norm.is_none()
    }

    /// The same block with something else for each layer, norm and list of numbers, in the order in which they are computed.
    pub(crate) fn try_map<M, K, W, E>(
        &self,
        layer: impl Fn(&L) -> Result<M, E>,
        norm: impl Fn(&N) -> Result<K, E>,
        vector: impl Fn(&V) -> Result<W, E>,
    ) -> Result<DecoderBlock<M, K, W>, E> {
        let optional = |of: &Option<N>| of.as_ref().map(&norm).transpose();
        let mixer = |mixer: &Mixer<L, N, V>| -> Result<Mixer<M, K, W>, E> {
            Ok(match &mixer.kind {
                MixerKind::Attention(attention) => Mixer {
                    input_scale: mixer.input_scale,
                    ..attention.try_map(&layer, &norm, &vector)?.into()
                },
                MixerKind::Recurrence(recurrence) => Mixer {
                    input_scale: mixer.input_scale,
                    ..recurrence.try_map(&layer, &norm, &vector)?.into()
                },
            })
        };
        Ok(DecoderBlock {
            order: self.order,
            mixer_norm: optional(&self.mixer_norm)?,
            mixers: self.mixers.iter().map(mixer).collect::<Result<_, E>>()?,
            mixer_post_norm: optional(&self.mixer_post_norm)?,
            mlp_norm: optional(&self.mlp_norm)?,
            mlp: match &self.mlp {
                Some(mlp) => Some(mlp.try_map(&layer, &vector)?),
                None => None,
            },
            mlp_post_norm: optional(&self.mlp_post_norm)?,
            residual_scale: self.residual_scale,
            adds_to_normed: self.adds_to_normed,
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

impl<'a> BlockInput<'a> {
    fn of(label: &str, layers: Vec<&'a Linear>) -> Self {
        Self {
            label: label.to_owned(),
            layers,
            expert: None,
        }
    }
}

impl Mixer {
    /// The distinct inputs of its layers, in the order in which `forward/block.rs` comes to them.
    fn inputs(&self) -> Vec<BlockInput<'_>> {
        match &self.kind {
            MixerKind::Attention(attention) => {
                let mut layers = attention.projections.layers();
                layers.extend(&attention.gate);
                let mut inputs = vec![BlockInput::of("attention", layers)];
                if let Projections::Latent(latent) = &attention.projections {
                    if let Some(query) = latent.query.of_latent() {
                        inputs.push(BlockInput::of("query latent", vec![query]));
                    }
                    let expansion = vec![&latent.expansion];
                    inputs.push(BlockInput::of("key and value latent", expansion));
                }
                inputs.push(BlockInput::of("attention output", vec![&attention.output]));
                inputs
            }
            MixerKind::Recurrence(recurrence) => {
                let mut inputs = vec![BlockInput::of("mixer", recurrence.first_layers())];
                if let Ssm::SelectiveScan(ssm) = &recurrence.ssm {
                    let x_proj = ssm.x_proj.iter().collect();
                    inputs.push(BlockInput::of("time step, B and C", x_proj));
                    inputs.push(BlockInput::of("time step", vec![&ssm.time_step]));
                }
                inputs.push(BlockInput::of("mixer output", vec![&recurrence.output]));
                inputs
            }
        }
    }

    /// The most features that are alive at one time, roughly.
    pub(crate) fn widest(&self) -> usize {
        match &self.kind {
            MixerKind::Attention(attention) => {
                let heads = attention.heads;
                (heads.queries + 2 * heads.keys) * attention.widest_head()
            }
            MixerKind::Recurrence(recurrence) => recurrence.widest(),
        }
    }
}

impl DecoderBlock {
    /// The distinct inputs of the layers that are pruned, in the order in which `forward/block.rs` comes to them.
    pub(crate) fn inputs(&self) -> Vec<BlockInput<'_>> {
        let mut inputs: Vec<_> = self.mixers.iter().flat_map(Mixer::inputs).collect();
        let shared = self.shares_input();
        match &self.mlp {
            None => {}
            Some(FeedForward::Dense(mlp)) => {
                if shared {
                    inputs[0].label += " and mlp";
                    inputs[0].layers.extend(mlp.first_layers());
                } else {
                    inputs.push(BlockInput::of("mlp", mlp.first_layers().collect()));
                }
                inputs.push(BlockInput::of("mlp output", vec![&mlp.down]));
            }
            Some(FeedForward::Experts(experts)) => {
                if let Some(shared) = &experts.shared {
                    let layers = shared.mlp.first_layers().collect();
                    inputs.push(BlockInput::of("shared experts", layers));
                    let down = vec![&shared.mlp.down];
                    inputs.push(BlockInput::of("shared experts output", down));
                }
                for (expert, mlp) in experts.experts.iter().enumerate() {
                    let of_expert = |what: &str, layers| BlockInput {
                        expert: Some(expert),
                        ..BlockInput::of(&format!("expert {expert}{what}"), layers)
                    };
                    inputs.push(of_expert("", mlp.first_layers().collect()));
                    inputs.push(of_expert(" output", vec![&mlp.down]));
                }
            }
        }
        inputs
    }

    /// The most features that are alive at one time in one of its halves, roughly.
    pub(crate) fn widest(&self) -> usize {
        let mixers = self.mixers.iter().map(Mixer::widest);
        let mlp = self.mlp.as_ref().map(FeedForward::widest);
        mixers.chain(mlp).max().unwrap_or(0)
    }
}
