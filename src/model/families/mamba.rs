//! Mamba 1 and 2, Falcon Mamba: blocks of one mixer each, and nothing else.

use super::common;
use super::state_spaces::{self, Mamba, Mamba2};
use crate::model::architecture::Architecture;
use crate::model::block::{BlockOrder, DecoderBlock};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::recurrence::{Recurrence, StateSizes};
use crate::model::tensors::NormTensors;

pub(super) static FAMILY: Family = Family {
    model_types: &["mamba", "falcon_mamba", "mamba2"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let expand = config.size("expand")?;
    let mixer: Box<dyn Fn(&str) -> Recurrence> = match files.model_type {
        "mamba2" => {
            let mamba = mamba2(config, hidden_size, expand, epsilon)?;
            Box::new(move |module| mamba.mixer(module))
        }
        model_type => {
            let mamba = mamba(config, hidden_size, expand)?;
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
        head: files.head(&["lm_head"], &embedding),
        embedding,
    };
    common::plain(files, parts)
}

fn mamba(config: &Config<'_>, hidden_size: usize, expand: usize) -> Result<Mamba, Error> {
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

fn mamba2(
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
