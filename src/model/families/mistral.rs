//! Mistral, Ministral, and Mixtral with its experts.

use super::common;
use super::llama_like::LlamaLike;
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::ModelFiles;

/// Mistral 7B and its successors: a Llama whose blocks may all attend to the last tokens only.
pub(super) fn mistral(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let mistral = LlamaLike {
        windows: vec![common::window(&files.config)?; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    mistral.describe(files)
}

/// Ministral 8B: a Mistral whose blocks slide by their type.
pub(super) fn ministral(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let window = common::window(config)?;
    let sliding = common::sliding(config, files.blocks()?, |_| window.is_some())?;
    let ministral = LlamaLike {
        windows: common::windows_of(&sliding, window)?,
        ..LlamaLike::plain(files)?
    };
    ministral.describe(files)
}

/// Mixtral: a Mistral with two of eight experts a token.
pub(super) fn mixtral(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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
            let module = if files.headers.has(&format!("{fused}.gate.weight")) {
                fused
            } else {
                format!("{block}block_sparse_moe")
            };
            let router = sizes.router(config, format!("{module}.gate.weight"))?;
            let experts = sizes.of_block(files, &module, ["w1", "w3", "w2"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}
