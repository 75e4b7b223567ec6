//! StarCoder 2: LayerNorms, biases, and a feed-forward part without a gate.

use serde_json::json;

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::{MlpModules, NormStyle};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["starcoder2"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"num_key_value_heads": 2, "tie_word_embeddings": true});
    let files = &files.over(&defaults);
    let config = &files.config;
    let bias = config.flag_or("use_bias", true)?;
    let starcoder = LlamaLike {
        norm: NormStyle {
            biased: true,
            ..NormStyle::of(NormKind::Layer, config.number_or("norm_epsilon", 1e-5)?)
        },
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Plain("mlp.c_fc", "mlp.c_proj"),
        mlp_bias: bias,
        activation: common::activation(config, Activation::GeluTanh)?,
        windows: vec![common::window(config)?; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    starcoder.describe(files)
}
