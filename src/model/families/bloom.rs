//! BLOOM: ALiBi, a norm behind the embedding, one interleaved projection, biases everywhere.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::block::{
    BlockOrder, DecoderBlock, FeedForward, Linear, NormKind, NormTensors, Projections,
    SelfAttention,
};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::position::{Alibi, Position};

pub(super) static FAMILY: Family = Family {
    model_types: &["bloom"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    common::only(config, "apply_residual_connection_post_layernorm", false)?;
    let hidden_size = config.size("hidden_size")?;
    let heads = common::heads(config, Ok)?;
    let queries = heads.queries * heads.features;
    let epsilon = config.number_or("layer_norm_eps", 1e-5)?;

    let prefix = files.prefix("transformer.", "word_embeddings");
    let norm = |module: String| NormTensors {
        kind: NormKind::Layer,
        weight: format!("{module}.weight"),
        bias: Some(format!("{module}.bias")),
        features: hidden_size,
        epsilon,
    };
    let block = |index| {
        let module = |name| format!("{prefix}h.{index}.{name}");
        let linear = |name, shape| {
            let module = module(name);
            let bias = Some(format!("{module}.bias"));
            Linear::of_its_own(format!("{module}.weight"), bias, shape)
        };
        DecoderBlock {
            order: BlockOrder::Sequential,
            attention_norm: norm(module("input_layernorm")),
            attention: SelfAttention {
                heads,
                projections: Projections::Interleaved(linear(
                    "self_attention.query_key_value",
                    [3 * queries, hidden_size],
                )),
                head_norms: None,
                position: Position::Alibi,
                scale: common::usual_scale(heads),
                window: None,
                output: linear("self_attention.dense", [hidden_size, queries]),
            },
            mlp_norm: norm(module("post_attention_layernorm")),
            mlp: FeedForward {
                activation: Activation::GeluTanh,
                gate: None,
                up: linear("mlp.dense_h_to_4h", [4 * hidden_size, hidden_size]),
                down: linear("mlp.dense_4h_to_h", [hidden_size, 4 * hidden_size]),
            },
        }
    };
    let embedding = format!("{prefix}word_embeddings.weight");
    Ok(Architecture {
        model_type: files.model_type,
        hidden_size,
        vocab_size: config.size("vocab_size")?,
        // What it was trained on; nothing ends there.
        max_context: config
            .get("seq_length")
            .map(|_| config.size("seq_length"))
            .transpose()?,
        position_embedding: None,
        embedding_norm: Some(norm(format!("{prefix}word_embeddings_layernorm"))),
        alibi: Some(Alibi::of_paper(heads.queries)?),
        rotaries: Vec::new(),
        block_prefix: format!("{prefix}h."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}ln_f")),
        head: files.tied_head(&["lm_head"], &embedding)?,
        head_bias: None,
        embedding,
    })
}
