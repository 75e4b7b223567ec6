//! OLMo 1: a Llama whose norms have no weights, and whose heads may be clipped.

use super::llama_like::LlamaLike;
use super::llama_like::NormStyle;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["olmo"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let olmo = LlamaLike {
        norm: NormStyle {
            weighted: false,
            ..NormStyle::of(NormKind::Layer, 1e-5)
        },
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = olmo.describe(files)?;
    let clip = config.number("clip_qkv")?.map(|clip| clip as f32);
    for block in &mut architecture.blocks {
        block.attentions_mut().for_each(|a| a.clip = clip);
    }
    Ok(architecture)
}
