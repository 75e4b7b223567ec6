//! Gemma: 1, 2 and 3.

use super::common;
use super::llama_like::{self, LlamaLike, NormStyle};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::rotary::{Rotary, RotaryDefaults};

/// Gemma 1: RMS norms by one plus their weight, and an embedding that is scaled.
pub(super) fn gemma(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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

/// Gemma 2: Gemma with a norm around each half of a block, windows in every other block, and soft caps.
pub(super) fn gemma2(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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

/// Gemma 3, and its text's half where it knows pictures, too: Gemma 2 with norms of heads, and with two bases.
pub(super) fn gemma3(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let sliding = common::sliding_but_every(config, files.blocks()?)?;
    let global = RotaryDefaults::of(common::grouped_heads(config)?.features);
    let local = RotaryDefaults {
        base_key: Some("rope_local_base_freq"),
        ..global
    };
    let rotaries = vec![
        Rotary::of_layers(config, "full_attention", true, global)?,
        Rotary::of_layers(config, "sliding_attention", false, local)?,
    ];
    let plain = LlamaLike::with_rotaries(files, rotaries)?;
    let gemma = LlamaLike {
        head_norms: llama_like::norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: common::windows_of(&sliding, common::window(config)?)?,
        positions: sliding
            .iter()
            .map(|slides| Position::Rotary(usize::from(*slides)))
            .collect(),
        ..like_gemma(files, plain)?
    };
    finish(files, gemma.describe(files)?)
}
