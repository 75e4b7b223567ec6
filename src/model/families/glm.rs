//! GLM: 4, and 4.5 with experts.

use super::common;
use super::llama_like::{LlamaLike, MlpModules, norms_of_each_head};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::rotary::{Pairing, RotaryDefaults};

/// GLM 4 (glm, glm4): gate and up in one tensor, rope on half of each head, by neighbours; glm4 has norms around the halves.
pub(super) fn glm(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let rope = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let surrounded = files.model_type == "glm4";
    let glm = LlamaLike {
        attention_post_norm: surrounded.then_some("post_self_attn_layernorm"),
        mlp_post_norm: surrounded.then_some("post_mlp_layernorm"),
        projection_bias: config.flag("attention_bias")?,
        mlp: MlpModules::GatedInOne("mlp.gate_up_proj", "mlp.down_proj"),
        ..LlamaLike::with_rope(files, rope)?
    };
    glm.describe(files)
}

/// GLM 4.5: experts as DeepSeek 3 has them, and the attention of a Llama of which rope on half of each head.
pub(super) fn glm4_moe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let half = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let head_norms = if config.flag("use_qk_norm")? {
        norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"])
    } else {
        None
    };
    let glm = LlamaLike {
        projection_bias: config.flag("attention_bias")?,
        head_norms,
        ..LlamaLike::with_rope(files, half)?
    };
    let mut architecture = glm.describe(files)?;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(
        files,
        "n_routed_experts",
        "moe_intermediate_size",
        activation,
    )?;
    let dense = common::count(config, "first_k_dense_replace")?;
    moe::put(
        &mut architecture,
        |block| block >= dense,
        |block| moe::with_correction(files, &sizes, block),
    )?;
    Ok(architecture)
}
