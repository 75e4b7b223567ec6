//! DeepSeek 2 and 3: latent attention, dense blocks before those with experts, and experts for every token.

use super::common;
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadCounts, Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::experts::Router;
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::latent::{LatentProjections, LatentQuery, LatentWidths};
use crate::model::rotary::{self, Pairing, Rotary, RotaryDefaults};
use crate::model::tensors::{Linear, NormKind, NormTensors};
use crate::untrusted::shown;

/// What is added to the variance in the norms of narrow vectors, whatever config.json says of the others.
const LATENT_EPSILON: f64 = 1e-6;

pub(super) fn deepseek(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let second = files.model_type == "deepseek_v2";
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let activation = common::activation(config)?;
    let epsilon = config.needed_number("rms_norm_eps")?;
    let widths = LatentWidths {
        heads: config.size("num_attention_heads")?,
        rope: config.size("qk_rope_head_dim")?,
        nope: config.size("qk_nope_head_dim")?,
        value: config.size("v_head_dim")?,
    };
    let key_heads = config.size_or("num_key_value_heads", Some(widths.heads))?;
    if key_heads != widths.heads {
        return Err(Error::Config(format!(
            "num_key_value_heads is {key_heads} of {} heads, and each has keys of its own",
            widths.heads
        )));
    }
    if config.flag("mlp_bias")? {
        return Err(Error::Unsupported("mlp_bias with experts".to_owned()));
    }
    let rank = config.size("kv_lora_rank")?;
    let query_rank = config.size_if_any("q_lora_rank")?;
    common::only_usual_heads(config, widths.rope)?;
    let bias = config.flag("attention_bias")?;
    let features = widths.rope + widths.nope;
    let scale = (features as f64).powf(-0.5) * attention_scale(config)?;

    let sizes = ExpertSizes::read(
        files,
        "n_routed_experts",
        "moe_intermediate_size",
        activation,
    )?;
    let dense = common::count(config, "first_k_dense_replace")?;

    let prefix = files.prefix("model.", "embed_tokens");
    let norm = |module: String, features, epsilon| {
        NormTensors::plain(NormKind::Rms, format!("{module}.weight"), features, epsilon)
    };
    let block = |index: usize| -> Result<DecoderBlock, Error> {
        let of_block = format!("{prefix}layers.{index}.");
        let module = |name: &str| format!("{of_block}{name}");
        let linear = |name: &str, bias: bool, shape| {
            let module = module(name);
            let bias = bias.then(|| format!("{module}.bias"));
            Linear::of_its_own(format!("{module}.weight"), bias, shape)
        };
        // One tensor, the narrow vector before the key.
        let both = [rank, widths.rope];
        let [compression, rope_key] = linear(
            "self_attn.kv_a_proj_with_mqa",
            bias,
            [rank + widths.rope, hidden_size],
        )
        .split(both);
        let queries = widths.heads * features;
        let query = match query_rank {
            None => LatentQuery::Direct(linear("self_attn.q_proj", false, [queries, hidden_size])),
            Some(rank) => LatentQuery::Latent {
                down: linear("self_attn.q_a_proj", bias, [rank, hidden_size]),
                norm: norm(module("self_attn.q_a_layernorm"), rank, LATENT_EPSILON),
                up: linear("self_attn.q_b_proj", false, [queries, rank]),
            },
        };
        let latent = LatentProjections {
            widths,
            query,
            compression,
            rope_key,
            compression_norm: norm(module("self_attn.kv_a_layernorm"), rank, LATENT_EPSILON),
            expansion: linear(
                "self_attn.kv_b_proj",
                false,
                [widths.heads * (widths.nope + widths.value), rank],
            ),
        };
        let mlp = if index < dense {
            let sizes = [intermediate_size, hidden_size];
            FeedForward::Dense(moe::gated(&module("mlp"), activation, sizes))
        } else if second {
            of_v2(files, &sizes, &of_block)?
        } else {
            moe::with_correction(files, &sizes, &of_block)?
        };
        let heads = HeadCounts {
            queries: widths.heads,
            keys: widths.heads,
            features,
        };
        let found = widths.heads * widths.value;
        let attention = SelfAttention {
            scale: scale as f32,
            ..SelfAttention::plain(
                heads,
                Projections::Latent(Box::new(latent)),
                Position::Rotary(0),
                linear("self_attn.o_proj", bias, [hidden_size, found]),
            )
        };
        let [attention_norm, mlp_norm] = ["input_layernorm", "post_attention_layernorm"]
            .map(|name| norm(module(name), hidden_size, epsilon));
        Ok(DecoderBlock::plain(
            BlockOrder::Sequential,
            (attention_norm, attention),
            (Some(mlp_norm), mlp),
        ))
    };
    let embedding = format!("{prefix}embed_tokens.weight");
    let defaults = RotaryDefaults {
        pairing: if second || config.flag("rope_interleave")? {
            Pairing::Interleaved
        } else {
            Pairing::Halves
        },
        ..RotaryDefaults::of(widths.rope)
    };
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect::<Result<_, _>>()?,
        final_norm: norm(format!("{prefix}norm"), hidden_size, epsilon),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, defaults)?],
        ..common::plain(files, parts)?
    })
}

/// What YaRN multiplies the scores by (arXiv 2309.00071): the square of its `mscale_all_dim`.
fn attention_scale(config: &Config<'_>) -> Result<f64, Error> {
    let Some(scaling) = rotary::parameters(config)? else {
        return Ok(1.0);
    };
    let kind = rotary::kind(&scaling)?;
    let all = scaling.get("mscale_all_dim").and_then(|all| all.as_f64());
    match (kind, all) {
        ("default", _) | (_, None | Some(0.0)) => Ok(1.0),
        (_, Some(all)) => {
            let factor = scaling.needed_number("factor")?;
            let mscale = if factor > 1.0 {
                0.1 * all * factor.ln() + 1.0
            } else {
                1.0
            };
            Ok(mscale * mscale)
        }
    }
}

/// The experts of DeepSeek 2: a softmax, and groups judged by their best expert.
fn of_v2(files: &ModelFiles<'_>, sizes: &ExpertSizes, block: &str) -> Result<FeedForward, Error> {
    let config = &files.config;
    let module = format!("{block}mlp");
    let router = sizes.router(config, format!("{module}.gate.weight"))?;
    let groups = match config.word("topk_method")? {
        None | Some("greedy") => None,
        Some("group_limited_greedy") => moe::groups(config, sizes.count, router.chosen, 1)?,
        Some(other) => {
            return Err(Error::Unsupported(format!("topk_method {}", shown(other))));
        }
    };
    let router = Router {
        groups,
        // norm_topk_prob is false in every DeepSeek 2, and transformers takes no notice of it.
        normalised: false,
        scale: config.needed_number("routed_scaling_factor")?,
        ..router
    };
    if config.flag("norm_topk_prob")? {
        return Err(Error::Unsupported(
            "norm_topk_prob in a deepseek_v2".to_owned(),
        ));
    }
    let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
    Ok(moe::feed_forward(
        router,
        experts,
        moe::shared_experts(files, sizes, &module)?,
    ))
}
