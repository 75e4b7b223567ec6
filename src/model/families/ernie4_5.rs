//! ERNIE 4.5, dense: a Llama of whose heads neighbours turn together.

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
    model_types: &["ernie4_5"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"head_dim": 128, "num_key_value_heads": 2, "tie_word_embeddings": true});
    let files = &files.over(&defaults);
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        base: 500_000.0,
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let bias = config.flag_or("use_bias", false)?;
    let ernie = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, config.number_or("rms_norm_eps", 1e-5)?),
        projection_bias: bias,
        output_bias: bias,
        mlp_bias: bias,
        ..LlamaLike::turning(files, turning)?
    };
    ernie.describe(files)
}
