//! OLMo: 1, 2 and 3, and OLMoE.

use super::common;
use super::llama_like::{LlamaLike, NormStyle};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth, Position};
use crate::model::error::Error;
use crate::model::experts::Router;
use crate::model::family::ModelFiles;
use crate::model::rotary::{Rotary, RotaryDefaults};
use crate::model::tensors::NormKind;

/// OLMo 1: a Llama whose norms have no weights, and whose heads may be clipped.
pub(super) fn olmo(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let olmo = LlamaLike {
        norm: NormStyle {
            weighted: false,
            ..NormStyle::of(NormKind::Layer, 1e-5)
        },
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = olmo.describe(files)?;
    let clip = config.number("clip_qkv")?.map(|clip| clip as f32);
    for block in &mut architecture.blocks {
        block.attentions_mut().for_each(|a| a.clip = clip);
    }
    Ok(architecture)
}

/// OLMo 2 and 3: norms behind each half of a block instead of before it, and of all heads together; OLMo 3 slides.
pub(super) fn olmo2(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let full = RotaryDefaults::of(common::grouped_heads(config)?.features);
    // transformers has taken the older base for the others by then.
    let sliding_ones = RotaryDefaults {
        base_key: None,
        ..full
    };
    let rotaries = match files.model_type {
        "olmo3" => vec![
            Rotary::of_layers(config, "full_attention", true, full)?,
            Rotary::of_layers(config, "sliding_attention", false, sliding_ones)?,
        ],
        _ => vec![Rotary::read(config, full)?],
    };
    let mut olmo = LlamaLike {
        attention_norm: None,
        attention_post_norm: Some("post_attention_layernorm"),
        mlp_norm: None,
        mlp_post_norm: Some("post_feedforward_layernorm"),
        head_norms: Some(HeadNorms {
            norms: ["self_attn.q_norm", "self_attn.k_norm"],
            width: NormedWidth::AllHeads,
            after_rotation: false,
        }),
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::with_rotaries(files, rotaries)?
    };
    if files.model_type == "olmo3" {
        let sliding = common::sliding(config, files.blocks()?, |block| (block + 1) % 4 != 0)?;
        olmo.windows = common::windows_of(&sliding, common::window(config)?)?;
        let position = |slides: &bool| Position::Rotary(usize::from(*slides));
        olmo.positions = sliding.iter().map(position).collect();
    }
    olmo.describe(files)
}

/// OLMoE: a Llama with experts, whose queries are normalised all heads together, and so are its keys.
pub(super) fn olmoe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    if config.get("clip_qkv").is_some() {
        return Err(Error::Unsupported("clip_qkv in an olmoe".to_owned()));
    }
    let attention_bias = config.flag("attention_bias")?;
    let olmoe = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: Some(HeadNorms {
            norms: ["self_attn.q_norm", "self_attn.k_norm"],
            width: NormedWidth::AllHeads,
            after_rotation: false,
        }),
        ..LlamaLike::plain(files)?
    };
    let mut architecture = olmoe.describe(files)?;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_experts", "intermediate_size", activation)?;
    moe::put(
        &mut architecture,
        |_| true,
        |block| {
            let module = format!("{block}mlp");
            let router = Router {
                normalised: config.flag("norm_topk_prob")?,
                ..sizes.router(config, format!("{module}.gate.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}
