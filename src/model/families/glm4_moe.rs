//! GLM 4.5: experts as DeepSeek 3 has them, and the attention of a Llama of which half of each head turns.

use super::common;
use super::llama_like::{LlamaLike, norms_of_each_head};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;

pub(super) static FAMILY: Family = Family {
    model_types: &["glm4_moe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let half = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let head_norms = match config.flag("use_qk_norm")? {
        true => norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        false => None,
    };
    let glm = LlamaLike {
        projection_bias: config.flag("attention_bias")?,
        head_norms,
        ..LlamaLike::turning(files, half)?
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
