//! BLOOM: ALiBi, a norm behind the embedding, one interleaved projection, biases everywhere.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::position::Alibi;

pub(super) fn bloom(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let adds_to_normed = config.flag("apply_residual_connection_post_layernorm")?;
    let hidden_size = config.size("hidden_size")?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let epsilon = config.needed_number("layer_norm_epsilon")?;

    let prefix = files.prefix("transformer.", "word_embeddings");
    let norm = |module: String| common::layer_norm(module, hidden_size, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}h.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), true, shape);
        let all = linear("self_attention.query_key_value", [3 * queries, hidden_size]);
        let attention = SelfAttention::plain(
            heads,
            Projections::Interleaved(all),
            Position::Alibi,
            linear("self_attention.dense", [hidden_size, queries]),
        );
        let mlp = common::ungated(
            Activation::GeluTanh,
            linear("mlp.dense_h_to_4h", [4 * hidden_size, hidden_size]),
            linear("mlp.dense_4h_to_h", [hidden_size, 4 * hidden_size]),
        );
        DecoderBlock {
            adds_to_normed,
            ..DecoderBlock::plain(
                BlockOrder::Sequential,
                (norm(module("input_layernorm")), attention),
                (Some(norm(module("post_attention_layernorm"))), mlp),
            )
        }
    };
    let embedding = format!("{prefix}word_embeddings.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}h."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}ln_f")),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    // What it was trained on; nothing ends there.
    let trained = config.size_if_any("seq_length")?;
    Ok(Architecture {
        max_context: trained,
        embedding_norm: Some(norm(format!("{prefix}word_embeddings_layernorm"))),
        alibi: Some(Alibi::of_paper(heads.queries)?),
        ..common::plain(files, parts)?
    })
}
