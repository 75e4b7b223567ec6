//! EXAONE 4: norms behind each half of a block and in each head; where some blocks slide, the others know no positions.

use super::common;
use super::llama_like::{self, LlamaLike};
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["exaone4"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let window = common::window(config)?;
    // The pattern may be a word, too, such as LLLG.
    let period = match config.get("sliding_window_pattern") {
        _ if window.is_none() || config.get("layer_types").is_some() => 1,
        Some(pattern) => match pattern.as_str() {
            Some(pattern) => pattern.len().max(1),
            None => config.size("sliding_window_pattern")?,
        },
        None => 1,
    };
    let sliding = common::sliding(config, blocks, |block| (block + 1) % period != 0)?;
    let position = |slides: &bool| match window.is_none() || *slides {
        true => Position::Rotary(0),
        false => Position::None,
    };
    let exaone = LlamaLike {
        attention_norm: None,
        attention_post_norm: Some("post_attention_layernorm"),
        mlp_norm: None,
        mlp_post_norm: Some("post_feedforward_layernorm"),
        head_norms: llama_like::norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: common::windows_of(&sliding, window)?,
        positions: sliding.iter().map(position).collect(),
        ..LlamaLike::plain(files)?
    };
    exaone.describe(files)
}
