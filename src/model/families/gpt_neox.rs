//! GPT-NeoX (Pythia): LayerNorms, one interleaved projection, part of each head turns, the halves of a block in parallel.

use super::common;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
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
    common::only_usual_heads(config, hidden_size / heads.queries)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation(config)?;
    let epsilon = config.needed_number("layer_norm_eps")?;
    let attention_bias = config.flag("attention_bias")?;
    let order = match config.flag("use_parallel_residual")? {
        true => BlockOrder::Parallel,
        false => BlockOrder::Sequential,
    };

    let prefix = files.prefix("gpt_neox.", "embed_in");
    let norm = |module| common::layer_norm(module, hidden_size, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, bias, shape| common::linear(module(name), bias, shape);
        let all = linear(
            "attention.query_key_value",
            attention_bias,
            [3 * queries, hidden_size],
        );
        let attention = SelfAttention::plain(
            heads,
            Projections::Interleaved(all),
            Position::Rotary(0),
            linear("attention.dense", attention_bias, [hidden_size, queries]),
        );
        let mlp = common::ungated(
            activation,
            linear("mlp.dense_h_to_4h", true, [intermediate_size, hidden_size]),
            linear("mlp.dense_4h_to_h", true, [hidden_size, intermediate_size]),
        );
        let attention_norm = norm(module("input_layernorm"));
        let mlp_norm = norm(module("post_attention_layernorm"));
        DecoderBlock::plain(order, (attention_norm, attention), (Some(mlp_norm), mlp))
    };
    let embedding = format!("{prefix}embed_in.weight");
    let defaults = RotaryDefaults {
        base_key: Some("rotary_emb_base"),
        fraction_key: Some("rotary_pct"),
        ..RotaryDefaults::of(heads.features)
    };
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layer_norm")),
        // Newer versions of transformers write the second name.
        head: files.head(&["embed_out", "lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, defaults)?],
        ..common::plain(files, parts)?
    })
}
