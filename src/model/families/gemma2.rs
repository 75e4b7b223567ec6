//! Gemma 2: Gemma with a norm around each half of a block, windows in every other block, and soft caps.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::NormStyle;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["gemma2"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let sliding = common::sliding(config, files.blocks()?, |block| block % 2 == 0)?;
    let gemma = LlamaLike {
        windows: common::windows_of(&sliding, common::window(config)?)?,
        ..like_gemma(files, LlamaLike::plain(files)?)?
    };
    finish(files, gemma.describe(files)?)
}

/// What Gemma 2 and 3 have in common.
pub(super) fn like_gemma(files: &ModelFiles<'_>, plain: LlamaLike) -> Result<LlamaLike, Error> {
    let config = &files.config;
    common::refuse(config, "use_bidirectional_attention")?;
    let attention_bias = config.flag("attention_bias")?;
    Ok(LlamaLike {
        attention_post_norm: Some("post_attention_layernorm"),
        mlp_norm: Some("pre_feedforward_layernorm"),
        mlp_post_norm: Some("post_feedforward_layernorm"),
        projection_bias: attention_bias,
        output_bias: attention_bias,
        activation: common::activation_at(config, "hidden_activation")?,
        norm: NormStyle {
            offset: 1.0,
            ..plain.norm
        },
        ..plain
    })
}

/// The numbers that they have in common.
pub(super) fn finish(
    files: &ModelFiles<'_>,
    mut architecture: Architecture,
) -> Result<Architecture, Error> {
    let config = &files.config;
    let soft_cap = config.number("attn_logit_softcapping")?;
    let scalar = config.needed_number("query_pre_attn_scalar")?;
    for block in &mut architecture.blocks {
        for attention in block.attentions_mut() {
            attention.scale = scalar.powf(-0.5) as f32;
            attention.soft_cap = soft_cap.map(|cap| cap as f32);
        }
    }
    architecture.embedding_scale = (architecture.hidden_size as f32).sqrt();
    let soft_cap = config.number("final_logit_softcapping")?;
    architecture.logit_soft_cap = soft_cap.map(|cap| cap as f32);
    Ok(architecture)
}
