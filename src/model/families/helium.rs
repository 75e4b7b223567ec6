//! Helium: a Llama of whose heads neighbours turn together.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["helium"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let helium = LlamaLike {
        projection_bias: config.flag("attention_bias")?,
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::turning(files, turning)?
    };
    helium.describe(files)
}
