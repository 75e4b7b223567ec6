//! OPT: learned positions from the third row of their table on, LayerNorms, biases everywhere, ReLU.

use super::common;
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::block::{
    BlockOrder, DecoderBlock, FeedForward, Linear, NormKind, NormTensors, Projections,
    SelfAttention,
};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::position::{Position, PositionEmbedding};

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
    // The 350M model has all of these.
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
    let norm = |module: String| NormTensors {
        kind: NormKind::Layer,
        weight: format!("{module}.weight"),
        bias: Some(format!("{module}.bias")),
        features: hidden_size,
        epsilon: 1e-5,
    };
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, shape| {
            let module = module(name);
            let bias = bias.then(|| format!("{module}.bias"));
            Linear::of_its_own(format!("{module}.weight"), bias, shape)
        };
        DecoderBlock {
            order: BlockOrder::Sequential,
            attention_norm: norm(module("self_attn_layer_norm")),
            attention: SelfAttention {
                heads,
                projections: Projections::Separate(
                    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]
                        .map(|name| linear(name, [queries, hidden_size])),
                ),
                head_norms: None,
                position: Position::None,
                scale: common::usual_scale(heads),
                window: None,
                output: linear("self_attn.out_proj", [hidden_size, queries]),
            },
            mlp_norm: norm(module("final_layer_norm")),
            mlp: FeedForward {
                activation,
                gate: None,
                up: linear("fc1", [intermediate_size, hidden_size]),
                down: linear("fc2", [hidden_size, intermediate_size]),
            },
        }
    };
    let embedding = format!("{prefix}embed_tokens.weight");
    let positions = config.size("max_position_embeddings")?;
    Ok(Architecture {
        model_type: files.model_type,
        hidden_size,
        vocab_size: config.size("vocab_size")?,
        max_context: Some(positions),
        position_embedding: Some(PositionEmbedding {
            tensor: format!("{prefix}embed_positions.weight"),
            offset: 2,
            positions,
        }),
        embedding_norm: None,
        alibi: None,
        rotaries: Vec::new(),
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layer_norm")),
        head: files.tied_head(&["lm_head"], &embedding)?,
        head_bias: None,
        embedding,
    })
}
