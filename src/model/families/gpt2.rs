//! GPT-2 and GPT-BigCode (StarCoder 1, SantaCoder): learned positions, LayerNorms, queries, keys and values in one tensor,
//! biases everywhere. GPT-2 stores its layers as `[in_features, out_features]`.

use super::common;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadCounts, Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::position::PositionEmbedding;
use crate::model::tensors::Linear;
use crate::names::rules::Layout;

pub(super) static GPT2: Family = Family {
    model_types: &["gpt2"],
    describe: gpt2,
};

pub(super) static GPT_BIGCODE: Family = Family {
    model_types: &["gpt_bigcode"],
    describe: gpt_bigcode,
};

/// In what the two differ.
struct Variant {
    layout: Layout,
    heads: HeadCounts,
    /// Whether a head's query, key and value are side by side in their tensor.
    interleaved: bool,
    /// Whether the scores of a block are divided by its number, counted from 1.
    scaled_by_block: bool,
}

fn gpt2(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let variant = Variant {
        layout: Layout::InOut,
        heads: common::heads(config, Ok)?,
        interleaved: false,
        scaled_by_block: config.flag("scale_attn_by_inverse_layer_idx")?,
    };
    variant.describe(files)
}

fn gpt_bigcode(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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
            let projections = match self.interleaved {
                true => Projections::Interleaved(all),
                false => Projections::one_after_the_other(all, heads),
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
            head: files.head(&["lm_head"], &embedding),
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
