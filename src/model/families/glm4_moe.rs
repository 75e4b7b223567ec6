//! GLM 4.5: experts as DeepSeek 3 has them, and the attention of a Llama of which half of each head turns.

use super::common;
use super::llama_like::LlamaLike;
use super::moe::{self, ExpertSizes};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::Rotary;

pub(super) static FAMILY: Family = Family {
    model_types: &["glm4_moe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let glm = LlamaLike {
        projection_bias: config.flag_or("attention_bias", false)?,
        head_norms: config.flag_or("use_qk_norm", false)?,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = glm.describe(files)?;
    let features = architecture
        .blocks
        .first()
        .map(|block| block.attention.heads.features);
    architecture.rotaries = vec![Rotary::read(config, features.unwrap_or(2), 0.5)?];
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
