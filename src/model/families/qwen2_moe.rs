//! Qwen 1.5 and 2 with experts: one more for every token, behind a gate.

use super::common;
use super::llama_like::LlamaLike;
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::experts::{Router, SharedExpert};
use crate::model::family::{Family, ModelFiles};
use crate::model::tensors::Linear;

pub(super) static FAMILY: Family = Family {
    model_types: &["qwen2_moe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let window = match config.flag("use_sliding_window")? {
        true => common::window(config)?,
        false => None,
    };
    let end = common::count(config, "max_window_layers")?;
    let slides = |block: usize| window.is_some() && block.is_multiple_of(2) && block < end;
    let sliding = common::sliding(config, files.blocks()?, slides)?;
    let qwen = LlamaLike {
        projection_bias: config.flag("qkv_bias")?,
        windows: common::windows_of(&sliding, window)?,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = qwen.describe(files)?;
    put_experts(files, &mut architecture, false)?;
    Ok(architecture)
}

/// Puts in experts with one for every token behind a gate; `normalised` where config.json says nothing of their weights.
pub(super) fn put_experts(
    files: &ModelFiles<'_>,
    architecture: &mut Architecture,
    normalised: bool,
) -> Result<(), Error> {
    let config = &files.config;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_experts", "moe_intermediate_size", activation)?;
    let hidden = sizes.hidden_size;
    let shared = config.size("shared_expert_intermediate_size")?;
    let sparse = moe::sparse_blocks(config, files.blocks()?)?;
    moe::put(
        architecture,
        |block| sparse[block],
        |block| {
            let module = format!("{block}mlp");
            let router = Router {
                normalised: config.flag_or("norm_topk_prob", normalised)?,
                ..sizes.router(config, format!("{module}.gate.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
            let gate = format!("{module}.shared_expert_gate.weight");
            let shared = SharedExpert {
                mlp: moe::gated(
                    &format!("{module}.shared_expert"),
                    activation,
                    [shared, hidden],
                ),
                gate: Some(Linear::of_its_own(gate, None, [1, hidden])),
            };
            Ok(moe::feed_forward(router, experts, Some(shared)))
        },
    )
}
