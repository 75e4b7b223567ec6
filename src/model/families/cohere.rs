//! Command R and R7B (Cohere 1 and 2): one LayerNorm for both halves of a block, and pairs of neighbours turn.

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
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let first = files.model_type == "cohere";
    let turning = RotaryDefaults {
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let attention_bias = config.flag("attention_bias")?;
    let mut cohere = LlamaLike {
        order: BlockOrder::Parallel,
        norm: NormStyle::of(NormKind::Layer, config.needed_number("layer_norm_eps")?),
        mlp_norm: None,
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::turning(files, turning)?
    };
    if first {
        if config.flag("use_qk_norm")? {
            let names = ["self_attn.q_norm", "self_attn.k_norm"];
            cohere.head_norms = llama_like::norms_of_each_head(names);
            cohere.factors_by_head = true;
        }
    } else {
        // The blocks that see everything know no positions.
        let sliding = common::sliding_but_every(config, files.blocks()?)?;
        cohere.windows = common::windows_of(&sliding, common::window(config)?)?;
        let position = |slides: &bool| match slides {
            true => Position::Rotary(0),
            false => Position::None,
        };
        cohere.positions = sliding.iter().map(position).collect();
    }
    let mut architecture = cohere.describe(files)?;
    architecture.logit_scale = config.needed_number("logit_scale")? as f32;
    Ok(architecture)
}
