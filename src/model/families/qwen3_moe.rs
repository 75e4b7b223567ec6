//! Qwen 3 with experts.

use super::common;
use super::llama_like::{LlamaLike, norms_of_each_head};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::experts::Router;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["qwen3_moe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let window = match config.flag("use_sliding_window")? {
        true => common::window(config)?,
        false => None,
    };
    let qwen = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: vec![window; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    let mut architecture = qwen.describe(files)?;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_experts", "moe_intermediate_size", activation)?;
    let sparse = moe::sparse_blocks(config, files.blocks()?)?;
    moe::put(
        &mut architecture,
        |block| sparse[block],
        |block| {
            let module = format!("{block}mlp");
            let router = Router {
                normalised: config.flag("norm_topk_prob")?,
                ..sizes.router(config, format!("{module}.gate.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}
