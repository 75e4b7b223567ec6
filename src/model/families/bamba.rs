//! Bamba: Mamba 2 in most blocks, attention of whose heads half turns in the others.

use super::common;
use super::llama_like::{LlamaLike, MlpModules, NormStyle};
use super::state_spaces::Mamba2;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["bamba"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let bias = config.flag_or("attention_bias", false)?;
    let heads = common::grouped_heads(config)?;
    let half = RotaryDefaults {
        fraction: 0.5,
        ..RotaryDefaults::of(heads.features)
    };
    let bamba = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, config.number_or("rms_norm_eps", 1e-5)?),
        mlp_norm: Some("pre_ff_layernorm"),
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Gated(
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ),
        mlp_bias: config.flag_or("mlp_bias", false)?,
        final_norm: "final_layernorm",
        ..LlamaLike::turning(files, half)?
    };
    let mut architecture = bamba.describe(files)?;

    let types = [
        &["full_attention", "attention"][..],
        &["linear_attention", "mamba"],
    ];
    let keys = ["layers_block_type", "layer_types"];
    let attends = match common::block_numbers(config, "attn_layer_indices")? {
        Some(numbers) => (0..blocks).map(|block| numbers.contains(&block)).collect(),
        None => {
            common::attending(config, &keys, blocks, types)?.unwrap_or_else(|| vec![false; blocks])
        }
    };
    let channels = config.size_or("mamba_expand", Some(2))? * architecture.hidden_size;
    let mamba = Mamba2::of_hybrid(config, channels)?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if !attends[index] {
            block.mixers = vec![mamba.mixer(&format!("{prefix}{index}.mamba")).into()];
        }
    }
    Ok(architecture)
}
