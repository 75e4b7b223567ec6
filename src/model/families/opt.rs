//! OPT: learned positions from the third row of their table on, LayerNorms, biases everywhere, ReLU.

use super::common;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::position::PositionEmbedding;

pub(super) fn opt(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("ffn_dim")?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation_at(config, "activation_function")?;
    let bias = config.flag("enable_bias")?;
    for (key, usual) in [
        ("_remove_final_layer_norm", false),
        ("layer_norm_elementwise_affine", true),
    ] {
        common::only(config, key, usual)?;
    }
    // In the 350M model a norm is of the sum of what a half read and what it made of it. This is a norm of what the next
    // half reads, which that one adds to.
    let norms_after = !config.flag("do_layer_norm_before")?;
    let embedding_size = config.size_or("word_embed_proj_dim", Some(hidden_size))?;

    let prefix = files.prefix_of(&["model.decoder.", "decoder.", ""], "embed_tokens");
    let norm = |module: String| common::layer_norm(module, hidden_size, 1e-5);
    let blocks = files.blocks()?;
    let block = |index: usize| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), bias, shape);
        let attention = SelfAttention::plain(
            heads,
            Projections::Separate(
                ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
                    .map(|name| linear(name, [queries, hidden_size])),
            ),
            Position::None,
            linear("self_attn.out_proj", [hidden_size, queries]),
        );
        let mlp = common::ungated(
            activation,
            linear("fc1", [intermediate_size, hidden_size]),
            linear("fc2", [hidden_size, intermediate_size]),
        );
        let of_block = |index: usize, name| norm(format!("{prefix}layers.{index}.{name}"));
        let (first, second) = ("self_attn_layer_norm", "final_layer_norm");
        let names = if norms_after {
            (second, first)
        } else {
            (first, second)
        };
        let plain = DecoderBlock::plain(
            BlockOrder::Sequential,
            (of_block(index, names.0), attention),
            (Some(of_block(index, names.1)), mlp),
        );
        if !norms_after {
            plain
        } else {
            DecoderBlock {
                adds_to_normed: true,
                mixer_norm: index.checked_sub(1).map(|before| of_block(before, second)),
                ..plain
            }
        }
    };
    let embedding = format!("{prefix}embed_tokens.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..blocks).map(block).collect(),
        final_norm: norm(if !norms_after {
            format!("{prefix}final_layer_norm")
        } else {
            format!("{prefix}layers.{}.final_layer_norm", blocks - 1)
        }),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    let projection = |name: &str, shape| common::linear(format!("{prefix}{name}"), false, shape);
    let projections = (embedding_size != hidden_size).then(|| {
        [
            projection("project_in", [hidden_size, embedding_size]),
            projection("project_out", [embedding_size, hidden_size]),
        ]
    });
    Ok(Architecture {
        embedding_size,
        embedding_projections: projections,
        position_embedding: Some(PositionEmbedding {
            tensor: format!("{prefix}embed_positions.weight"),
            offset: 2,
            positions: config.size("max_position_embeddings")?,
        }),
        ..common::plain(files, parts)?
    })
}
