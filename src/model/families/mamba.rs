//! Mamba, alone and in hybrids: Jamba, Bamba.

use super::common;
use super::llama_like::{LlamaLike, MlpModules};
use super::moe::{self, ExpertSizes};
use super::state_spaces::{self, Mamba, Mamba2};
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::experts::Router;
use crate::model::family::ModelFiles;
use crate::model::recurrence::Recurrence;
use crate::model::rotary::RotaryDefaults;
use crate::model::scan::StateSizes;
use crate::model::tensors::NormTensors;

/// Mamba 1 and 2, Falcon Mamba: blocks of one mixer each, and nothing else.
pub(super) fn mamba(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let expand = config.size("expand")?;
    let mixer: Box<dyn Fn(&str) -> Recurrence> = match files.model_type {
        "mamba2" => {
            let mamba = mamba2_mixer(config, hidden_size, expand, epsilon)?;
            Box::new(move |module| mamba.mixer(module))
        }
        model_type => {
            let mamba = mamba1_mixer(config, hidden_size, expand)?;
            let of_choices = match model_type {
                "falcon_mamba" => Some(config.needed_number("mixer_rms_eps")?),
                _ => None,
            };
            Box::new(move |module| {
                let norms = of_choices.map(|epsilon| {
                    [mamba.rank, mamba.states, mamba.states].map(|features| NormTensors {
                        weight: None,
                        ..common::rms_norm("", features, epsilon)
                    })
                });
                mamba.mixer(module, norms)
            })
        }
    };
    let prefix = files.prefix("backbone.", "embeddings");
    let block = |index| {
        let module = |name| format!("{prefix}layers.{index}.{name}");
        DecoderBlock {
            order: BlockOrder::Sequential,
            mixer_norm: Some(common::rms_norm(&module("norm"), hidden_size, epsilon)),
            mixers: vec![mixer(&module("mixer")).into()],
            mixer_post_norm: None,
            mlp_norm: None,
            mlp: None,
            mlp_post_norm: None,
            residual_scale: 1.0,
            adds_to_normed: false,
        }
    };
    let embedding = format!("{prefix}embeddings.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: (0..files.blocks()?).map(block).collect(),
        final_norm: common::rms_norm(&format!("{prefix}norm_f"), hidden_size, epsilon),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    common::plain(files, parts)
}

fn mamba1_mixer(config: &Config<'_>, hidden_size: usize, expand: usize) -> Result<Mamba, Error> {
    let key = "time_step_rank";
    let rank = match config.get(key) {
        Some(value) if value.as_str() == Some("auto") => hidden_size.div_ceil(16),
        _ => config.size(key)?,
    };
    Ok(Mamba {
        hidden_size,
        inner: expand * hidden_size,
        states: config.size("state_size")?,
        rank,
        width: config.size("conv_kernel")?,
        projection_bias: config.flag("use_bias")?,
        convolution_bias: config.flag("use_conv_bias")?,
        activation: common::activation(config)?,
    })
}

fn mamba2_mixer(
    config: &Config<'_>,
    hidden_size: usize,
    expand: usize,
    epsilon: f64,
) -> Result<Mamba2, Error> {
    let sizes = StateSizes {
        heads: config.size("num_heads")?,
        features: config.size("head_dim")?,
        groups: config.size("n_groups")?,
        states: config.size("state_size")?,
    };
    state_spaces::check_groups(sizes)?;
    if sizes.heads.saturating_mul(sizes.features) != expand * hidden_size {
        return Err(Error::Config(format!(
            "num_heads is {} and head_dim {}, which is not expand {expand} times hidden_size {hidden_size}",
            sizes.heads, sizes.features
        )));
    }
    let bias = config.flag("use_bias")?;
    Ok(Mamba2 {
        hidden_size,
        sizes,
        width: config.size("conv_kernel")?,
        projection_bias: bias,
        output_bias: bias,
        convolution_bias: config.flag("use_conv_bias")?,
        activation: common::activation(config)?,
        limits: state_spaces::limits(config)?,
        multipliers: [1.0; 5],
        norm: Some(epsilon),
        norm_before_gate: false,
    })
}

/// Jamba: Mamba 1 with three norms in most blocks, attention without positions in the others, experts in every other one.
pub(super) fn jamba(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let jamba = LlamaLike {
        mlp_norm: Some("pre_ff_layernorm"),
        mlp: MlpModules::Gated(
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ),
        final_norm: "final_layernorm",
        positions: vec![Position::None; blocks],
        ..LlamaLike::with_rotaries(files, Vec::new())?
    };
    let mut architecture = jamba.describe(files)?;

    let hidden_size = config.size("hidden_size")?;
    let key = "mamba_dt_rank";
    let rank = match config.get(key) {
        Some(value) if value.as_str() == Some("auto") => hidden_size.div_ceil(16),
        _ => config.size(key)?,
    };
    let activation = common::activation(config)?;
    let mamba = Mamba {
        hidden_size,
        inner: config.size("mamba_expand")? * hidden_size,
        states: config.size("mamba_d_state")?,
        rank,
        width: config.size("mamba_d_conv")?,
        projection_bias: config.flag("mamba_proj_bias")?,
        convolution_bias: config.flag("mamba_conv_bias")?,
        activation,
    };
    let epsilon = config.needed_number("rms_norm_eps")?;
    let attends = every(files, "attn_layer_period", "attn_layer_offset")?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if attends(index) {
            continue;
        }
        let module = format!("{prefix}{index}.mamba");
        let norm =
            |name, features| common::rms_norm(&format!("{module}.{name}"), features, epsilon);
        let norms = [
            norm("dt_layernorm", rank),
            norm("b_layernorm", mamba.states),
            norm("c_layernorm", mamba.states),
        ];
        block.mixers = vec![mamba.mixer(&module, Some(norms)).into()];
    }

    let sizes = ExpertSizes::read(files, "num_experts", "intermediate_size", activation)?;
    let sparse = every(files, "expert_layer_period", "expert_layer_offset")?;
    moe::put(
        &mut architecture,
        |block| sizes.count > 1 && sparse(block),
        |block| {
            let module = format!("{block}feed_forward");
            let router = Router {
                normalised: false,
                ..sizes.router(config, format!("{module}.router.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}

/// Whether it is a block's turn, by a period and which one of each.
fn every(
    files: &ModelFiles<'_>,
    period: &str,
    offset: &str,
) -> Result<impl Fn(usize) -> bool + use<>, Error> {
    let length = files.config.size(period)?;
    let first = common::count(&files.config, offset)?;
    if first >= length {
        return Err(Error::Config(format!(
            "{offset} is {first}, and {period} {length}"
        )));
    }
    Ok(move |block| block % length == first)
}

/// Bamba: Mamba 2 in most blocks, attention with rope on half of each head in the others.
pub(super) fn bamba(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("attention_bias")?;
    let heads = common::grouped_heads(config)?;
    let half = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let bamba = LlamaLike {
        mlp_norm: Some("pre_ff_layernorm"),
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Gated(
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ),
        mlp_bias: config.flag("mlp_bias")?,
        final_norm: "final_layernorm",
        ..LlamaLike::with_rope(files, half)?
    };
    let mut architecture = bamba.describe(files)?;

    let attending = common::block_numbers(config, "attn_layer_indices")?.unwrap_or_default();
    let channels = config.size("mamba_expand")? * architecture.hidden_size;
    let mamba = Mamba2::of_hybrid(config, channels)?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if !attending.contains(&index) {
            block.mixers = vec![mamba.mixer(&format!("{prefix}{index}.mamba")).into()];
        }
    }
    Ok(architecture)
}
