//! Gemma 3, and its text's half where it knows pictures, too: Gemma 2 with norms of heads, and with two bases.

use serde_json::json;

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
    // A text_config says only what differs from these.
    let defaults = json!({
        "vocab_size": 262_208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256,
        "max_position_embeddings": 131_072, "tie_word_embeddings": true, "sliding_window": 4096,
        "query_pre_attn_scalar": 256,
    });
    let files = &files.over(&defaults);
    let config = &files.config;
    let key = "sliding_window_pattern";
    let sliding = common::sliding_but_every(config, files.blocks()?, key, 6)?;
    let plain = LlamaLike::plain(files)?;
    let global = RotaryDefaults {
        base: 1_000_000.0,
        ..RotaryDefaults::of(plain.heads.features)
    };
    let local = RotaryDefaults {
        base_key: "rope_local_base_freq",
        ..RotaryDefaults::of(plain.heads.features)
    };
    let gemma = LlamaLike {
        head_norms: llama_like::norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: common::windows_of(&sliding, common::window(config)?)?,
        rotaries: vec![
            Rotary::of_layers(config, "full_attention", true, global)?,
            Rotary::of_layers(config, "sliding_attention", false, local)?,
        ],
        positions: sliding
            .iter()
            .map(|slides| Position::Rotary(usize::from(*slides)))
            .collect(),
        ..gemma2::like_gemma(files, plain)?
    };
    gemma2::finish(files, gemma.describe(files)?)
}
