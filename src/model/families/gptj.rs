//! GPT-J and CodeGen: both halves of a block read one normalised input, neighbouring features turn together, a bias on the head.

use super::common;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadCounts, Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::{Pairing, Rotary};
use crate::model::tensors::Linear;

pub(super) static GPTJ: Family = Family {
    model_types: &["gptj"],
    describe: |files| describe(files, separate),
};

pub(super) static CODEGEN: Family = Family {
    model_types: &["codegen"],
    describe: |files| describe(files, in_quarters),
};

/// The projections of a block, by what its names begin with.
type ReadProjections = fn(&str, HeadCounts, usize) -> Result<Projections<Linear>, Error>;

/// A tensor each.
fn separate(
    block: &str,
    heads: HeadCounts,
    hidden_size: usize,
) -> Result<Projections<Linear>, Error> {
    let shape = [heads.queries * heads.features, hidden_size];
    let names = ["attn.q_proj", "attn.k_proj", "attn.v_proj"];
    let layers = names.map(|name| common::linear(format!("{block}{name}"), false, shape));
    Ok(Projections::Separate(layers))
}

/// One tensor in four quarters, as it was trained on four devices: of a quarter of the heads the queries, the values, the
/// keys.
fn in_quarters(
    block: &str,
    heads: HeadCounts,
    hidden_size: usize,
) -> Result<Projections<Linear>, Error> {
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

fn describe(files: &ModelFiles<'_>, projections: ReadProjections) -> Result<Architecture, Error> {
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
        head: files.head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::fixed(turned, heads.features, Pairing::Interleaved)?],
        head_bias: Some("lm_head.bias".to_owned()),
        ..common::plain(files, parts)?
    })
}
