//! Mamba: blocks of one mixer each, and nothing else.

use super::common;
use super::state_spaces::Mamba;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["mamba"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let epsilon = config.number_or("layer_norm_eps", 1e-5)?;
    let expand = config.size_or("expand", Some(2))?;
    let rank = match config.word("time_step_rank") {
        None | Some("auto") if config.get("time_step_rank").is_none_or(|v| v.is_string()) => {
            hidden_size.div_ceil(16)
        }
        _ => config.size("time_step_rank")?,
    };
    let mamba = Mamba {
        hidden_size,
        inner: expand * hidden_size,
        states: config.size_or("state_size", Some(16))?,
        rank,
        width: config.size_or("conv_kernel", Some(4))?,
        projection_bias: config.flag_or("use_bias", false)?,
        convolution_bias: config.flag_or("use_conv_bias", true)?,
        activation: common::activation(config, Activation::Silu)?,
    };
    let prefix = files.prefix("backbone.", "embeddings");
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        DecoderBlock {
            order: BlockOrder::Sequential,
            mixer_norm: Some(common::rms_norm(&module("norm"), hidden_size, epsilon)),
            mixers: vec![mamba.mixer(&module("mixer"), None).into()],
            mixer_post_norm: None,
            mlp_norm: None,
            mlp: None,
            mlp_post_norm: None,
            residual_scale: 1.0,
        }
    };
    let embedding = format!("{prefix}embeddings.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: common::rms_norm(&format!("{prefix}norm_f"), hidden_size, epsilon),
        head: files.tied_head(&["lm_head"], &embedding)?,
        embedding,
    };
    common::plain(files, parts)
}
