//! GLM 4 (glm, glm4): gate and up in one tensor, half of each head turns, by neighbours; glm4 has norms around the halves.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::MlpModules;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["glm", "glm4"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let surrounded = files.model_type == "glm4";
    let glm = LlamaLike {
        attention_post_norm: surrounded.then_some("post_self_attn_layernorm"),
        mlp_post_norm: surrounded.then_some("post_mlp_layernorm"),
        projection_bias: config.flag("attention_bias")?,
        mlp: MlpModules::GatedInOne("mlp.gate_up_proj", "mlp.down_proj"),
        ..LlamaLike::turning(files, turning)?
    };
    glm.describe(files)
}
