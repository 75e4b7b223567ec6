//! Falcon H1: attention and Mamba 2 side by side in every block, and multipliers everywhere.

use super::llama_like::{LlamaLike, MlpModules};
use super::state_spaces::Mamba2;
use crate::model::architecture::Architecture;
use crate::model::attention::Projections;
use crate::model::block::Mixer;
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::feed_forward::FeedForward;
use crate::model::tensors::Linear;

pub(super) static FAMILY: Family = Family {
    model_types: &["falcon_h1"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let bias = config.flag("attention_bias")?;
    let falcon = LlamaLike {
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
        ..LlamaLike::plain(files)?
    };
    let mut architecture = falcon.describe(files)?;
    let factor = |key: &str| config.needed_number(key);
    architecture.embedding_scale = factor("embedding_multiplier")? as f32;
    architecture.logit_scale = factor("lm_head_multiplier")? as f32;

    let channels = match config.size_if_any("mamba_d_ssm")? {
        Some(channels) => channels,
        None => config.size("mamba_expand")? * architecture.hidden_size,
    };
    let plain = Mamba2::of_hybrid(config, channels)?;
    let normed = config.flag("mamba_rms_norm")?;
    let mamba = Mamba2 {
        output_bias: config.flag("projectors_bias")?,
        multipliers: factors(config, "ssm_multipliers")?,
        norm: plain.norm.filter(|_| normed),
        norm_before_gate: config.flag("mamba_norm_before_gate")?,
        ..plain
    };
    let [of_gate, of_down] = factors(config, "mlp_multipliers")?;
    let [of_keys, of_attention, of_mamba] = [
        "key_multiplier",
        "attention_out_multiplier",
        "ssm_out_multiplier",
    ]
    .map(factor);
    let (of_keys, of_attention, of_mamba) = (of_keys?, of_attention?, of_mamba?);
    let into_attention = factor("attention_in_multiplier")? as f32;
    let into_mamba = factor("ssm_in_multiplier")? as f32;
    let prefix = architecture.block_prefix.clone();
    let times = |layer: &mut Linear, factor| *layer = layer.clone().times(factor);
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        for attention in block.attentions_mut() {
            if let Projections::Separate([_, keys, _]) = &mut attention.projections {
                times(keys, of_keys);
            }
            times(&mut attention.output, of_attention);
        }
        block.mixers[0].input_scale = into_attention;
        let mut recurrence = mamba.mixer(&format!("{prefix}{index}.mamba"));
        times(&mut recurrence.output, of_mamba);
        block.mixers.push(Mixer {
            input_scale: into_mamba,
            ..recurrence.into()
        });
        if let Some(FeedForward::Dense(mlp)) = &mut block.mlp {
            mlp.gate.iter_mut().for_each(|gate| times(gate, of_gate));
            times(&mut mlp.down, of_down);
        }
    }
    Ok(architecture)
}

/// A list of so many factors; each is 1 where there is none.
fn factors<const N: usize>(config: &Config<'_>, key: &str) -> Result<[f64; N], Error> {
    match config.get(key) {
        None => Ok([1.0; N]),
        Some(_) => {
            let numbers = config.numbers(key, N)?;
            Ok(std::array::from_fn(|index| numbers[index]))
        }
    }
}
