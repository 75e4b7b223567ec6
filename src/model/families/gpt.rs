//! GPT-2 and the open models that followed it: GPT-J, CodeGen, GPT-Neo, GPT-NeoX.

use serde_json::Value;

use super::common;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadCounts, Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::position::PositionEmbedding;
use crate::model::rotary::{Pairing, Rotary, RotaryDefaults};
use crate::model::tensors::Linear;
use crate::names::rules::Layout;
use crate::untrusted::shown;

/// In what GPT-2 and GPTBigCode differ.
struct Variant {
    layout: Layout,
    heads: HeadCounts,
    /// Whether a head's query, key and value are side by side in their tensor.
    interleaved: bool,
    /// Whether the scores of a block are divided by its number, counted from 1.
    scaled_by_block: bool,
}

pub(super) fn gpt2(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let variant = Variant {
        layout: Layout::InOut,
        heads: common::heads(config, Ok)?,
        interleaved: false,
        scaled_by_block: config.flag("scale_attn_by_inverse_layer_idx")?,
    };
    variant.describe(files)
}

pub(super) fn gpt_bigcode(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let multi_query = config.flag("multi_query")?;
    let variant = Variant {
        layout: Layout::OutIn,
        heads: common::heads(config, |heads| Ok(if multi_query { 1 } else { heads }))?,
        interleaved: !multi_query,
        scaled_by_block: false,
    };
    variant.describe(files)
}

impl Variant {
    fn describe(&self, files: &ModelFiles<'_>) -> Result<Architecture, Error> {
        let config = &files.config;
        common::only(config, "add_cross_attention", false)?;
        let hidden_size = config.size("hidden_size")?;
        let intermediate_size = config.size_or("n_inner", Some(4 * hidden_size))?;
        let heads = self.heads;
        let queries = heads.queries * heads.features;
        let activation = common::activation_at(config, "activation_function")?;
        let epsilon = config.needed_number("layer_norm_epsilon")?;
        let scaled = config.flag("scale_attn_weights")?;

        let prefix = files.prefix("transformer.", "wte");
        let norm = |module: String| common::layer_norm(module, hidden_size, epsilon);
        let block = |index: usize| {
            let module = |name| format!("{prefix}h.{index}.{name}");
            let linear = |name, shape| Linear {
                layout: self.layout,
                ..common::linear(module(name), true, shape)
            };
            let scale = if scaled {
                common::usual_scale(heads)
            } else {
                1.0
            };
            let divisor = if self.scaled_by_block { index + 1 } else { 1 };
            let rows = queries + 2 * heads.keys * heads.features;
            let all = linear("attn.c_attn", [rows, hidden_size]);
            let projections = if self.interleaved {
                Projections::Interleaved(all)
            } else {
                Projections::one_after_the_other(all, heads)
            };
            let output = linear("attn.c_proj", [hidden_size, queries]);
            let attention = SelfAttention {
                scale: scale / divisor as f32,
                ..SelfAttention::plain(heads, projections, Position::None, output)
            };
            let mlp = common::ungated(
                activation,
                linear("mlp.c_fc", [intermediate_size, hidden_size]),
                linear("mlp.c_proj", [hidden_size, intermediate_size]),
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
            blocks: (0..files.blocks()?).map(block).collect(),
            final_norm: norm(format!("{prefix}ln_f")),
            lm_head: files.lm_head(&["lm_head"], &embedding),
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
}

/// CodeGen: a GPT-J whose projections lie in quarters of one matrix.
pub(super) fn codegen(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    like_gptj(files, in_quarters)
}

/// GPT-J: each projection stands alone.
pub(super) fn gptj(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    like_gptj(files, separate)
}

/// The projections of a block, by what its names begin with.
type ReadProjections = fn(&str, HeadCounts, usize) -> Result<Projections, Error>;

/// A tensor each.
fn separate(block: &str, heads: HeadCounts, hidden_size: usize) -> Result<Projections, Error> {
    let shape = [heads.queries * heads.features, hidden_size];
    let names = ["attn.q_proj", "attn.k_proj", "attn.v_proj"];
    let layers = names.map(|name| common::linear(format!("{block}{name}"), false, shape));
    Ok(Projections::Separate(layers))
}

/// One tensor in four quarters, as it was trained on four devices: of a quarter of the heads the queries, the values, the
/// keys.
fn in_quarters(block: &str, heads: HeadCounts, hidden_size: usize) -> Result<Projections, Error> {
    const QUARTERS: usize = 4;
    if !heads.queries.is_multiple_of(QUARTERS) {
        return Err(Error::Config(format!(
            "num_attention_heads is {}, not a multiple of {QUARTERS}",
            heads.queries
        )));
    }
    let queries = heads.queries * heads.features;
    let run = queries / QUARTERS;
    let all = format!("{block}attn.qkv_proj");
    let all = common::linear(all, false, [3 * queries, hidden_size]);
    let [q, v, k] = [0, run, 2 * run].map(|first| all.runs([first, run, 3 * run]));
    Ok(Projections::Separate([q, k, v]))
}

fn like_gptj(files: &ModelFiles<'_>, projections: ReadProjections) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size_or("n_inner", Some(4 * hidden_size))?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation_at(config, "activation_function")?;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let turned = config.size("rotary_dim")?;

    let prefix = files.prefix("transformer.", "wte");
    let norm = |module: String| common::layer_norm(module, hidden_size, epsilon);
    let block = |index| -> Result<DecoderBlock, Error> {
        let module = |name| format!("{prefix}h.{index}.{name}");
        let linear = |name, bias, shape| common::linear(module(name), bias, shape);
        let attention = SelfAttention::plain(
            heads,
            projections(&module(""), heads, hidden_size)?,
            Position::Rotary(0),
            linear("attn.out_proj", false, [hidden_size, queries]),
        );
        let mlp = common::ungated(
            activation,
            linear("mlp.fc_in", true, [intermediate_size, hidden_size]),
            linear("mlp.fc_out", true, [hidden_size, intermediate_size]),
        );
        let attention_norm = norm(module("ln_1"));
        Ok(DecoderBlock::plain(
            BlockOrder::Parallel,
            (attention_norm, attention),
            (None, mlp),
        ))
    };
    let embedding = format!("{prefix}wte.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}h."),
        blocks: (0..files.blocks()?).map(block).collect::<Result<_, _>>()?,
        final_norm: norm(format!("{prefix}ln_f")),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::fixed(turned, heads.features, Pairing::Interleaved)?],
        lm_head_bias: Some("lm_head.bias".to_owned()),
        ..common::plain(files, parts)?
    })
}

/// GPT-Neo: learned positions, scores that are not scaled, and a window in every other block.
pub(super) fn gpt_neo(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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
        lm_head: files.lm_head(&["lm_head"], &embedding),
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
    if slides.len() == blocks {
        Ok(slides)
    } else {
        Err(wrong())
    }
}

/// GPT-NeoX (Pythia): LayerNorms, one interleaved projection, rope on a part of each head, the halves of a block in parallel.
pub(super) fn gpt_neox(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let heads = common::heads(config, Ok)?;
    common::only_usual_heads(config, hidden_size / heads.queries)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation(config)?;
    let epsilon = config.needed_number("layer_norm_eps")?;
    let attention_bias = config.flag("attention_bias")?;
    let order = if config.flag("use_parallel_residual")? {
        BlockOrder::Parallel
    } else {
        BlockOrder::Sequential
    };

    let prefix = files.prefix("gpt_neox.", "embed_in");
    let norm = |module| common::layer_norm(module, hidden_size, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, bias, shape| common::linear(module(name), bias, shape);
        let all = linear(
            "attention.query_key_value",
            attention_bias,
            [3 * queries, hidden_size],
        );
        let attention = SelfAttention::plain(
            heads,
            Projections::Interleaved(all),
            Position::Rotary(0),
            linear("attention.dense", attention_bias, [hidden_size, queries]),
        );
        let mlp = common::ungated(
            activation,
            linear("mlp.dense_h_to_4h", true, [intermediate_size, hidden_size]),
            linear("mlp.dense_4h_to_h", true, [hidden_size, intermediate_size]),
        );
        let attention_norm = norm(module("input_layernorm"));
        let mlp_norm = norm(module("post_attention_layernorm"));
        DecoderBlock::plain(order, (attention_norm, attention), (Some(mlp_norm), mlp))
    };
    let embedding = format!("{prefix}embed_in.weight");
    let defaults = RotaryDefaults {
        base_key: Some("rotary_emb_base"),
        fraction_key: Some("rotary_pct"),
        ..RotaryDefaults::of(heads.features)
    };
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layer_norm")),
        // Newer versions of transformers write the second name.
        lm_head: files.lm_head(&["embed_out", "lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, defaults)?],
        ..common::plain(files, parts)?
    })
}
