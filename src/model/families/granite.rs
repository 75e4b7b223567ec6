//! Granite 3 and 4: a Llama with multipliers.

use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["granite"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag_or("attention_bias", false)?;
    let granite = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = granite.describe(files)?;
    let scale = config.number_or("attention_multiplier", 1.0)?;
    let residual_scale = config.number_or("residual_multiplier", 1.0)?;
    for block in &mut architecture.blocks {
        block.attentions_mut().for_each(|a| a.scale = scale as f32);
        block.residual_scale = residual_scale as f32;
    }
    architecture.embedding_scale = config.number_or("embedding_multiplier", 1.0)? as f32;
    architecture.logit_scale = 1.0 / config.number_or("logits_scaling", 1.0)? as f32;
    Ok(architecture)
}
