//! LFM 2: short convolutions between gates in most blocks, attention with norms of heads in the others; with experts or
//! without.

use super::common;
use super::llama_like::{LlamaLike, MlpModules, NormStyle, norms_of_each_head};
use super::moe::{self, ExpertSizes};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::experts::{Router, Scores};
use crate::model::family::ModelFiles;
use crate::model::recurrence::{Recurrence, ShortConvolution, Ssm};
use crate::model::scan::Convolution;
use crate::model::tensors::{NormKind, Vector};

pub(super) fn lfm2(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let types = [&["full_attention"][..], &["conv"]];
    let attends = match common::attending(config, "layer_types", blocks, types)? {
        Some(attends) => attends,
        None if files.model_type == "lfm2_moe" => {
            return Err(Error::Config("layer_types is missing".to_owned()));
        }
        None => match common::block_numbers(config, "full_attn_idxs")? {
            Some(numbers) => (0..blocks).map(|block| numbers.contains(&block)).collect(),
            None => vec![true; blocks],
        },
    };
    let lfm = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, config.needed_number("norm_eps")?),
        attention_norm: Some("operator_norm"),
        mlp_norm: Some("ffn_norm"),
        head_norms: norms_of_each_head(["self_attn.q_layernorm", "self_attn.k_layernorm"]),
        output: "self_attn.out_proj",
        mlp: MlpModules::Gated("feed_forward.w1", "feed_forward.w3", "feed_forward.w2"),
        activation: Activation::Silu,
        final_norm: "embedding_norm",
        ..LlamaLike::plain(files)?
    };
    let mut architecture = lfm.describe_with(files, intermediate_size(files)?)?;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if !attends[index] {
            block.mixers = vec![convolution(files, &format!("{prefix}{index}.conv"))?.into()];
        }
    }
    if files.model_type == "lfm2_moe" {
        put_experts(files, &mut architecture)?;
    }
    Ok(architecture)
}

/// Experts in all blocks but the first ones.
fn put_experts(files: &ModelFiles<'_>, architecture: &mut Architecture) -> Result<(), Error> {
    let config = &files.config;
    let activation = Activation::Silu;
    let sizes = ExpertSizes::read(files, "num_experts", "moe_intermediate_size", activation)?;
    let dense = common::count(config, "num_dense_layers")?;
    let corrected = config.flag("use_expert_bias")?;
    moe::put(
        architecture,
        |block| block >= dense,
        |block| {
            let module = format!("{block}feed_forward");
            let correction = Vector::list(format!("{module}.expert_bias"), sizes.count);
            let router = Router {
                scores: Scores::Sigmoid,
                correction: corrected.then_some(correction),
                normalised: config.flag("norm_topk_prob")?,
                sum_offset: 1e-6,
                scale: config.needed_number("routed_scaling_factor")?,
                ..sizes.router(config, format!("{module}.gate.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["w1", "w3", "w2"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )
}

/// Two thirds of what is said, and a little more, unless `block_auto_adjust_ff_dim` is off.
fn intermediate_size(files: &ModelFiles<'_>) -> Result<usize, Error> {
    let config = &files.config;
    let said = config.size("intermediate_size")?;
    if !config.flag("block_auto_adjust_ff_dim")? {
        return Ok(said);
    }
    let size = 2 * said / 3;
    let Some(multiplier) = config.number("block_ffn_dim_multiplier")? else {
        return Ok(size);
    };
    let multiple_of = config.size("block_multiple_of")?;
    let width = multiplier * size as f64;
    if !(1.0..f64::from(1 << 24)).contains(&width) {
        return Err(Error::Config(format!(
            "block_ffn_dim_multiplier {multiplier} makes feed-forward parts of {width:e} features"
        )));
    }
    Ok((width as usize).next_multiple_of(multiple_of))
}

fn convolution(files: &ModelFiles<'_>, module: &str) -> Result<Recurrence, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let bias = config.flag("conv_bias")?;
    let width = config.size("conv_L_cache")?;
    let all = common::linear(
        format!("{module}.in_proj"),
        bias,
        [3 * hidden_size, hidden_size],
    );
    let [gate_before, gate_after, values] = all.split([hidden_size; 3]);
    let ssm = Ssm::ShortConvolution(ShortConvolution {
        gate_before,
        gate_after,
        values,
        convolution: Convolution {
            weight: Vector {
                tensor: format!("{module}.conv.weight"),
                shape: vec![hidden_size, 1, width],
            },
            bias: bias.then(|| Vector::list(format!("{module}.conv.bias"), hidden_size)),
            width,
            channels: 0..hidden_size,
        },
    });
    let output = format!("{module}.out_proj");
    Ok(Recurrence {
        ssm,
        output: common::linear(output, bias, [hidden_size, hidden_size]),
    })
}
