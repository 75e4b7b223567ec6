//! Phi 3, 3.5 and 4: a Llama whose projections are one tensor, and gate and up another.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::MlpModules;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;

pub(super) static FAMILY: Family = Family {
    model_types: &["phi3"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let heads = common::grouped_heads(&files.config)?;
    let turning = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        longrope: &["longrope", "su", "yarn"],
        ..RotaryDefaults::of(heads.features)
    };
    let phi = LlamaLike {
        fused_projections: Some("self_attn.qkv_proj"),
        mlp: MlpModules::GatedInOne("mlp.gate_up_proj", "mlp.down_proj"),
        windows: vec![common::window(&files.config)?; files.blocks()?],
        ..LlamaLike::turning(files, turning)?
    };
    phi.describe(files)
}
