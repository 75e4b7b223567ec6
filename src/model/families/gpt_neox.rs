//! GPT-NeoX (Pythia): LayerNorms, one interleaved projection, part of each head turns, the halves of a block in parallel.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::block::{
    BlockOrder, DecoderBlock, FeedForward, Linear, NormKind, NormTensors, Position, Projections,
    SelfAttention,
};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::mlp::Mlp;
use crate::model::rotary::{Rotary, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["gpt_neox"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation(config, Activation::Gelu)?;
    let epsilon = config.number_or("layer_norm_eps", 1e-5)?;
    let attention_bias = config.flag_or("attention_bias", true)?;
    let order = match config.flag_or("use_parallel_residual", true)? {
        true => BlockOrder::Parallel,
        false => BlockOrder::Sequential,
    };

    let prefix = files.prefix("gpt_neox.", "embed_in");
    let norm = |module: String| NormTensors {
        bias: Some(format!("{module}.bias")),
        ..NormTensors::plain(
            NormKind::Layer,
            format!("{module}.weight"),
            hidden_size,
            epsilon,
        )
    };
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, bias: bool, shape| {
            let module = module(name);
            let bias = bias.then(|| format!("{module}.bias"));
            Linear::of_its_own(format!("{module}.weight"), bias, shape)
        };
        DecoderBlock {
            order,
            attention_norm: Some(norm(module("input_layernorm"))),
            attention: SelfAttention {
                heads,
                projections: Projections::Interleaved(linear(
                    "attention.query_key_value",
                    attention_bias,
                    [3 * queries, hidden_size],
                )),
                clip: None,
                head_norms: None,
                position: Position::Rotary(0),
                scale: common::usual_scale(heads),
                soft_cap: None,
                window: None,
                sinks: None,
                output: linear("attention.dense", attention_bias, [hidden_size, queries]),
            },
            attention_post_norm: None,
            mlp_norm: Some(norm(module("post_attention_layernorm"))),
            mlp: FeedForward::Dense(Mlp {
                activation,
                gate: None,
                up: linear("mlp.dense_h_to_4h", true, [intermediate_size, hidden_size]),
                down: linear("mlp.dense_4h_to_h", true, [hidden_size, intermediate_size]),
            }),
            mlp_post_norm: None,
            residual_scale: 1.0,
        }
    };
    let embedding = format!("{prefix}embed_in.weight");
    Ok(Architecture {
        model_type: files.model_type,
        hidden_size,
        vocab_size: config.size("vocab_size")?,
        max_context: common::max_context(config)?,
        embedding_scale: 1.0,
        rotaries: vec![Rotary::read(
            config,
            RotaryDefaults {
                fraction: 0.25,
                ..RotaryDefaults::of(heads.features)
            },
        )?],
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layer_norm")),
        // Newer versions of transformers write the second name.
        head: files.head(&["embed_out", "lm_head"], &embedding)?,
        embedding,
        logit_scale: 1.0,
        logit_soft_cap: None,
    })
}
