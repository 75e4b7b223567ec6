//! Bamba: Mamba 2 in most blocks, attention of whose heads half turns in the others.

use super::common;
use super::llama_like::{LlamaLike, MlpModules};
use super::state_spaces::Mamba2;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;

pub(super) static FAMILY: Family = Family {
    model_types: &["bamba"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("attention_bias")?;
    let heads = common::grouped_heads(config)?;
    let half = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let bamba = LlamaLike {
        mlp_norm: Some("pre_ff_layernorm"),
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Gated(
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ),
        mlp_bias: config.flag("mlp_bias")?,
        final_norm: "final_layernorm",
        ..LlamaLike::turning(files, half)?
    };
    let mut architecture = bamba.describe(files)?;

    let attending = common::block_numbers(config, "attn_layer_indices")?.unwrap_or_default();
    let channels = config.size("mamba_expand")? * architecture.hidden_size;
    let mamba = Mamba2::of_hybrid(config, channels)?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if !attending.contains(&index) {
            block.mixers = vec![mamba.mixer(&format!("{prefix}{index}.mamba")).into()];
        }
    }
    Ok(architecture)
}
