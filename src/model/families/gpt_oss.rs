//! gpt-oss in 16 bits: attention sinks, windows in every other block, experts as `[in, out]` whose gates and ups take turns.

use super::common;
use super::llama_like::LlamaLike;
use super::moe::{self, ExpertSizes};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::experts::Router;
use crate::model::family::ModelFiles;
use crate::model::mlp::Mlp;
use crate::model::tensors::{Linear, Slice, Vector};
use crate::targets::Layout;

pub(super) fn gpt_oss(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    for (key, value) in [("swiglu_limit", 7.0), ("swiglu_alpha", 1.702)] {
        if config.needed_number(key)? != value {
            return Err(Error::Unsupported(format!("a {key} other than {value}")));
        }
    }
    let attention_bias = config.flag("attention_bias")?;
    let slides = common::sliding(config, files.blocks()?, |block| block.is_multiple_of(2))?;
    let oss = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        windows: common::windows_of(&slides, common::window(config)?)?,
        activation: Activation::ClampedSwiglu,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = oss.describe(files)?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        for attention in block.attentions_mut() {
            let sinks = format!("{prefix}{index}.self_attn.sinks");
            attention.sinks = Some(Vector::list(sinks, attention.heads.queries));
        }
    }
    let activation = Activation::ClampedSwiglu;
    let sizes = ExpertSizes::read(files, "num_local_experts", "intermediate_size", activation)?;
    moe::put(
        &mut architecture,
        |_| true,
        |block| {
            let module = format!("{block}mlp");
            let router = sizes.router(config, format!("{module}.router.weight"))?;
            let router = Router {
                layer: Linear {
                    bias: Some(format!("{module}.router.bias")),
                    ..router.layer
                },
                ..router
            };
            let experts = experts(files, &sizes, &format!("{module}.experts"))?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}

/// The experts of a module: `[experts, hidden_size, 2 * intermediate_size]`, `[experts, intermediate_size, hidden_size]`, and
/// their biases.
fn experts(files: &ModelFiles<'_>, sizes: &ExpertSizes, module: &str) -> Result<Vec<Mlp>, Error> {
    let (hidden, inner, count) = (sizes.hidden_size, sizes.intermediate_size, sizes.count);
    let [gate_up, down] = ["gate_up_proj", "down_proj"].map(|name| format!("{module}.{name}"));
    files.headers.check(&gate_up, &[count, hidden, 2 * inner])?;
    files.headers.check(&down, &[count, inner, hidden])?;
    let part = |index, tensor: &str, shape| Linear {
        slice: Some(Slice {
            index,
            count,
            stacked: false,
        }),
        layout: Layout::InOut,
        ..Linear::of_its_own(tensor.to_owned(), Some(format!("{tensor}_bias")), shape)
    };
    let turn = |index, first_feature| Linear {
        stored_features: 2 * inner,
        first_feature,
        feature_step: 2,
        ..part(index, &gate_up, [inner, hidden])
    };
    let expert = |index| Mlp {
        activation: sizes.activation,
        xielu: None,
        gate: Some(turn(index, 0)),
        up: turn(index, 1),
        down: part(index, &down, [hidden, inner]),
    };
    Ok((0..count).map(expert).collect())
}
