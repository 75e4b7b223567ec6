//! Gemma 1: RMS norms by one plus their weight, and an embedding that is scaled.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::NormStyle;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["gemma"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    common::refuse(config, "use_bidirectional_attention")?;
    let attention_bias = config.flag("attention_bias")?;
    let plain = LlamaLike::plain(files)?;
    let gemma = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        activation: match plain.activation {
            // What the first releases say, and do not mean.
            Activation::Gelu => Activation::GeluTanh,
            other => other,
        },
        norm: NormStyle {
            offset: 1.0,
            ..plain.norm
        },
        ..plain
    };
    let mut architecture = gemma.describe(files)?;
    architecture.embedding_scale = (architecture.hidden_size as f32).sqrt();
    Ok(architecture)
}
