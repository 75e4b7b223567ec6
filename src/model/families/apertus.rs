//! Apertus: xIELU without a gate, whose two numbers each block learns, and norms of heads.

use super::common;
use super::llama_like::{LlamaLike, MlpModules, norms_of_each_head};
use crate::model::activation::{Activation, Xielu};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::feed_forward::FeedForward;
use crate::model::tensors::Vector;

pub(super) static FAMILY: Family = Family {
    model_types: &["apertus"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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
            Some(match shape.is_empty() {
                true => number.scalar(),
                false => number,
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
