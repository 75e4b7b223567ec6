//! Jamba: Mamba 1 with three norms in most blocks, attention without positions in the others, experts in every other one.

use super::common;
use super::llama_like::{LlamaLike, MlpModules};
use super::moe::{self, ExpertSizes};
use super::state_spaces::Mamba;
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::error::Error;
use crate::model::experts::Router;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["jamba"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let jamba = LlamaLike {
        mlp_norm: Some("pre_ff_layernorm"),
        mlp: MlpModules::Gated(
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ),
        final_norm: "final_layernorm",
        positions: vec![Position::None; blocks],
        ..LlamaLike::with_rotaries(files, Vec::new())?
    };
    let mut architecture = jamba.describe(files)?;

    let hidden_size = config.size("hidden_size")?;
    let key = "mamba_dt_rank";
    let rank = match config.get(key) {
        Some(value) if value.as_str() == Some("auto") => hidden_size.div_ceil(16),
        _ => config.size(key)?,
    };
    let activation = common::activation(config)?;
    let mamba = Mamba {
        hidden_size,
        inner: config.size("mamba_expand")? * hidden_size,
        states: config.size("mamba_d_state")?,
        rank,
        width: config.size("mamba_d_conv")?,
        projection_bias: config.flag("mamba_proj_bias")?,
        convolution_bias: config.flag("mamba_conv_bias")?,
        activation,
    };
    let epsilon = config.needed_number("rms_norm_eps")?;
    let attends = every(files, "attn_layer_period", "attn_layer_offset")?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if attends(index) {
            continue;
        }
        let module = format!("{prefix}{index}.mamba");
        let norm =
            |name, features| common::rms_norm(&format!("{module}.{name}"), features, epsilon);
        let norms = [
            norm("dt_layernorm", rank),
            norm("b_layernorm", mamba.states),
            norm("c_layernorm", mamba.states),
        ];
        block.mixers = vec![mamba.mixer(&module, Some(norms)).into()];
    }

    let sizes = ExpertSizes::read(files, "num_experts", "intermediate_size", activation)?;
    let sparse = every(files, "expert_layer_period", "expert_layer_offset")?;
    moe::put(
        &mut architecture,
        |block| sizes.count > 1 && sparse(block),
        |block| {
            let module = format!("{block}feed_forward");
            let router = Router {
                normalised: false,
                ..sizes.router(config, format!("{module}.router.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}

/// Whether it is a block's turn, by a period and which one of each.
fn every(
    files: &ModelFiles<'_>,
    period: &str,
    offset: &str,
) -> Result<impl Fn(usize) -> bool + use<>, Error> {
    let length = files.config.size(period)?;
    let first = common::count(&files.config, offset)?;
    if first >= length {
        return Err(Error::Config(format!(
            "{offset} is {first}, and {period} {length}"
        )));
    }
    Ok(move |block| block % length == first)
}
