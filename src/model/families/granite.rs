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
    let attention_bias = config.flag("attention_bias")?;
    let granite = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = granite.describe(files)?;
    let scale = config.needed_number("attention_multiplier")?;
    let residual_scale = config.needed_number("residual_multiplier")?;
    for block in &mut architecture.blocks {
        block.attentions_mut().for_each(|a| a.scale = scale as f32);
        block.residual_scale = residual_scale as f32;
    }
    architecture.embedding_scale = config.needed_number("embedding_multiplier")? as f32;
    architecture.logit_scale = 1.0 / config.needed_number("logits_scaling")? as f32;
    Ok(architecture)
}
