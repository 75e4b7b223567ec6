//! Granite: dense, with experts, and hybrids with Mamba 2.

use super::common;
use super::llama_like::{LlamaLike, MlpModules};
use super::moe::{self, ExpertSizes};
use super::state_spaces::Mamba2;
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::error::Error;
use crate::model::experts::SharedExpert;
use crate::model::family::ModelFiles;
use crate::model::mlp::Mlp;
use crate::untrusted::shown;

/// Granite 3 and 4: a Llama with multipliers.
pub(super) fn granite(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let granite = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = granite.describe(files)?;
    let scale = config.needed_number("attention_multiplier")?;
    let residual_scale = config.needed_number("residual_multiplier")?;
    for block in &mut architecture.blocks {
        block.attentions_mut().for_each(|a| a.scale = scale as f32);
        block.residual_scale = residual_scale as f32;
    }
    architecture.embedding_scale = config.needed_number("embedding_multiplier")? as f32;
    architecture.logit_scale = 1.0 / config.needed_number("logits_scaling")? as f32;
    Ok(architecture)
}

/// Granite 3 with experts, those of a block in two tensors: a Llama with multipliers.
pub(super) fn granitemoe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let granite = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = granite.describe(files)?;
    architecture.embedding_scale = config.needed_number("embedding_multiplier")? as f32;
    architecture.logit_scale = 1.0 / config.needed_number("logits_scaling")? as f32;
    for block in &mut architecture.blocks {
        let scale = config.needed_number("attention_multiplier")? as f32;
        block.attentions_mut().for_each(|a| a.scale = scale);
        block.residual_scale = config.needed_number("residual_multiplier")? as f32;
    }
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_local_experts", "intermediate_size", activation)?;
    moe::put(
        &mut architecture,
        |_| true,
        |block| {
            let module = format!("{block}block_sparse_moe");
            let router = sizes.router(config, format!("{module}.router.layer.weight"))?;
            let tensors =
                ["input_linear", "output_linear"].map(|name| format!("{module}.{name}.weight"));
            let experts = sizes.fused(files, [&tensors[0], &tensors[1]])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}

/// Granite 4: Mamba 2 in most blocks, attention in the others, an expert for every token, with others or without; the
/// multipliers of Granite.
pub(super) fn granitemoehybrid(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let bias = config.flag("attention_bias")?;
    let position = match config.word("position_embedding_type")? {
        Some("rope") => Position::Rotary(0),
        None | Some("nope") => Position::None,
        Some(other) => {
            let problem = format!("position_embedding_type {}", shown(other));
            return Err(Error::Unsupported(problem));
        }
    };
    let granite = LlamaLike {
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::GatedInOne("shared_mlp.input_linear", "shared_mlp.output_linear"),
        positions: vec![position; blocks],
        ..LlamaLike::plain(files)?
    };
    let width = config.size("shared_intermediate_size")?;
    let mut architecture = granite.describe_with(files, width)?;
    architecture.embedding_scale = config.needed_number("embedding_multiplier")? as f32;
    architecture.logit_scale = 1.0 / config.needed_number("logits_scaling")? as f32;

    let types = [
        &["full_attention", "attention"][..],
        &["linear_attention", "mamba"],
    ];
    let attends = common::attending(config, "layer_types", blocks, types)?;
    let attends = attends.unwrap_or_else(|| vec![false; blocks]);
    let hidden_size = architecture.hidden_size;
    let mamba = if attends.contains(&false) {
        let channels = config.size("mamba_expand")? * hidden_size;
        Some(Mamba2::of_hybrid(config, channels)?)
    } else {
        None
    };
    let scale = config.needed_number("attention_multiplier")? as f32;
    let residual_scale = config.needed_number("residual_multiplier")? as f32;
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        block.attentions_mut().for_each(|a| a.scale = scale);
        block.residual_scale = residual_scale;
        if let Some(mamba) = mamba.as_ref().filter(|_| !attends[index]) {
            block.mixers = vec![mamba.mixer(&format!("{prefix}{index}.mamba")).into()];
        }
    }
    if common::count(config, "num_local_experts")? == 0 {
        return Ok(architecture);
    }
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_local_experts", "intermediate_size", activation)?;
    moe::put(
        &mut architecture,
        |_| true,
        |block| {
            let module = format!("{block}block_sparse_moe");
            let router = sizes.router(config, format!("{module}.router.layer.weight"))?;
            let tensors =
                ["input_linear", "output_linear"].map(|name| format!("{module}.{name}.weight"));
            let experts = sizes.fused(files, [&tensors[0], &tensors[1]])?;
            let linear = |name, shape| common::linear(format!("{block}{name}"), false, shape);
            let both = linear("shared_mlp.input_linear", [2 * width, hidden_size]);
            let [gate, up] = both.split([width; 2]);
            let mlp = Mlp {
                activation,
                xielu: None,
                gate: Some(gate),
                up,
                down: linear("shared_mlp.output_linear", [hidden_size, width]),
            };
            let shared = SharedExpert { mlp, gate: None };
            Ok(moe::feed_forward(router, experts, Some(shared)))
        },
    )?;
    Ok(architecture)
}
