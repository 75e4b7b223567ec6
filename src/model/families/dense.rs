//! Dense decoders which are a Llama but for a few words.

use super::common;
use super::llama_like::{LlamaLike, MlpModules, NormStyle, norms_of_each_head};
use crate::model::activation::{Activation, Xielu};
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth, Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::rotary::{Pairing, Rotary, RotaryDefaults};
use crate::model::tensors::{HeadFactors, NormKind, NormTensors, Vector};

/// Command R and R7B (Cohere 1 and 2): one LayerNorm for both halves of a block, and rope on adjacent pairs.
pub(super) fn cohere(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let first = files.model_type == "cohere";
    let rope = RotaryDefaults {
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
        ..LlamaLike::with_rope(files, rope)?
    };
    if first {
        if config.flag("use_qk_norm")? {
            let names = ["self_attn.q_norm", "self_attn.k_norm"];
            cohere.head_norms = norms_of_each_head(names);
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

/// ERNIE 4.5, dense: a Llama with rope on adjacent pairs.
pub(super) fn ernie4_5(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let rope = RotaryDefaults {
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let bias = config.flag("use_bias")?;
    let ernie = LlamaLike {
        projection_bias: bias,
        output_bias: bias,
        mlp_bias: bias,
        ..LlamaLike::with_rope(files, rope)?
    };
    ernie.describe(files)
}

/// EXAONE 4: norms behind each half of a block and in each head; where some blocks slide, the others know no positions.
pub(super) fn exaone4(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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
    let position = |slides: &bool| {
        if window.is_none() || *slides {
            Position::Rotary(0)
        } else {
            Position::None
        }
    };
    let exaone = LlamaLike {
        attention_norm: None,
        attention_post_norm: Some("post_attention_layernorm"),
        mlp_norm: None,
        mlp_post_norm: Some("post_feedforward_layernorm"),
        head_norms: norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: common::windows_of(&sliding, window)?,
        positions: sliding.iter().map(position).collect(),
        ..LlamaLike::plain(files)?
    };
    exaone.describe(files)
}

/// Hunyuan, dense: a Llama with norms of each head after rope.
pub(super) fn hunyuan(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let rope = RotaryDefaults {
        alpha: true,
        ..RotaryDefaults::of(heads.features)
    };
    let attention_bias = config.flag("attention_bias")?;
    let hunyuan = LlamaLike {
        head_norms: Some(HeadNorms {
            norms: ["self_attn.query_layernorm", "self_attn.key_layernorm"],
            width: NormedWidth::Head,
            after_rotation: true,
        }),
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::with_rope(files, rope)?
    };
    hunyuan.describe(files)
}

/// Seed-OSS: a Llama with biases on queries, keys and values.
pub(super) fn seed_oss(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let seed = LlamaLike {
        projection_bias: config.flag("attention_bias")?,
        output_bias: config.flag("attention_out_bias")?,
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::plain(files)?
    };
    seed.describe(files)
}

/// SmolLM 3: a Llama of which every fourth block knows no positions.
pub(super) fn smollm3(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let interval = config.size("no_rope_layer_interval")?;
    // A list, for all its name, of the blocks that have rope.
    let turns: Vec<bool> = match config.get("no_rope_layers") {
        None => (0..blocks)
            .map(|block| (block + 1) % interval != 0)
            .collect(),
        Some(list) => {
            let list = list.as_array().filter(|list| list.len() == blocks);
            let list = list.ok_or_else(|| {
                let problem = format!("no_rope_layers is not a list of {blocks} numbers");
                Error::Config(problem)
            })?;
            list.iter().map(|turns| turns.as_u64() != Some(0)).collect()
        }
    };
    let window = if config.flag("use_sliding_window")? {
        common::window(config)?
    } else {
        None
    };
    let sliding = common::sliding(config, blocks, |block| window.is_some() && !turns[block])?;
    let attention_bias = config.flag("attention_bias")?;
    let heads = common::grouped_heads(config)?;
    let rope = RotaryDefaults {
        ..RotaryDefaults::of(heads.features)
    };
    let position = |turns: &bool| match turns {
        true => Position::Rotary(0),
        false => Position::None,
    };
    let smollm = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: config.flag("mlp_bias")?,
        windows: common::windows_of(&sliding, window)?,
        positions: turns.iter().map(position).collect(),
        ..LlamaLike::with_rope(files, rope)?
    };
    smollm.describe(files)
}

/// StarCoder 2: LayerNorms, biases, and a feed-forward part without a gate.
pub(super) fn starcoder2(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("use_bias")?;
    let starcoder = LlamaLike {
        norm: NormStyle {
            biased: true,
            ..NormStyle::of(NormKind::Layer, config.needed_number("norm_epsilon")?)
        },
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Plain("mlp.c_fc", "mlp.c_proj"),
        mlp_bias: bias,
        windows: vec![common::window(config)?; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    starcoder.describe(files)
}

/// StableLM 2: a Llama with LayerNorms, with rope on a part of each head; the halves of a block may be parallel.
pub(super) fn stablelm(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    common::only_usual_heads(config, config.size("hidden_size")? / heads.queries)?;
    let rope = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let parallel = config.flag("use_parallel_residual")?;
    let plain = LlamaLike::with_rope(files, rope)?;
    let stablelm = LlamaLike {
        order: if parallel {
            BlockOrder::Parallel
        } else {
            BlockOrder::Sequential
        },
        norm: NormStyle {
            biased: true,
            ..NormStyle::of(NormKind::Layer, config.needed_number("layer_norm_eps")?)
        },
        mlp_norm: plain.mlp_norm.filter(|_| !parallel),
        projection_bias: config.flag("use_qkv_bias")?,
        ..plain
    };
    let mut architecture = stablelm.describe(files)?;
    if config.flag("qk_layernorm")? {
        let prefix = architecture.block_prefix.clone();
        let epsilon = config.needed_number("layer_norm_eps")?;
        for (index, block) in architecture.blocks.iter_mut().enumerate() {
            let norm = |name, count| {
                let weight = format!("{prefix}{index}.self_attn.{name}.norms.*.weight");
                NormTensors {
                    heads: count,
                    head_factors: HeadFactors::Tensors,
                    ..NormTensors::plain(NormKind::Layer, weight, heads.features, epsilon)
                }
            };
            for attention in block.attentions_mut() {
                attention.head_norms = Some(HeadNorms {
                    norms: [
                        norm("q_layernorm", heads.queries),
                        norm("k_layernorm", heads.keys),
                    ],
                    width: NormedWidth::Head,
                    after_rotation: false,
                });
            }
        }
    }
    Ok(architecture)
}

/// Apertus: xIELU without a gate, whose two numbers each block learns, and norms of heads.
pub(super) fn apertus(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("attention_bias")?;
    let activation = common::activation(config)?;
    let apertus = LlamaLike {
        attention_norm: Some("attention_layernorm"),
        mlp_norm: Some("feedforward_layernorm"),
        projection_bias: bias,
        output_bias: bias,
        head_norms: norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        mlp: MlpModules::Plain("mlp.up_proj", "mlp.down_proj"),
        activation,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = apertus.describe(files)?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        let number = |name: &str| Vector::list(format!("{prefix}{index}.mlp.act_fn.{name}"), 1);
        // A number, or a list of one.
        let stored = |name: &str| {
            let number = number(name);
            let shape = files.headers.shape(&number.tensor)?;
            Some(if shape.is_empty() {
                number.scalar()
            } else {
                number
            })
        };
        let Some(FeedForward::Dense(mlp)) = &mut block.mlp else {
            continue;
        };
        mlp.xielu = (activation == Activation::Xielu).then(|| Xielu {
            above: number("alpha_p"),
            below: number("alpha_n"),
            slope: stored("beta"),
            edge: stored("eps"),
        });
    }
    Ok(architecture)
}

/// Helium: a Llama with rope on adjacent pairs.
pub(super) fn helium(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let rope = RotaryDefaults {
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let helium = LlamaLike {
        projection_bias: config.flag("attention_bias")?,
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::with_rope(files, rope)?
    };
    helium.describe(files)
}

/// Persimmon: one interleaved projection, norms in each head, rope on half of each head, squared ReLU, biases everywhere.
pub(super) fn persimmon(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let heads = common::heads(config, Ok)?;
    common::only_usual_heads(config, hidden_size / heads.queries)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation(config)?;
    let epsilon = config.needed_number("layer_norm_eps")?;
    let normed_heads = config.flag("qk_layernorm")?;

    let prefix = files.prefix("model.", "embed_tokens");
    let norm = |module: String, features| common::layer_norm(module, features, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), true, shape);
        let all = linear("self_attn.query_key_value", [3 * queries, hidden_size]);
        let attention = SelfAttention {
            head_norms: normed_heads.then(|| HeadNorms {
                norms: ["self_attn.q_layernorm", "self_attn.k_layernorm"]
                    .map(|name| norm(module(name), heads.features)),
                width: NormedWidth::Head,
                after_rotation: false,
            }),
            ..SelfAttention::plain(
                heads,
                Projections::Interleaved(all),
                Position::Rotary(0),
                linear("self_attn.dense", [hidden_size, queries]),
            )
        };
        let mlp = common::ungated(
            activation,
            linear("mlp.dense_h_to_4h", [intermediate_size, hidden_size]),
            linear("mlp.dense_4h_to_h", [hidden_size, intermediate_size]),
        );
        let attention_norm = norm(module("input_layernorm"), hidden_size);
        let mlp_norm = norm(module("post_attention_layernorm"), hidden_size);
        DecoderBlock::plain(
            BlockOrder::Sequential,
            (attention_norm, attention),
            (Some(mlp_norm), mlp),
        )
    };
    let defaults = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let embedding = format!("{prefix}embed_tokens.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layernorm"), hidden_size),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, defaults)?],
        ..common::plain(files, parts)?
    })
}
