//! What Llama has in common with everything that was built in its likeness.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::block::{
    BlockOrder, DecoderBlock, FeedForward, Linear, NormKind, NormTensors, Projections,
    SelfAttention,
};
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::position::Position;
use crate::model::rotary::Rotary;

/// What differs among them.
pub(super) struct LlamaLike {
    /// Whether queries, keys and values have a bias.
    pub(super) projection_bias: bool,
    /// Whether what comes after attention has.
    pub(super) output_bias: bool,
    /// Whether the MLP's layers have.
    pub(super) mlp_bias: bool,
    /// Whether each head of the queries and keys has a norm of its own.
    pub(super) head_norms: bool,
    /// The window of each block.
    pub(super) windows: Vec<Option<usize>>,
}

impl LlamaLike {
    /// No biases, no norms of heads, and every token in sight.
    pub(super) fn plain(files: &ModelFiles<'_>) -> Result<Self, Error> {
        Ok(Self {
            projection_bias: false,
            output_bias: false,
            mlp_bias: false,
            head_norms: false,
            windows: vec![None; files.blocks()?],
        })
    }

    /// The model, in the names and by the keys of Llama.
    pub(super) fn describe(&self, files: &ModelFiles<'_>) -> Result<Architecture, Error> {
        let config = &files.config;
        let hidden_size = config.size("hidden_size")?;
        let intermediate_size = config.size("intermediate_size")?;
        let heads = common::heads(config, |heads| {
            config.size_or("num_key_value_heads", Some(heads))
        })?;
        let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
        let activation = common::activation(config, Activation::Silu)?;
        let epsilon = config.number_or("rms_norm_eps", 1e-6)?;

        let prefix = files.prefix("model.", "embed_tokens");
        let norm = |module: String, features| NormTensors {
            kind: NormKind::Rms,
            weight: format!("{module}.weight"),
            bias: None,
            features,
            epsilon,
        };
        let block = |(index, &window): (usize, &Option<usize>)| {
            let module = |name| format!("{prefix}layers.{index}.{name}");
            let linear = |name, bias: bool, shape| {
                let module = module(name);
                let bias = bias.then(|| format!("{module}.bias"));
                Linear::of_its_own(format!("{module}.weight"), bias, shape)
            };
            let projection = |name, rows| linear(name, self.projection_bias, [rows, hidden_size]);
            DecoderBlock {
                order: BlockOrder::Sequential,
                attention_norm: norm(module("input_layernorm"), hidden_size),
                attention: SelfAttention {
                    heads,
                    projections: Projections::Separate([
                        projection("self_attn.q_proj", queries),
                        projection("self_attn.k_proj", keys),
                        projection("self_attn.v_proj", keys),
                    ]),
                    head_norms: self.head_norms.then(|| {
                        ["self_attn.q_norm", "self_attn.k_norm"]
                            .map(|name| norm(module(name), heads.features))
                    }),
                    position: Position::Rotary(0),
                    scale: common::usual_scale(heads),
                    window,
                    output: linear("self_attn.o_proj", self.output_bias, [hidden_size, queries]),
                },
                mlp_norm: norm(module("post_attention_layernorm"), hidden_size),
                mlp: FeedForward {
                    activation,
                    gate: Some(linear(
                        "mlp.gate_proj",
                        self.mlp_bias,
                        [intermediate_size, hidden_size],
                    )),
                    up: linear(
                        "mlp.up_proj",
                        self.mlp_bias,
                        [intermediate_size, hidden_size],
                    ),
                    down: linear(
                        "mlp.down_proj",
                        self.mlp_bias,
                        [hidden_size, intermediate_size],
                    ),
                },
            }
        };
        let embedding = format!("{prefix}embed_tokens.weight");
        Ok(Architecture {
            model_type: files.model_type,
            hidden_size,
            vocab_size: config.size("vocab_size")?,
            max_context: common::max_context(config)?,
            position_embedding: None,
            embedding_norm: None,
            alibi: None,
            rotaries: vec![Rotary::read(config, heads.features, 1.0)?],
            block_prefix: format!("{prefix}layers."),
            blocks: self.windows.iter().enumerate().map(block).collect(),
            final_norm: norm(format!("{prefix}norm"), hidden_size),
            head: files.head(&["lm_head"], &embedding)?,
            head_bias: None,
            embedding,
        })
    }
}
