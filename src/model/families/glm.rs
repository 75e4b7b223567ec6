//! GLM 4 (glm, glm4): gate and up in one tensor, half of each head turns, by neighbours; glm4 has norms around the halves.

use serde_json::json;

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::{MlpModules, NormStyle};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, RotaryDefaults};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["glm", "glm4"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"head_dim": 128, "num_key_value_heads": 2});
    let files = &files.over(&defaults);
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        fraction: 0.5,
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let epsilon = config.number_or("rms_norm_eps", 1.5625e-7)?;
    let surrounded = files.model_type == "glm4";
    let glm = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, epsilon),
        attention_post_norm: surrounded.then_some("post_self_attn_layernorm"),
        mlp_post_norm: surrounded.then_some("post_mlp_layernorm"),
        projection_bias: config.flag_or("attention_bias", true)?,
        mlp: MlpModules::GatedInOne("mlp.gate_up_proj", "mlp.down_proj"),
        ..LlamaLike::turning(files, turning)?
    };
    glm.describe(files)
}
