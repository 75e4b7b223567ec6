//! Phi 1, 1.5 and 2: both halves of a block read one normalised input, part of each head turns, biases everywhere, on the
//! head too.

use super::common;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth, Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Rotary, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["phi"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let heads = common::grouped_heads(config)?;
    let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
    let activation = common::activation(config)?;
    let epsilon = config.needed_number("layer_norm_eps")?;
    let normed_heads = config.flag("qk_layernorm")?;

    let prefix = files.prefix("model.", "embed_tokens");
    let norm = |module: String, features| common::layer_norm(module, features, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), true, shape);
        let attention = SelfAttention {
            head_norms: normed_heads.then(|| HeadNorms {
                norms: ["self_attn.q_layernorm", "self_attn.k_layernorm"]
                    .map(|name| norm(module(name), heads.features)),
                width: NormedWidth::Head,
                after_rotation: false,
            }),
            ..SelfAttention::plain(
                heads,
                Projections::Separate([
                    linear("self_attn.q_proj", [queries, hidden_size]),
                    linear("self_attn.k_proj", [keys, hidden_size]),
                    linear("self_attn.v_proj", [keys, hidden_size]),
                ]),
                Position::Rotary(0),
                linear("self_attn.dense", [hidden_size, queries]),
            )
        };
        let mlp = common::ungated(
            activation,
            linear("mlp.fc1", [intermediate_size, hidden_size]),
            linear("mlp.fc2", [hidden_size, intermediate_size]),
        );
        let attention_norm = norm(module("input_layernorm"), hidden_size);
        DecoderBlock::plain(
            BlockOrder::Parallel,
            (attention_norm, attention),
            (None, mlp),
        )
    };
    let defaults = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let embedding = format!("{prefix}embed_tokens.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layernorm"), hidden_size),
        head: files.head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, defaults)?],
        head_bias: Some("lm_head.bias".to_owned()),
        ..common::plain(files, parts)?
    })
}
