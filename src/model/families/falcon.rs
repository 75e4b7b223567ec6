//! Falcon, and the hybrid Falcon H1.

use super::common;
use super::llama_like::{LlamaLike, MlpModules};
use super::state_spaces::Mamba2;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock, Mixer};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::position::Alibi;
use crate::model::rotary::{Rotary, RotaryDefaults};
use crate::model::tensors::Linear;

/// How a block's norms are called and what they are for.
struct FalconNorms {
    order: BlockOrder,
    attention: &'static str,
    mlp: Option<&'static str>,
}

impl FalconNorms {
    fn read(config: &Config<'_>, newer: bool) -> Result<Self, Error> {
        let parallel = config.flag("parallel_attn")?;
        let count = config.size_or("num_ln_in_parallel_attn", Some(if newer { 2 } else { 1 }))?;
        let (order, attention, mlp) = match (newer, parallel, count) {
            (true, true, 2) => (BlockOrder::Parallel, "ln_attn", Some("ln_mlp")),
            (_, true, 1) => (BlockOrder::Parallel, "input_layernorm", None),
            (false, false, _) => {
                let mlp = Some("post_attention_layernorm");
                (BlockOrder::Sequential, "input_layernorm", mlp)
            }
            _ => {
                return Err(Error::Unsupported(format!(
                    "num_ln_in_parallel_attn {count} with parallel_attn {parallel} and new_decoder_architecture {newer}"
                )));
            }
        };
        Ok(Self {
            order,
            attention,
            mlp,
        })
    }
}

/// Falcon: one tensor of queries, keys and values, with one key for all queries (7B), some for each (40B, 180B, 2 11B) or one
/// for each (RW); the halves of a block in parallel, with one norm or two, or one after the other; rotary or ALiBi.
pub(super) fn falcon(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size_or("ffn_hidden_size", Some(4 * hidden_size))?;
    let newer = config.flag("new_decoder_architecture")?;
    let multi_query = config.flag("multi_query")?;
    let heads = common::heads(config, |heads| match (newer, multi_query) {
        (true, _) => config.size_or("num_kv_heads", Some(heads)),
        (false, true) => Ok(1),
        (false, false) => Ok(heads),
    })?;
    let queries = heads.queries * heads.features;
    let activation = common::activation_at(config, "activation")?;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let bias = config.flag("bias")?;
    let norms = FalconNorms::read(config, newer)?;
    let (alibi, rotaries, position) = if config.flag("alibi")? {
        // The biases are added before the scores are scaled.
        let alibi = Alibi {
            factor: common::usual_scale(heads),
            in_bf16: true,
            ..Alibi::of_paper(heads.queries)?
        };
        (Some(alibi), Vec::new(), Position::Alibi)
    } else {
        let rotary = Rotary::read(config, RotaryDefaults::of(heads.features))?;
        (None, vec![rotary], Position::Rotary(0))
    };

    let prefix = files.prefix("transformer.", "word_embeddings");
    let norm = |module: String| common::layer_norm(module, hidden_size, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}h.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), bias, shape);
        let rows = queries + 2 * heads.keys * heads.features;
        let all = linear("self_attention.query_key_value", [rows, hidden_size]);
        let projections = match (heads.keys, newer) {
            (1, _) => Projections::one_after_the_other(all, heads),
            (_, false) => Projections::Interleaved(all),
            (_, true) => Projections::by_key_head(&all, heads),
        };
        let output = linear("self_attention.dense", [hidden_size, queries]);
        let attention = SelfAttention::plain(heads, projections, position, output);
        let mlp = common::ungated(
            activation,
            linear("mlp.dense_h_to_4h", [intermediate_size, hidden_size]),
            linear("mlp.dense_4h_to_h", [hidden_size, intermediate_size]),
        );
        let mlp_norm = norms.mlp.map(|name| norm(module(name)));
        let attention_norm = norm(module(norms.attention));
        DecoderBlock::plain(norms.order, (attention_norm, attention), (mlp_norm, mlp))
    };
    let embedding = format!("{prefix}word_embeddings.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}h."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}ln_f")),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        alibi,
        rotaries,
        ..common::plain(files, parts)?
    })
}

/// Falcon H1: attention and Mamba 2 side by side in every block, and multipliers everywhere.
pub(super) fn falcon_h1(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("attention_bias")?;
    let falcon = LlamaLike {
        mlp_norm: Some("pre_ff_layernorm"),
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Gated(
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ),
        mlp_bias: config.flag("mlp_bias")?,
        final_norm: "final_layernorm",
        ..LlamaLike::plain(files)?
    };
    let mut architecture = falcon.describe(files)?;
    let factor = |key: &str| config.needed_number(key);
    architecture.embedding_scale = factor("embedding_multiplier")? as f32;
    architecture.logit_scale = factor("lm_head_multiplier")? as f32;

    let channels = match config.size_if_any("mamba_d_ssm")? {
        Some(channels) => channels,
        None => config.size("mamba_expand")? * architecture.hidden_size,
    };
    let plain = Mamba2::of_hybrid(config, channels)?;
    let normed = config.flag("mamba_rms_norm")?;
    let mamba = Mamba2 {
        output_bias: config.flag("projectors_bias")?,
        multipliers: factors(config, "ssm_multipliers")?,
        norm: plain.norm.filter(|_| normed),
        norm_before_gate: config.flag("mamba_norm_before_gate")?,
        ..plain
    };
    let [of_gate, of_down] = factors(config, "mlp_multipliers")?;
    let [of_keys, of_attention, of_mamba] = [
        "key_multiplier",
        "attention_out_multiplier",
        "ssm_out_multiplier",
    ]
    .map(factor);
    let (of_keys, of_attention, of_mamba) = (of_keys?, of_attention?, of_mamba?);
    let into_attention = factor("attention_in_multiplier")? as f32;
    let into_mamba = factor("ssm_in_multiplier")? as f32;
    let prefix = architecture.block_prefix.clone();
    let times = |layer: &mut Linear, factor| *layer = layer.clone().times(factor);
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        for attention in block.attentions_mut() {
            if let Projections::Separate([_, keys, _]) = &mut attention.projections {
                times(keys, of_keys);
            }
            times(&mut attention.output, of_attention);
        }
        block.mixers[0].input_scale = into_attention;
        let mut recurrence = mamba.mixer(&format!("{prefix}{index}.mamba"));
        times(&mut recurrence.output, of_mamba);
        block.mixers.push(Mixer {
            input_scale: into_mamba,
            ..recurrence.into()
        });
        if let Some(FeedForward::Dense(mlp)) = &mut block.mlp {
            mlp.gate.iter_mut().for_each(|gate| times(gate, of_gate));
            times(&mut mlp.down, of_down);
        }
    }
    Ok(architecture)
}

/// A list of so many factors; each is 1 where there is none.
fn factors<const N: usize>(config: &Config<'_>, key: &str) -> Result<[f64; N], Error> {
    match config.get(key) {
        None => Ok([1.0; N]),
        Some(_) => {
            let numbers = config.numbers(key, N)?;
            Ok(std::array::from_fn(|index| numbers[index]))
        }
    }
}
