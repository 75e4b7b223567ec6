//! StarCoder 2: LayerNorms, biases, and a feed-forward part without a gate.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::{MlpModules, NormStyle};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["starcoder2"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("use_bias")?;
    let starcoder = LlamaLike {
        norm: NormStyle {
            biased: true,
            ..NormStyle::of(NormKind::Layer, config.needed_number("norm_epsilon")?)
        },
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Plain("mlp.c_fc", "mlp.c_proj"),
        mlp_bias: bias,
        windows: vec![common::window(config)?; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    starcoder.describe(files)
}
