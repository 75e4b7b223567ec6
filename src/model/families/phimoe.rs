//! Phi 3.5 MoE: LayerNorms and biases, and experts that are chosen one after the other.

use super::common;
use super::llama_like::{LlamaLike, NormStyle};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::experts::{Router, Scores};
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary;
use crate::model::tensors::NormKind;
use crate::untrusted::shown;

pub(super) static FAMILY: Family = Family {
    model_types: &["phimoe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("attention_bias")?;
    let plain = LlamaLike::plain(files)?;
    let phi = LlamaLike {
        norm: NormStyle {
            biased: true,
            ..NormStyle::of(NormKind::Layer, config.needed_number("rms_norm_eps")?)
        },
        projection_bias: bias,
        output_bias: bias,
        windows: vec![common::window(config)?; plain.windows.len()],
        ..plain
    };
    let mut architecture = phi.describe(files)?;
    if config.flag("lm_head_bias")? {
        architecture.head_bias = Some("lm_head.bias".to_owned());
    }
    let scaling = rotary::parameters(config)?;
    let kind = scaling.as_ref().map_or(Ok("default"), rotary::kind)?;
    if let (Some(scaling), true) = (scaling, kind != "default") {
        if kind != "longrope" {
            let problem = format!("rotary embedding of a phimoe scaled by {}", shown(kind));
            return Err(Error::Unsupported(problem));
        }
        let rotary = &mut architecture.rotaries[0];
        rotary.amplitude = scaling.needed_number("short_mscale")?;
        // Beyond it, transformers and the model's own code differ.
        rotary.longest = rotary.beyond.take().map(|(trained, _)| trained);
    }

    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_local_experts", "intermediate_size", activation)?;
    let tolerance = match config.get("router_jitter_noise") {
        Some(value) if value.as_f64() == Some(0.0) => 0.0,
        _ => 2.0 * config.needed_number("router_jitter_noise")?,
    };
    moe::put(
        &mut architecture,
        |_| true,
        |block| {
            let module = format!("{block}block_sparse_moe");
            let router = Router {
                scores: Scores::OneByOne { tolerance },
                normalised: false,
                ..sizes.router(config, format!("{module}.gate.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["w1", "w3", "w2"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}
