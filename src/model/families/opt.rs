//! OPT: learned positions from the third row of their table on, LayerNorms, biases everywhere, ReLU.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::position::PositionEmbedding;

pub(super) static FAMILY: Family = Family {
    model_types: &["opt"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let activation = common::activation(config, Activation::Relu)?;
    let bias = config.flag_or("enable_bias", true)?;
    // The 350M model is otherwise in all of this.
    for (key, usual) in [
        ("do_layer_norm_before", true),
        ("_remove_final_layer_norm", false),
        ("layer_norm_elementwise_affine", true),
    ] {
        common::only(config, key, usual)?;
    }
    let embedded = config.size_or("word_embed_proj_dim", Some(hidden_size))?;
    if embedded != hidden_size {
        return Err(Error::Unsupported(format!(
            "word_embed_proj_dim {embedded} beside hidden_size {hidden_size}"
        )));
    }

    let prefix = files.prefix_of(&["model.decoder.", "decoder.", ""], "embed_tokens");
    let norm = |module: String| common::layer_norm(module, hidden_size, 1e-5);
    let block = |index| {
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
        DecoderBlock::plain(
            BlockOrder::Sequential,
            (norm(module("self_attn_layer_norm")), attention),
            (Some(norm(module("final_layer_norm"))), mlp),
        )
    };
    let embedding = format!("{prefix}embed_tokens.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layer_norm")),
        head: files.tied_head(&["lm_head"], &embedding)?,
        embedding,
    };
    Ok(Architecture {
        position_embedding: Some(PositionEmbedding {
            tensor: format!("{prefix}embed_positions.weight"),
            offset: 2,
            positions: config.size("max_position_embeddings")?,
        }),
        ..common::plain(files, parts)?
    })
}
