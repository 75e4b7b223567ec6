//! Helium: a Llama of whose heads neighbours turn together.

use serde_json::json;

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::NormStyle;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, RotaryDefaults};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["helium"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"head_dim": 128});
    let files = &files.over(&defaults);
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        base: 100_000.0,
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let helium = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, config.number_or("rms_norm_eps", 1e-8)?),
        projection_bias: config.flag_or("attention_bias", false)?,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        ..LlamaLike::turning(files, turning)?
    };
    helium.describe(files)
}
