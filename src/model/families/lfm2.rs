//! LFM 2: short convolutions between gates in most blocks, attention with norms of heads in the others; with experts or
//! without.

use serde_json::json;

use super::common;
use super::llama_like::{LlamaLike, MlpModules, NormStyle, norms_of_each_head};
use super::moe::{self, ExpertSizes};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::experts::{Router, Scores};
use crate::model::family::{Family, ModelFiles};
use crate::model::recurrence::{Cell, Convolution, Recurrence, ShortConvolution};
use crate::model::rotary::RotaryDefaults;
use crate::model::tensors::{NormKind, Vector};

pub(super) static FAMILY: Family = Family {
    model_types: &["lfm2", "lfm2_moe"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let tied = files.config.flag_or("tie_embedding", true)?;
    let defaults = json!({"num_key_value_heads": 8, "tie_word_embeddings": tied});
    let files = &files.over(&defaults);
    let config = &files.config;
    let blocks = files.blocks()?;
    let types = [&["full_attention"][..], &["conv"]];
    let attends = match common::attending(config, &["layer_types"], blocks, types)? {
        Some(attends) => attends,
        None => match common::block_numbers(config, "full_attn_idxs")? {
            Some(numbers) => (0..blocks).map(|block| numbers.contains(&block)).collect(),
            None => vec![true; blocks],
        },
    };
    let heads = common::grouped_heads(config)?;
    let defaults = RotaryDefaults {
        base: 1_000_000.0,
        ..RotaryDefaults::of(heads.features)
    };
    let lfm = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, config.number_or("norm_eps", 1e-5)?),
        attention_norm: Some("operator_norm"),
        mlp_norm: Some("ffn_norm"),
        head_norms: norms_of_each_head(["self_attn.q_layernorm", "self_attn.k_layernorm"]),
        output: "self_attn.out_proj",
        mlp: MlpModules::Gated("feed_forward.w1", "feed_forward.w3", "feed_forward.w2"),
        activation: Activation::Silu,
        final_norm: "embedding_norm",
        ..LlamaLike::turning(files, defaults)?
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
    let counts = ["num_experts", "num_local_experts"];
    let activation = Activation::Silu;
    let sizes = ExpertSizes::read(files, &counts, "moe_intermediate_size", activation)?;
    let dense = moe::count_or(config, "num_dense_layers", 2)?;
    let corrected = config.flag_or("use_expert_bias", true)?;
    moe::put(
        architecture,
        |block| block >= dense,
        |block| {
            let module = format!("{block}feed_forward");
            let correction = Vector::list(format!("{module}.expert_bias"), sizes.count);
            let router = Router {
                scores: Scores::Sigmoid,
                correction: corrected.then_some(correction),
                normalised: config.flag_or("norm_topk_prob", true)?,
                sum_offset: 1e-6,
                scale: config.number_or("routed_scaling_factor", 1.0)?,
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
    let said = match config.get("block_ff_dim") {
        Some(_) => config.size("block_ff_dim")?,
        None => config.size("intermediate_size")?,
    };
    let adjusts = files.model_type == "lfm2";
    if !config.flag_or("block_auto_adjust_ff_dim", adjusts)? {
        return Ok(said);
    }
    let size = 2 * said / 3;
    if config.says("block_ffn_dim_multiplier") && config.get("block_ffn_dim_multiplier").is_none() {
        return Ok(size);
    }
    let multiplier = config.number_or("block_ffn_dim_multiplier", 1.0)?;
    let multiple_of = config.size_or("block_multiple_of", Some(256))?;
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
    let bias = config.flag_or("conv_bias", false)?;
    let width = config.size_or("conv_L_cache", Some(3))?;
    let all = common::linear(
        format!("{module}.in_proj"),
        bias,
        [3 * hidden_size, hidden_size],
    );
    let [gate_before, gate_after, values] = all.split([hidden_size; 3]);
    let cell = Cell::ShortConvolution(ShortConvolution {
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
        },
    });
    let output = format!("{module}.out_proj");
    Ok(Recurrence {
        cell,
        output: common::linear(output, bias, [hidden_size, hidden_size]),
    })
}
