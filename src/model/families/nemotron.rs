//! Nemotron 4 and Minitron: LayerNorms by one plus their weight, squared ReLU without a gate, half of each head turns.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::{MlpModules, NormStyle};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["nemotron"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        fraction: 0.5,
        ..RotaryDefaults::of(heads.features)
    };
    let attention_bias = config.flag_or("attention_bias", false)?;
    let nemotron = LlamaLike {
        norm: NormStyle {
            biased: true,
            offset: 1.0,
            ..NormStyle::of(NormKind::Layer, config.number_or("norm_eps", 1e-5)?)
        },
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp: MlpModules::Plain("mlp.up_proj", "mlp.down_proj"),
        mlp_bias: config.flag_or("mlp_bias", false)?,
        activation: common::activation(config, Activation::ReluSquared)?,
        ..LlamaLike::turning(files, turning)?
    };
    nemotron.describe(files)
}
