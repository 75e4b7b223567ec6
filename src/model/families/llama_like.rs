//! What Llama has in common with everything that was built in its likeness.
//!
//! A family says here what its blocks are made of and what the modules are called; numbers that are neither, such as
//! multipliers, it sets on the [`Architecture`] that comes out.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{
    HeadCounts, HeadNorms, NormedWidth, Position, Projections, SelfAttention,
};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::rotary::{Rotary, RotaryDefaults};
use crate::model::tensors::{HeadFactors, NormKind, NormTensors};

/// What a family's norms are like.
#[derive(Clone, Copy)]
pub(super) struct NormStyle {
    pub(super) kind: NormKind,
    /// Whether they have a weight, and a bias.
    pub(super) weighted: bool,
    pub(super) biased: bool,
    /// What the factors are more than the tensor says.
    pub(super) offset: f32,
    pub(super) epsilon: f64,
}

impl NormStyle {
    pub(super) fn of(kind: NormKind, epsilon: f64) -> Self {
        Self {
            kind,
            weighted: true,
            biased: false,
            offset: 0.0,
            epsilon,
        }
    }

    /// The norm of a module.
    pub(super) fn norm(&self, module: &str, features: usize) -> NormTensors {
        NormTensors {
            kind: self.kind,
            weight: self.weighted.then(|| format!("{module}.weight")),
            weight_offset: self.offset,
            bias: self.biased.then(|| format!("{module}.bias")),
            features,
            heads: 1,
            head_factors: HeadFactors::Matrix,
            epsilon: self.epsilon,
        }
    }
}

/// The modules of the feed-forward part.
#[derive(Clone, Copy)]
pub(super) enum MlpModules {
    /// Gate, up, down.
    Gated(&'static str, &'static str, &'static str),
    /// Gate and up in one tensor, gate first; down.
    GatedInOne(&'static str, &'static str),
    /// Up, down.
    Plain(&'static str, &'static str),
}

/// What differs among them.
pub(super) struct LlamaLike {
    pub(super) order: BlockOrder,
    pub(super) heads: HeadCounts,
    pub(super) norm: NormStyle,
    /// The modules of the norms of a block, where it has them.
    pub(super) attention_norm: Option<&'static str>,
    pub(super) attention_post_norm: Option<&'static str>,
    pub(super) mlp_norm: Option<&'static str>,
    pub(super) mlp_post_norm: Option<&'static str>,
    /// The modules of the norms of queries and keys.
    pub(super) head_norms: Option<HeadNorms<&'static str>>,
    /// Whether those have factors for each head.
    pub(super) factors_by_head: bool,
    /// The module of queries, keys and values, where they are one tensor.
    pub(super) fused_projections: Option<&'static str>,
    /// Whether queries, keys and values have a bias.
    pub(super) projection_bias: bool,
    pub(super) output: &'static str,
    /// Whether what comes after attention has one.
    pub(super) output_bias: bool,
    pub(super) mlp: MlpModules,
    /// Whether the MLP's layers have.
    pub(super) mlp_bias: bool,
    pub(super) activation: Activation,
    /// The module of the norm before the head.
    pub(super) final_norm: &'static str,
    /// The window of each block.
    pub(super) windows: Vec<Option<usize>>,
    /// The ropes.
    pub(super) rotaries: Vec<Rotary>,
    /// Which of them each block takes.
    pub(super) positions: Vec<Position>,
}

/// Norms of each head, before rope.
pub(super) fn norms_of_each_head(names: [&'static str; 2]) -> Option<HeadNorms<&'static str>> {
    Some(HeadNorms {
        norms: names,
        width: NormedWidth::Head,
        after_rotation: false,
    })
}

impl LlamaLike {
    /// Llama itself: no biases, no norms of heads, and every token in sight.
    pub(super) fn plain(files: &ModelFiles<'_>) -> Result<Self, Error> {
        let heads = common::grouped_heads(&files.config)?;
        Self::with_rope(files, RotaryDefaults::of(heads.features))
    }

    /// The same with another rotary embedding.
    pub(super) fn with_rope(
        files: &ModelFiles<'_>,
        defaults: RotaryDefaults,
    ) -> Result<Self, Error> {
        Self::with_rotaries(files, vec![Rotary::read(&files.config, defaults)?])
    }

    /// The same with these ropes, where all blocks take the first unless the family says otherwise.
    pub(super) fn with_rotaries(
        files: &ModelFiles<'_>,
        rotaries: Vec<Rotary>,
    ) -> Result<Self, Error> {
        let config = &files.config;
        let blocks = files.blocks()?;
        Ok(Self {
            order: BlockOrder::Sequential,
            heads: common::grouped_heads(config)?,
            // Families whose norms have another key put their own here.
            norm: NormStyle::of(NormKind::Rms, config.number_or("rms_norm_eps", 1e-6)?),
            attention_norm: Some("input_layernorm"),
            attention_post_norm: None,
            mlp_norm: Some("post_attention_layernorm"),
            mlp_post_norm: None,
            head_norms: None,
            factors_by_head: false,
            fused_projections: None,
            projection_bias: false,
            output: "self_attn.o_proj",
            output_bias: false,
            mlp: MlpModules::Gated("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"),
            mlp_bias: false,
            activation: common::activation(config)?,
            final_norm: "norm",
            windows: vec![None; blocks],
            rotaries,
            positions: vec![Position::Rotary(0); blocks],
        })
    }

    /// The model, by the keys of Llama.
    pub(super) fn describe(&self, files: &ModelFiles<'_>) -> Result<Architecture, Error> {
        self.describe_with(files, files.config.size("intermediate_size")?)
    }

    /// The same with another width of the feed-forward parts.
    pub(super) fn describe_with(
        &self,
        files: &ModelFiles<'_>,
        intermediate_size: usize,
    ) -> Result<Architecture, Error> {
        let config = &files.config;
        let hidden_size = config.size("hidden_size")?;
        let prefix = files.prefix("model.", "embed_tokens");
        let block = |index| self.block(index, &prefix, [hidden_size, intermediate_size]);
        let embedding = format!("{prefix}embed_tokens.weight");
        let parts = common::Parts {
            block_prefix: format!("{prefix}layers."),
            blocks: (0..self.windows.len()).map(block).collect(),
            final_norm: self
                .norm
                .norm(&format!("{prefix}{}", self.final_norm), hidden_size),
            lm_head: files.lm_head(&["lm_head", "language_model.lm_head"], &embedding),
            embedding,
        };
        Ok(Architecture {
            rotaries: self.rotaries.clone(),
            ..common::plain(files, parts)?
        })
    }

    fn block(
        &self,
        index: usize,
        prefix: &str,
        [hidden_size, intermediate_size]: [usize; 2],
    ) -> DecoderBlock {
        let module = |name: &str| format!("{prefix}layers.{index}.{name}");
        let linear = |name: &str, bias, shape| common::linear(module(name), bias, shape);
        let norm = |name: Option<&'static str>| {
            name.map(|name| self.norm.norm(&module(name), hidden_size))
        };
        let heads = self.heads;
        let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
        let rows = [queries, keys, keys];
        let projection = |name, rows| linear(name, self.projection_bias, [rows, hidden_size]);
        let projections = match self.fused_projections {
            None => [
                projection("self_attn.q_proj", queries),
                projection("self_attn.k_proj", keys),
                projection("self_attn.v_proj", keys),
            ],
            Some(name) => projection(name, queries + 2 * keys).split(rows),
        };
        let mlp_linear = |name, shape| linear(name, self.mlp_bias, shape);
        let widening = [intermediate_size, hidden_size];
        let (gate, up, down) = match self.mlp {
            MlpModules::Gated(gate, up, down) => (
                Some(mlp_linear(gate, widening)),
                mlp_linear(up, widening),
                down,
            ),
            MlpModules::GatedInOne(both, down) => {
                let both = mlp_linear(both, [2 * intermediate_size, hidden_size]);
                let [gate, up] = both.split([intermediate_size; 2]);
                (Some(gate), up, down)
            }
            MlpModules::Plain(up, down) => (None, mlp_linear(up, widening), down),
        };
        let attention = SelfAttention {
            head_norms: (self.head_norms.as_ref()).map(|norms| self.norms(norms, module)),
            window: self.windows[index],
            ..SelfAttention::plain(
                heads,
                Projections::Separate(projections),
                self.positions[index],
                linear(self.output, self.output_bias, [hidden_size, queries]),
            )
        };
        let mlp = FeedForward::Dense(Mlp {
            activation: self.activation,
            xielu: None,
            gate,
            up,
            down: mlp_linear(down, [hidden_size, intermediate_size]),
        });
        DecoderBlock {
            order: self.order,
            mixer_norm: norm(self.attention_norm),
            mixers: vec![attention.into()],
            mixer_post_norm: norm(self.attention_post_norm),
            mlp_norm: norm(self.mlp_norm),
            mlp: Some(mlp),
            mlp_post_norm: norm(self.mlp_post_norm),
            residual_scale: 1.0,
            adds_to_normed: false,
        }
    }

    fn norms(
        &self,
        norms: &HeadNorms<&'static str>,
        module: impl Fn(&str) -> String,
    ) -> HeadNorms<NormTensors> {
        let HeadCounts {
            queries,
            keys,
            features,
        } = self.heads;
        let norm = |name, count| {
            let width = match norms.width {
                NormedWidth::Head => features,
                NormedWidth::AllHeads => count * features,
            };
            NormTensors {
                heads: if self.factors_by_head { count } else { 1 },
                ..self.norm.norm(&module(name), width)
            }
        };
        HeadNorms {
            norms: [norm(norms.norms[0], queries), norm(norms.norms[1], keys)],
            width: norms.width,
            after_rotation: norms.after_rotation,
        }
    }
}
