//! Nemotron 4 and Minitron: LayerNorms by one plus their weight, squared ReLU without a gate, half of each head turns.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::{MlpModules, NormStyle};
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
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let attention_bias = config.flag("attention_bias")?;
    let nemotron = LlamaLike {
        norm: NormStyle {
            biased: true,
            offset: 1.0,
            ..NormStyle::of(NormKind::Layer, config.needed_number("norm_eps")?)
        },
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp: MlpModules::Plain("mlp.up_proj", "mlp.down_proj"),
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::turning(files, turning)?
    };
    nemotron.describe(files)
}
