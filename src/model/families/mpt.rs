//! MPT and DBRX, of one maker.

use super::common;
use super::moe;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::experts::{Router, Scores};
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::position::Alibi;
use crate::model::rotary::{self, Rotary, RotaryDefaults};
use crate::model::tensors::{Linear, NormKind, NormTensors, Slice};
use crate::targets::Layout;
use crate::untrusted::shown;

/// MPT: ALiBi, queries, keys and values in one tensor, no biases anywhere.
pub(super) fn mpt(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    check_mpt(config)?;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = hidden_size * config.size("expansion_ratio")?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let attention_config = config.part_of_class("attn_config", "mpt.attn_config")?;
    // A number that may be missing; MPT writes 0 where it means that.
    let number = |key| -> Result<Option<f32>, Error> {
        let value = attention_config.get(key);
        let number = if value.is_some_and(|value| value.as_f64() == Some(0.0)) {
            None
        } else {
            attention_config.number(key)?
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
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        alibi: Some(Alibi::of_mpt(heads.queries)?),
        ..common::plain(files, parts)?
    })
}

/// Refuses what MPT's own code has, and transformers does not compute.
fn check_mpt(config: &Config<'_>) -> Result<(), Error> {
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

/// DBRX: LayerNorms without biases, clipped projections in one, and experts one below the other in three matrices.
pub(super) fn dbrx(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let of_attention = config.part_of_class("attn_config", "dbrx.attn_config")?;
    let of_experts = config.part_of_class("ffn_config", "dbrx.ffn_config")?;
    let key_heads = of_attention.size("kv_n_heads")?;
    let heads = common::heads(config, |_| Ok(key_heads))?;
    common::only_usual_heads(config, hidden_size / heads.queries)?;
    let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
    let clip = of_attention.number("clip_qkv")?.map(|clip| clip as f32);

    let prefix = files.prefix("transformer.", "wte");
    let norm = |module: String| {
        NormTensors::plain(
            NormKind::Layer,
            format!("{module}.weight"),
            hidden_size,
            1e-5,
        )
    };
    let block = |index: usize| -> Result<DecoderBlock, Error> {
        let module = |name: &str| format!("{prefix}blocks.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), false, shape);
        let all = linear(
            "norm_attn_norm.attn.Wqkv",
            [queries + 2 * keys, hidden_size],
        );
        let attention = SelfAttention {
            clip,
            ..SelfAttention::plain(
                heads,
                Projections::one_after_the_other(all, heads),
                Position::Rotary(0),
                linear("norm_attn_norm.attn.out_proj", [hidden_size, queries]),
            )
        };
        let mlp = dbrx_experts(files, &of_experts, hidden_size, &module("ffn"))?;
        let norms = ["norm_attn_norm.norm_1", "norm_attn_norm.norm_2"];
        let [attention_norm, mlp_norm] = norms.map(|name| norm(module(name)));
        Ok(DecoderBlock::plain(
            BlockOrder::Sequential,
            (attention_norm, attention),
            (Some(mlp_norm), mlp),
        ))
    };
    let embedding = format!("{prefix}wte.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}blocks."),
        blocks: (0..files.blocks()?).map(block).collect::<Result<_, _>>()?,
        final_norm: norm(format!("{prefix}norm_f")),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    check_base(config)?;
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, RotaryDefaults::of(heads.features))?],
        ..common::plain(files, parts)?
    })
}

/// Refuses a base in `attn_config`, where DBRX was published with it and transformers 5 does not look, unless it is the one
/// that counts.
fn check_base(config: &Config<'_>) -> Result<(), Error> {
    let part = config.part("attn_config")?;
    let published = part.map(|part| part.number("rope_theta")).transpose()?;
    let Some(published) = published.flatten() else {
        return Ok(());
    };
    let parameters = rotary::parameters(config)?;
    let counts = parameters
        .map(|part| part.number("rope_theta"))
        .transpose()?;
    let counts = match counts.flatten() {
        Some(counts) => counts,
        None => config.needed_number("rope_theta")?,
    };
    if published == counts {
        Ok(())
    } else {
        Err(Error::Config(format!(
            "attn_config has a rope_theta of {published}, and transformers takes {counts}: rope_parameters says it for both"
        )))
    }
}

/// The experts of a module: `[experts * ffn_hidden_size, hidden_size]` three times, of which the last is an expert's
/// `[in, out]`.
fn dbrx_experts(
    files: &ModelFiles<'_>,
    config: &Config<'_>,
    hidden_size: usize,
    module: &str,
) -> Result<FeedForward, Error> {
    let inner = config.size("ffn_hidden_size")?;
    let count = config.size("moe_num_experts")?;
    let chosen = config.size("moe_top_k")?;
    if chosen > count {
        return Err(Error::Config(format!(
            "moe_top_k is {chosen}, and there are {count} experts"
        )));
    }
    let key = "moe_normalize_expert_weights";
    let normalised = match config.get(key) {
        Some(power) if power.as_f64() == Some(1.0) => true,
        Some(other) => {
            let other = other.to_string();
            return Err(Error::Unsupported(format!("{key} {}", shown(&other))));
        }
        None => false,
    };
    let activation = match config.part("ffn_act_fn")? {
        None => Activation::Silu,
        Some(part) => common::activation_at(&part, "name")?,
    };
    let names = ["w1", "v1", "w2"].map(|name| format!("{module}.experts.mlp.{name}"));
    for name in &names {
        let rows = count.saturating_mul(inner);
        files.headers.check(name, &[rows, hidden_size])?;
    }
    let part = |index, name: &String, layout, shape| Linear {
        layout,
        slice: Some(Slice {
            index,
            count,
            stacked: true,
        }),
        ..Linear::of_its_own(name.clone(), None, shape)
    };
    let [gate, up, down] = &names;
    let expert = |index| Mlp {
        activation,
        xielu: None,
        gate: Some(part(index, gate, Layout::OutIn, [inner, hidden_size])),
        up: part(index, up, Layout::OutIn, [inner, hidden_size]),
        down: part(index, down, Layout::InOut, [hidden_size, inner]),
    };
    let router = Router {
        layer: common::linear(
            format!("{module}.router.layer"),
            false,
            [count, hidden_size],
        ),
        scores: Scores::Softmax,
        correction: None,
        groups: None,
        chosen,
        normalised,
        sum_offset: 0.0,
        scale: 1.0,
    };
    let experts = (0..count).map(expert).collect();
    Ok(moe::feed_forward(router, experts, None))
}
