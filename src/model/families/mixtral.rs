//! Mixtral: a Mistral with two of eight experts a token.

use super::common;
use super::llama_like::LlamaLike;
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["mixtral"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let mixtral = LlamaLike {
        windows: vec![common::window(config)?; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    let mut architecture = mixtral.describe(files)?;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_local_experts", "intermediate_size", activation)?;
    moe::put(
        &mut architecture,
        |_| true,
        |block| {
            // As Mixtral was published, and as transformers 5 has it in memory.
            let fused = format!("{block}mlp");
            let module = match files.headers.has(&format!("{fused}.gate.weight")) {
                true => fused,
                false => format!("{block}block_sparse_moe"),
            };
            let router = sizes.router(config, format!("{module}.gate.weight"))?;
            let experts = sizes.of_block(files, &module, ["w1", "w3", "w2"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}
