//! Gemma 3, and its text's half where it knows pictures, too: Gemma 2 with norms of heads, and with two bases.

use super::common;
use super::gemma2;
use super::llama_like::{self, LlamaLike};
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Rotary, RotaryDefaults};

pub(super) static FAMILY: Family = Family {
    model_types: &["gemma3", "gemma3_text"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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
        ..gemma2::like_gemma(files, plain)?
    };
    gemma2::finish(files, gemma.describe(files)?)
}
