//! Mamba 1 and 2, Falcon Mamba: blocks of one mixer each, and nothing else.

use super::common;
use super::state_spaces::{self, Mamba, Mamba2};
use crate::model::activation::Activation;
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
    let epsilon = config.number_or("layer_norm_eps", 1e-5)?;
    let expand = config.size_or("expand", Some(2))?;
    let mixer: Box<dyn Fn(&str) -> Recurrence> = match files.model_type {
        "mamba2" => {
            let mamba = mamba2(config, hidden_size, expand, epsilon)?;
            Box::new(move |module| mamba.mixer(module))
        }
        model_type => {
            let mamba = mamba(config, hidden_size, expand)?;
            let of_choices = config.number_or("mixer_rms_eps", 1e-6)?;
            let normed = model_type == "falcon_mamba";
            Box::new(move |module| {
                let norm = |features| NormTensors {
                    weight: None,
                    ..common::rms_norm("", features, of_choices)
                };
                let norms = [mamba.rank, mamba.states, mamba.states].map(norm);
                mamba.mixer(module, Some(norms).filter(|_| normed))
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
        head: match files.model_type {
            "mamba2" => files.head(&["lm_head"], &embedding)?,
            _ => files.tied_head(&["lm_head"], &embedding)?,
        },
        embedding,
    };
    common::plain(files, parts)
}

fn mamba(config: &Config<'_>, hidden_size: usize, expand: usize) -> Result<Mamba, Error> {
    let key = "time_step_rank";
    let rank = match (config.get(key), config.word(key)) {
        (None, _) | (_, Some("auto")) => hidden_size.div_ceil(16),
        _ => config.size(key)?,
    };
    Ok(Mamba {
        hidden_size,
        inner: expand * hidden_size,
        states: config.size_or("state_size", Some(16))?,
        rank,
        width: config.size_or("conv_kernel", Some(4))?,
        projection_bias: config.flag_or("use_bias", false)?,
        convolution_bias: config.flag_or("use_conv_bias", true)?,
        activation: common::activation(config, Activation::Silu)?,
    })
}

fn mamba2(
    config: &Config<'_>,
    hidden_size: usize,
    expand: usize,
    epsilon: f64,
) -> Result<Mamba2, Error> {
    let sizes = StateSizes {
        heads: config.size_or("num_heads", Some(128))?,
        features: config.size_or("head_dim", Some(64))?,
        groups: config.size_or("n_groups", Some(8))?,
        states: config.size_or("state_size", Some(128))?,
    };
    state_spaces::check_groups(sizes)?;
    if sizes.heads.saturating_mul(sizes.features) != expand * hidden_size {
        return Err(Error::Config(format!(
            "num_heads is {} and head_dim {}, which is not expand {expand} times hidden_size {hidden_size}",
            sizes.heads, sizes.features
        )));
    }
    let bias = config.flag_or("use_bias", false)?;
    Ok(Mamba2 {
        hidden_size,
        sizes,
        width: config.size_or("conv_kernel", Some(4))?,
        projection_bias: bias,
        output_bias: bias,
        convolution_bias: config.flag_or("use_conv_bias", true)?,
        activation: common::activation(config, Activation::Silu)?,
        limits: state_spaces::limits(config)?,
        multipliers: [1.0; 5],
        norm: Some(epsilon),
        norm_before_gate: false,
    })
}
