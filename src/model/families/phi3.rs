//! Phi 3, 3.5 and 4: a Llama whose projections are one tensor, and gate and up another.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::{MlpModules, NormStyle};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["phi3"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let epsilon = files.config.number_or("rms_norm_eps", 1e-5)?;
    let phi = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, epsilon),
        fused_projections: Some("self_attn.qkv_proj"),
        mlp: MlpModules::GatedInOne("mlp.gate_up_proj", "mlp.down_proj"),
        windows: vec![common::window(&files.config)?; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    phi.describe(files)
}
