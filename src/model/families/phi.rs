//! Phi: 1 and 2, 3, and 3.5 with experts.

use super::common;
use super::llama_like::{LlamaLike, MlpModules, NormStyle};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth, Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::error::Error;
use crate::model::experts::{Router, Scores};
use crate::model::family::ModelFiles;
use crate::model::rotary::{self, Rotary, RotaryDefaults};
use crate::model::tensors::NormKind;
use crate::untrusted::shown;

/// Phi 1, 1.5 and 2: both halves of a block read one normalised input, rope on a part of each head, biases everywhere, on the
/// head too.
pub(super) fn phi(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let intermediate_size = config.size("intermediate_size")?;
    let heads = common::grouped_heads(config)?;
    let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
    let activation = common::activation(config)?;
    let epsilon = config.needed_number("layer_norm_eps")?;
    let normed_heads = config.flag("qk_layernorm")?;

    let prefix = files.prefix("model.", "embed_tokens");
    let norm = |module: String, features| common::layer_norm(module, features, epsilon);
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        let linear = |name, shape| common::linear(module(name), true, shape);
        let attention = SelfAttention {
            head_norms: normed_heads.then(|| HeadNorms {
                norms: ["self_attn.q_layernorm", "self_attn.k_layernorm"]
                    .map(|name| norm(module(name), heads.features)),
                width: NormedWidth::Head,
                after_rotation: false,
            }),
            ..SelfAttention::plain(
                heads,
                Projections::Separate([
                    linear("self_attn.q_proj", [queries, hidden_size]),
                    linear("self_attn.k_proj", [keys, hidden_size]),
                    linear("self_attn.v_proj", [keys, hidden_size]),
                ]),
                Position::Rotary(0),
                linear("self_attn.dense", [hidden_size, queries]),
            )
        };
        let mlp = common::ungated(
            activation,
            linear("mlp.fc1", [intermediate_size, hidden_size]),
            linear("mlp.fc2", [hidden_size, intermediate_size]),
        );
        let attention_norm = norm(module("input_layernorm"), hidden_size);
        DecoderBlock::plain(
            BlockOrder::Parallel,
            (attention_norm, attention),
            (None, mlp),
        )
    };
    let defaults = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let embedding = format!("{prefix}embed_tokens.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: norm(format!("{prefix}final_layernorm"), hidden_size),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    Ok(Architecture {
        rotaries: vec![Rotary::read(config, defaults)?],
        lm_head_bias: Some("lm_head.bias".to_owned()),
        ..common::plain(files, parts)?
    })
}

/// Phi 3, 3.5 and 4: a Llama whose projections are one tensor, and gate and up another.
pub(super) fn phi3(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let heads = common::grouped_heads(&files.config)?;
    let rope = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        longrope: &["longrope", "su", "yarn"],
        ..RotaryDefaults::of(heads.features)
    };
    let phi = LlamaLike {
        fused_projections: Some("self_attn.qkv_proj"),
        mlp: MlpModules::GatedInOne("mlp.gate_up_proj", "mlp.down_proj"),
        windows: vec![common::window(&files.config)?; files.blocks()?],
        ..LlamaLike::with_rope(files, rope)?
    };
    phi.describe(files)
}

/// Phi 3.5 MoE: LayerNorms and biases, and experts that are chosen one after the other.
pub(super) fn phimoe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
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
        architecture.lm_head_bias = Some("lm_head.bias".to_owned());
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
