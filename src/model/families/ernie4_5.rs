//! ERNIE 4.5, dense: a Llama of whose heads neighbours turn together.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["ernie4_5"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let bias = config.flag("use_bias")?;
    let ernie = LlamaLike {
        projection_bias: bias,
        output_bias: bias,
        mlp_bias: bias,
        ..LlamaLike::turning(files, turning)?
    };
    ernie.describe(files)
}
