//! GLM 4.5: experts as DeepSeek 3 has them, and the attention of a Llama of which half of each head turns.

use super::common;
use super::llama_like::{LlamaLike, norms_of_each_head};
use super::moe::{self, ExpertSizes};
use crate::model::activation::Activation;
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
        fraction: 0.5,
        ..RotaryDefaults::of(heads.features)
    };
    let head_norms = match config.flag_or("use_qk_norm", false)? {
        true => norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        false => None,
    };
    let glm = LlamaLike {
        projection_bias: config.flag_or("attention_bias", false)?,
        head_norms,
        ..LlamaLike::turning(files, half)?
    };
    let mut architecture = glm.describe(files)?;
    let activation = common::activation(config, Activation::Silu)?;
    let counts = ["n_routed_experts", "num_local_experts"];
    let sizes = ExpertSizes::read(files, &counts, "moe_intermediate_size", activation)?;
    let dense = moe::count_or(config, "first_k_dense_replace", 1)?;
    moe::put(
        &mut architecture,
        |block| block >= dense,
        |block| moe::with_correction(files, &sizes, block),
    )?;
    Ok(architecture)
}
