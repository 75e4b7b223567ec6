//! GPT-J: both halves of a block read one normalised input, neighbouring features turn together, a bias on the head.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, Rotary, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["gptj"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size_or("intermediate_size", Some(4 * hidden_size))?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation(config, Activation::GeluTanh)?;
    let epsilon = config.number_or("layer_norm_eps", 1e-5)?;
    let defaults = RotaryDefaults {
        fraction: config.size("rotary_dim")? as f64 / heads.features as f64,
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };

    let prefix = files.prefix("transformer.", "wte");
    let norm = |module: String| common::layer_norm(module, hidden_size, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}h.{index}.{name}");
        let linear = |name, bias, shape| common::linear(module(name), bias, shape);
        let attention = SelfAttention::plain(
            heads,
            Projections::Separate(
                ["attn.q_proj", "attn.k_proj", "attn.v_proj"]
                    .map(|name| linear(name, false, [queries, hidden_size])),
            ),
            Position::Rotary(0),
            linear("attn.out_proj", false, [hidden_size, queries]),
        );
        let mlp = common::ungated(
            activation,
            linear("mlp.fc_in", true, [intermediate_size, hidden_size]),
            linear("mlp.fc_out", true, [hidden_size, intermediate_size]),
        );
        let attention_norm = norm(module("ln_1"));
        DecoderBlock::plain(
            BlockOrder::Parallel,
            (attention_norm, attention),
            (None, mlp),
        )
    };
    let embedding = format!("{prefix}wte.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}h."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}ln_f")),
        head: files.head(&["lm_head"], &embedding)?,
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, defaults)?],
        head_bias: Some("lm_head.bias".to_owned()),
        ..common::plain(files, parts)?
    })
}
