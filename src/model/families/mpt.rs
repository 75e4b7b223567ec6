//! MPT: ALiBi, queries, keys and values in one tensor, no biases anywhere.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::position::Alibi;
use crate::model::tensors::{NormKind, NormTensors};
use crate::untrusted::shown;

pub(super) static FAMILY: Family = Family {
    model_types: &["mpt"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    check(config)?;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = hidden_size * config.size("expansion_ratio")?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let attention_config = config.part_of_class("attn_config", "mpt.attn_config")?;
    // A number that may be missing; MPT writes 0 where it means that.
    let number = |key| -> Result<Option<f32>, Error> {
        let value = attention_config.get(key);
        let number = match value.is_some_and(|value| value.as_f64() == Some(0.0)) {
            true => None,
            false => attention_config.number(key)?,
        };
        Ok(number.map(|number| number as f32))
    };
    let (scale, clip) = (number("softmax_scale")?, number("clip_qkv")?);

    let prefix = files.prefix("transformer.", "wte");
    let norm = |module: String| {
        let weight = format!("{module}.weight");
        NormTensors::plain(NormKind::Layer, weight, hidden_size, epsilon)
    };
    let block = |index| {
        let module = |name| format!("{prefix}blocks.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), false, shape);
        let all = linear("attn.Wqkv", [3 * queries, hidden_size]);
        let plain = SelfAttention::plain(
            heads,
            Projections::one_after_the_other(all, heads),
            Position::Alibi,
            linear("attn.out_proj", [hidden_size, queries]),
        );
        let attention = SelfAttention {
            clip,
            scale: scale.unwrap_or(plain.scale),
            ..plain
        };
        let mlp = common::ungated(
            Activation::Gelu,
            linear("ffn.up_proj", [intermediate_size, hidden_size]),
            linear("ffn.down_proj", [hidden_size, intermediate_size]),
        );
        DecoderBlock::plain(
            BlockOrder::Sequential,
            (norm(module("norm_1")), attention),
            (Some(norm(module("norm_2"))), mlp),
        )
    };
    let embedding = format!("{prefix}wte.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}blocks."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}norm_f")),
        head: files.head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        alibi: Some(Alibi::of_mpt(heads.queries)?),
        ..common::plain(files, parts)?
    })
}

/// Refuses what MPT's own code has, and transformers does not compute.
fn check(config: &Config<'_>) -> Result<(), Error> {
    common::only(config, "no_bias", true)?;
    if let Some(scale) = config.get("logit_scale") {
        let scale = shown(&scale.to_string()).to_string();
        return Err(Error::Unsupported(format!("logit_scale {scale}")));
    }
    let norm = config.word("norm_type")?;
    if let Some(norm) = norm.filter(|norm| !norm.ends_with("layernorm")) {
        return Err(Error::Unsupported(format!("norm_type {}", shown(norm))));
    }
    let attention = config.part_of_class("attn_config", "mpt.attn_config")?;
    common::only(&attention, "alibi", true)?;
    common::only(&attention, "qk_ln", false)?;
    common::only(&attention, "prefix_lm", false)?;
    let kind = attention.word("attn_type")?;
    if let Some(kind) = kind.filter(|kind| *kind != "multihead_attention") {
        return Err(Error::Unsupported(format!("attn_type {}", shown(kind))));
    }
    let steepest = attention.needed_number("alibi_bias_max")?;
    if steepest != 8.0 {
        // transformers reads it and takes 8.
        return Err(Error::Unsupported(format!("alibi_bias_max {steepest}")));
    }
    Ok(())
}
