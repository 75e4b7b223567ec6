//! Command R and R7B (Cohere 1 and 2): one LayerNorm for both halves of a block, and pairs of neighbours turn.

use serde_json::json;

use super::common;
use super::llama_like::{self, LlamaLike, NormStyle};
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::block::BlockOrder;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, RotaryDefaults};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["cohere", "cohere2"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"tie_word_embeddings": true});
    let files = &files.over(&defaults);
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let first = files.model_type == "cohere";
    let turning = RotaryDefaults {
        base: if first { 500_000.0 } else { 10_000.0 },
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let attention_bias = config.flag_or("attention_bias", false)?;
    let mut cohere = LlamaLike {
        order: BlockOrder::Parallel,
        norm: NormStyle::of(NormKind::Layer, config.number_or("layer_norm_eps", 1e-5)?),
        mlp_norm: None,
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::turning(files, turning)?
    };
    if first {
        if config.flag_or("use_qk_norm", false)? {
            let names = ["self_attn.q_norm", "self_attn.k_norm"];
            cohere.head_norms = llama_like::norms_of_each_head(names);
            cohere.factors_by_head = true;
        }
    } else {
        // The blocks that see everything know no positions.
        let key = "sliding_window_pattern";
        let sliding = common::sliding_but_every(config, files.blocks()?, key, 4)?;
        let window = config.size_or("sliding_window", Some(4096))?;
        cohere.windows = common::windows_of(&sliding, Some(window))?;
        let position = |slides: &bool| match slides {
            true => Position::Rotary(0),
            false => Position::None,
        };
        cohere.positions = sliding.iter().map(position).collect();
    }
    let mut architecture = cohere.describe(files)?;
    architecture.logit_scale = config.number_or("logit_scale", 0.0625)? as f32;
    Ok(architecture)
}
