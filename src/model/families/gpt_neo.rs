//! GPT-Neo: learned positions, scores that are not scaled, and a window in every other block.

use serde_json::Value;

use super::common;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::position::PositionEmbedding;
use crate::untrusted::shown;

pub(super) static FAMILY: Family = Family {
    model_types: &["gpt_neo"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size_or("intermediate_size", Some(4 * hidden_size))?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation_at(config, "activation_function")?;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let window = config.size("window_size")?;
    let slides = slides(config, blocks)?;

    let prefix = files.prefix("transformer.", "wte");
    let norm = |module: String| common::layer_norm(module, hidden_size, epsilon);
    let block = |index: usize| {
        let module = |name| format!("{prefix}h.{index}.{name}");
        let linear = |name, bias, shape| common::linear(module(name), bias, shape);
        let projections = [
            "attn.attention.q_proj",
            "attn.attention.k_proj",
            "attn.attention.v_proj",
        ]
        .map(|name| linear(name, false, [queries, hidden_size]));
        let output = linear("attn.attention.out_proj", true, [hidden_size, queries]);
        let projections = Projections::Separate(projections);
        let attention = SelfAttention {
            scale: 1.0,
            window: slides[index].then_some(window),
            ..SelfAttention::plain(heads, projections, Position::None, output)
        };
        let mlp = common::ungated(
            activation,
            linear("mlp.c_fc", true, [intermediate_size, hidden_size]),
            linear("mlp.c_proj", true, [hidden_size, intermediate_size]),
        );
        DecoderBlock::plain(
            BlockOrder::Sequential,
            (norm(module("ln_1")), attention),
            (Some(norm(module("ln_2"))), mlp),
        )
    };
    let embedding = format!("{prefix}wte.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}h."),
        blocks: (0..blocks).map(block).collect(),
        final_norm: norm(format!("{prefix}ln_f")),
        head: files.head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        position_embedding: Some(PositionEmbedding {
            tensor: format!("{prefix}wpe.weight"),
            offset: 0,
            positions: config.size("max_position_embeddings")?,
        }),
        ..common::plain(files, parts)?
    })
}

/// The blocks with a window: `attention_types` is a list of patterns, each with how often it is repeated.
fn slides(config: &Config<'_>, blocks: usize) -> Result<Vec<bool>, Error> {
    let key = "attention_types";
    let Some(value) = config.get(key) else {
        return Ok((0..blocks).map(|block| block % 2 == 1).collect());
    };
    let wrong = || {
        let value = value.to_string();
        Error::Config(format!(
            "{key} is {}, not {blocks} blocks of global and local attention",
            shown(&value)
        ))
    };
    let mut slides = Vec::new();
    for pattern in value.as_array().ok_or_else(wrong)? {
        let types = pattern.get(0).and_then(Value::as_array);
        let times = pattern.get(1).and_then(Value::as_u64);
        let (types, times) = types.zip(times).ok_or_else(wrong)?;
        for _ in 0..times {
            if types.is_empty() || slides.len() >= blocks {
                return Err(wrong());
            }
            for kind in types {
                match kind.as_str() {
                    Some("global") => slides.push(false),
                    Some("local") => slides.push(true),
                    _ => return Err(wrong()),
                }
            }
        }
    }
    match slides.len() == blocks {
        true => Ok(slides),
        false => Err(wrong()),
    }
}
