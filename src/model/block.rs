//! A decoder block as data: what is computed, in which order, from which tensors.
//!
//! The types are generic over what stands for the parts with weights (`parts.rs`).

use super::attention::{Projections, SelfAttention};
use super::feed_forward::FeedForward;
use super::parts::{Loader, Named, Parts, Visit, Visitor};
use super::recurrence::{Recurrence, Ssm};
use super::tensors::{Linear, NormTensors};

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
pub(crate) struct Mixer<P: Parts = Named> {
    /// What its input is multiplied by.
    pub(crate) input_scale: f32,
    pub(crate) kind: MixerKind<P>,
}

/// The kinds of them.
#[derive(Clone, Debug)]
pub(crate) enum MixerKind<P: Parts> {
    Attention(Box<SelfAttention<P>>),
    Recurrence(Box<Recurrence<P>>),
}

/// A decoder block.
#[derive(Clone, Debug)]
pub(crate) struct DecoderBlock<P: Parts = Named> {
    pub(crate) order: BlockOrder,
    /// Of what the mixers read.
    pub(crate) mixer_norm: Option<P::Norm>,
    /// One, or several that read the same and whose outputs are added.
    pub(crate) mixers: Vec<Mixer<P>>,
    /// Of what a mixer adds to the residual stream.
    pub(crate) mixer_post_norm: Option<P::Norm>,
    /// Of what the feed-forward part reads.
    pub(crate) mlp_norm: Option<P::Norm>,
    /// The feed-forward part, in a block that has one.
    pub(crate) mlp: Option<FeedForward<P>>,
    /// Of what the feed-forward part adds to the residual stream.
    pub(crate) mlp_post_norm: Option<P::Norm>,
    /// What both halves are multiplied by before they are added.
    pub(crate) residual_scale: f32,
    /// Whether each half is added to what it read, normalised, and not to what came into it.
    pub(crate) adds_to_normed: bool,
}

impl<P: Parts> From<SelfAttention<P>> for Mixer<P> {
    fn from(attention: SelfAttention<P>) -> Self {
        Self {
            input_scale: 1.0,
            kind: MixerKind::Attention(Box::new(attention)),
        }
    }
}

impl<P: Parts> From<Recurrence<P>> for Mixer<P> {
    fn from(recurrence: Recurrence<P>) -> Self {
        Self {
            input_scale: 1.0,
            kind: MixerKind::Recurrence(Box::new(recurrence)),
        }
    }
}

impl<P: Parts> Mixer<P> {
    /// The layer that leads back to the residual stream.
    pub(crate) fn output(&self) -> &P::Linear {
        match &self.kind {
            MixerKind::Attention(attention) => &attention.output,
            MixerKind::Recurrence(recurrence) => &recurrence.output,
        }
    }
}

impl<P: Parts> DecoderBlock<P> {
    /// A block that normalises what its halves read, and not what they add.
    pub(super) fn plain(
        order: BlockOrder,
        (mixer_norm, mixer): (P::Norm, impl Into<Mixer<P>>),
        (mlp_norm, mlp): (Option<P::Norm>, FeedForward<P>),
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
    pub(crate) fn attentions_mut(&mut self) -> impl Iterator<Item = &mut SelfAttention<P>> {
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
}

impl DecoderBlock {
    /// The same block with other parts.
    pub(crate) fn load<L: Loader>(
        &self,
        loader: &mut L,
    ) -> Result<DecoderBlock<L::Parts>, L::Error> {
        let mixer_norm = optional(&self.mixer_norm, loader)?;
        let mixers = self.mixers.iter().map(|mixer| {
            Ok(Mixer {
                input_scale: mixer.input_scale,
                kind: match &mixer.kind {
                    MixerKind::Attention(of) => MixerKind::Attention(Box::new(of.load(loader)?)),
                    MixerKind::Recurrence(of) => MixerKind::Recurrence(Box::new(of.load(loader)?)),
                },
            })
        });
        Ok(DecoderBlock {
            order: self.order,
            mixer_norm,
            mixers: mixers.collect::<Result<_, _>>()?,
            mixer_post_norm: optional(&self.mixer_post_norm, loader)?,
            mlp_norm: optional(&self.mlp_norm, loader)?,
            mlp: self.mlp.as_ref().map(|mlp| mlp.load(loader)).transpose()?,
            mlp_post_norm: optional(&self.mlp_post_norm, loader)?,
            residual_scale: self.residual_scale,
            adds_to_normed: self.adds_to_normed,
        })
    }

    /// Has a visitor look at all of its tensors, in the order in which a block computes with them.
    pub(crate) fn visit<V: Visitor>(&self, visitor: &mut V) -> Result<(), V::Error> {
        self.load(&mut Visit(visitor)).map(|_| ())
    }
}

fn optional<L: Loader>(
    norm: &Option<NormTensors>,
    loader: &mut L,
) -> Result<Option<<L::Parts as Parts>::Norm>, L::Error> {
    norm.as_ref().map(|norm| loader.norm(norm)).transpose()
}

/// Which of a block's inputs: of a mixer by its number, of an expert by its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InputKind {
    Mixer(usize),
    QueryLatent(usize),
    KeyValueLatent(usize),
    /// Of a selective scan: the time step, B and C.
    XProj(usize),
    TimeStep(usize),
    MixerOutput(usize),
    Mlp,
    MlpOutput,
    SharedExperts,
    SharedExpertsOutput,
    Expert(usize),
    ExpertOutput(usize),
}

/// What some layers of a block read.
#[derive(Debug)]
pub(crate) struct BlockInput<'a> {
    pub(crate) kind: InputKind,
    /// What it is, in words.
    pub(crate) label: String,
    pub(crate) layers: Vec<&'a Linear>,
}

impl<'a> BlockInput<'a> {
    fn new(kind: InputKind, label: &str, layers: Vec<&'a Linear>) -> Self {
        Self {
            kind,
            label: label.to_owned(),
            layers,
        }
    }

    /// The expert that reads it, which sees only some of the tokens.
    pub(crate) fn expert(&self) -> Option<usize> {
        match self.kind {
            InputKind::Expert(expert) | InputKind::ExpertOutput(expert) => Some(expert),
            _ => None,
        }
    }
}

impl Mixer {
    /// The distinct inputs of the layers of a block's mixer of this number, in the order in which it comes to them.
    fn inputs(&self, number: usize) -> Vec<BlockInput<'_>> {
        match &self.kind {
            MixerKind::Attention(attention) => {
                let mut layers = attention.projections.layers();
                layers.extend(&attention.gate);
                let first = BlockInput::new(InputKind::Mixer(number), "attention", layers);
                let mut inputs = vec![first];
                if let Projections::Latent(latent) = &attention.projections {
                    if let Some(query) = latent.query.of_latent() {
                        let kind = InputKind::QueryLatent(number);
                        inputs.push(BlockInput::new(kind, "query latent", vec![query]));
                    }
                    let (kind, label) = (InputKind::KeyValueLatent(number), "key and value latent");
                    inputs.push(BlockInput::new(kind, label, vec![&latent.expansion]));
                }
                let output = vec![&attention.output];
                let kind = InputKind::MixerOutput(number);
                inputs.push(BlockInput::new(kind, "attention output", output));
                inputs
            }
            MixerKind::Recurrence(recurrence) => {
                let layers = recurrence.first_layers();
                let mut inputs = vec![BlockInput::new(InputKind::Mixer(number), "mixer", layers)];
                if let Ssm::SelectiveScan(ssm) = &recurrence.ssm {
                    let (kind, x_proj) = (InputKind::XProj(number), ssm.x_proj.iter().collect());
                    inputs.push(BlockInput::new(kind, "time step, B and C", x_proj));
                    let kind = InputKind::TimeStep(number);
                    inputs.push(BlockInput::new(kind, "time step", vec![&ssm.time_step]));
                }
                let kind = InputKind::MixerOutput(number);
                inputs.push(BlockInput::new(
                    kind,
                    "mixer output",
                    vec![&recurrence.output],
                ));
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
    /// The distinct inputs of the layers that are pruned, in the order in which a block comes to them.
    pub(crate) fn inputs(&self) -> Vec<BlockInput<'_>> {
        let mixers = self.mixers.iter().enumerate();
        let mixers = mixers.flat_map(|(number, mixer)| mixer.inputs(number));
        let mut inputs: Vec<_> = mixers.collect();
        let mut push = |kind, label: &str, layers| {
            inputs.push(BlockInput::new(kind, label, layers));
        };
        match &self.mlp {
            None => {}
            Some(FeedForward::Dense(mlp)) if self.shares_input() => {
                push(InputKind::MlpOutput, "mlp output", vec![&mlp.down]);
                inputs[0].label += " and mlp";
                inputs[0].layers.extend(mlp.first_layers());
            }
            Some(FeedForward::Dense(mlp)) => {
                push(InputKind::Mlp, "mlp", mlp.first_layers().collect());
                push(InputKind::MlpOutput, "mlp output", vec![&mlp.down]);
            }
            Some(FeedForward::Experts(experts)) => {
                if let Some(shared) = &experts.shared {
                    let layers = shared.mlp.first_layers().collect();
                    push(InputKind::SharedExperts, "shared experts", layers);
                    let (kind, down) = (InputKind::SharedExpertsOutput, vec![&shared.mlp.down]);
                    push(kind, "shared experts output", down);
                }
                for (expert, mlp) in experts.experts.iter().enumerate() {
                    let label = format!("expert {expert}");
                    let layers = mlp.first_layers().collect();
                    push(InputKind::Expert(expert), &label, layers);
                    let (kind, label) = (InputKind::ExpertOutput(expert), label + " output");
                    push(kind, &label, vec![&mlp.down]);
                }
            }
        }
        inputs
    }

    /// Which they are.
    pub(crate) fn input_kinds(&self) -> Vec<InputKind> {
        self.inputs().iter().map(|input| input.kind).collect()
    }

    /// The most features that are alive at one time in one of its halves, roughly.
    pub(crate) fn widest(&self) -> usize {
        let mixers = self.mixers.iter().map(Mixer::widest);
        let mlp = self.mlp.as_ref().map(FeedForward::widest);
        mixers.chain(mlp).max().unwrap_or(0)
    }
}
