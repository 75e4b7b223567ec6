//! Granite 3 with experts, those of a block in two tensors: a Llama with multipliers.

use super::common;
use super::llama_like::LlamaLike;
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["granitemoe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let granite = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = granite.describe(files)?;
    architecture.embedding_scale = config.needed_number("embedding_multiplier")? as f32;
    architecture.logit_scale = 1.0 / config.needed_number("logits_scaling")? as f32;
    for block in &mut architecture.blocks {
        let scale = config.needed_number("attention_multiplier")? as f32;
        block.attentions_mut().for_each(|a| a.scale = scale);
        block.residual_scale = config.needed_number("residual_multiplier")? as f32;
    }
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_local_experts", "intermediate_size", activation)?;
    moe::put(
        &mut architecture,
        |_| true,
        |block| {
            let module = format!("{block}block_sparse_moe");
            let router = sizes.router(config, format!("{module}.router.layer.weight"))?;
            let tensors =
                ["input_linear", "output_linear"].map(|name| format!("{module}.{name}.weight"));
            let experts = sizes.fused(files, [&tensors[0], &tensors[1]])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}
