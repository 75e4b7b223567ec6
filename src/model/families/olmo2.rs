//! OLMo 2 and 3: norms behind each half of a block instead of before it, and of all heads together; OLMo 3 slides.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth, Position};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Rotary, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["olmo2", "olmo3"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let full = RotaryDefaults::of(common::grouped_heads(config)?.features);
    // transformers has taken the older base for the others by then.
    let sliding_ones = RotaryDefaults {
        base_key: None,
        ..full
    };
    let rotaries = match files.model_type {
        "olmo3" => vec![
            Rotary::of_layers(config, "full_attention", true, full)?,
            Rotary::of_layers(config, "sliding_attention", false, sliding_ones)?,
        ],
        _ => vec![Rotary::read(config, full)?],
    };
    let mut olmo = LlamaLike {
        attention_norm: None,
        attention_post_norm: Some("post_attention_layernorm"),
        mlp_norm: None,
        mlp_post_norm: Some("post_feedforward_layernorm"),
        head_norms: Some(HeadNorms {
            norms: ["self_attn.q_norm", "self_attn.k_norm"],
            width: NormedWidth::AllHeads,
            after_rotation: false,
        }),
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::with_rotaries(files, rotaries)?
    };
    if files.model_type == "olmo3" {
        let sliding = common::sliding(config, files.blocks()?, |block| (block + 1) % 4 != 0)?;
        olmo.windows = common::windows_of(&sliding, common::window(config)?)?;
        let position = |slides: &bool| Position::Rotary(usize::from(*slides));
        olmo.positions = sliding.iter().map(position).collect();
    }
    olmo.describe(files)
}
