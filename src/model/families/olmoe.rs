//! OLMoE: a Llama with experts, whose queries are normalised all heads together, and so are its keys.

use super::common;
use super::llama_like::LlamaLike;
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth};
use crate::model::error::Error;
use crate::model::experts::Router;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["olmoe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    if config.get("clip_qkv").is_some() {
        return Err(Error::Unsupported("clip_qkv in an olmoe".to_owned()));
    }
    let attention_bias = config.flag("attention_bias")?;
    let olmoe = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: Some(HeadNorms {
            norms: ["self_attn.q_norm", "self_attn.k_norm"],
            width: NormedWidth::AllHeads,
            after_rotation: false,
        }),
        ..LlamaLike::plain(files)?
    };
    let mut architecture = olmoe.describe(files)?;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_experts", "intermediate_size", activation)?;
    moe::put(
        &mut architecture,
        |_| true,
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
