//! Llama, and what Meta made of it.

use super::common;
use super::llama_like::{LlamaLike, MlpModules};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth, Position, QueryTemperature};
use crate::model::error::Error;
use crate::model::experts::{Experts, Router, Scores, SharedExpert};
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::rotary::{Pairing, RotaryDefaults};
use crate::model::tensors::{NormKind, NormTensors};

/// Llama 1 to 3, and what was trained as one (SmolLM2, TinyLlama, Yi).
pub(super) fn llama(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let attention_bias = files.config.flag("attention_bias")?;
    let llama = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: files.config.flag("mlp_bias")?,
        ..LlamaLike::plain(files)?
    };
    llama.describe(files)
}

/// Llama 4, and its text's half where it knows pictures, too: chunks of attention, blocks without rotation, experts as
/// `[in, out]` in some blocks.
pub(super) fn llama4(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let bias = config.flag("attention_bias")?;
    let rotates = rotates(files, blocks)?;
    let types = [&["full_attention"][..], &["chunked_attention"]];
    let sees_all = common::attending(config, "layer_types", blocks, types)?;
    let key = "attention_chunk_size";
    let chunk = config.size_if_any(key)?;
    let usual = |rotates: &bool| !rotates || chunk.is_none();
    let sees_all = sees_all.unwrap_or_else(|| rotates.iter().map(usual).collect());
    if chunk.is_none() && sees_all.contains(&false) {
        let problem = format!("layer_types has chunked_attention, and there is no {key}");
        return Err(Error::Config(problem));
    }
    let heads = common::grouped_heads(config)?;
    let neighbours = RotaryDefaults {
        pairing: Pairing::Interleaved,
        ..RotaryDefaults::of(heads.features)
    };
    let position = |rotates: &bool| match rotates {
        true => Position::Rotary(0),
        false => Position::None,
    };
    let llama = LlamaLike {
        projection_bias: bias,
        output_bias: bias,
        mlp: MlpModules::Gated(
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ),
        positions: rotates.iter().map(position).collect(),
        ..LlamaLike::with_rope(files, neighbours)?
    };
    let mut architecture = llama.describe_with(files, config.size("intermediate_size_mlp")?)?;

    let temperature = if config.flag("attn_temperature_tuning")? {
        Some(QueryTemperature {
            strength: config.needed_number("attn_scale")? as f32,
            period: config.size("floor_scale")?,
        })
    } else {
        None
    };
    let epsilon = config.needed_number("rms_norm_eps")?;
    let normed = config.flag("use_qk_norm")?;
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        for attention in block.attentions_mut() {
            attention.chunk = chunk.filter(|_| !sees_all[index]);
            if !rotates[index] {
                attention.temperature = temperature;
            } else if normed {
                let norm = NormTensors {
                    weight: None,
                    ..NormTensors::plain(NormKind::Rms, String::new(), heads.features, epsilon)
                };
                attention.head_norms = Some(HeadNorms {
                    norms: [norm.clone(), norm],
                    width: NormedWidth::Head,
                    after_rotation: true,
                });
            }
        }
    }
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_local_experts", "intermediate_size", activation)?;
    let sparse = sparse(files)?;
    moe::put(
        &mut architecture,
        |block| sparse.contains(&block),
        |block| experts(files, &sizes, &format!("{block}feed_forward")),
    )?;
    Ok(architecture)
}

/// The blocks with rope: all but those that `no_rope_layers` marks with 0, or every fourth.
fn rotates(files: &ModelFiles<'_>, blocks: usize) -> Result<Vec<bool>, Error> {
    let config = &files.config;
    let key = "no_rope_layers";
    let marks = common::block_numbers(config, key)?.filter(|marks| !marks.is_empty());
    match marks {
        Some(marks) if marks.len() < blocks => Err(Error::Config(format!(
            "{key} has {} marks for {blocks} blocks",
            marks.len()
        ))),
        Some(marks) => Ok(marks[..blocks].iter().map(|mark| *mark != 0).collect()),
        None => {
            let interval = config.size("no_rope_layer_interval")?;
            let turns = |block: usize| !(block + 1).is_multiple_of(interval);
            Ok((0..blocks).map(turns).collect())
        }
    }
}

/// The blocks with experts: those that `moe_layers` names, or every so many-th.
fn sparse(files: &ModelFiles<'_>) -> Result<Vec<usize>, Error> {
    let config = &files.config;
    if let Some(blocks) = common::block_numbers(config, "moe_layers")? {
        return Ok(blocks);
    }
    let step = config.size("interleave_moe_layer_step")?;
    Ok((step - 1..files.blocks()?).step_by(step).collect())
}

/// Experts whose input is multiplied by their weight, and one for every token.
fn experts(
    files: &ModelFiles<'_>,
    sizes: &ExpertSizes,
    module: &str,
) -> Result<FeedForward, Error> {
    let router = Router {
        scores: Scores::Sigmoid,
        normalised: false,
        ..sizes.router(&files.config, format!("{module}.router.weight"))?
    };
    let shared = moe::gated(
        &format!("{module}.shared_expert"),
        sizes.activation,
        [sizes.intermediate_size, sizes.hidden_size],
    );
    Ok(FeedForward::Experts(Box::new(Experts {
        router,
        experts: sizes.fused_in_out(files, &format!("{module}.experts"))?,
        shared: Some(SharedExpert {
            mlp: shared,
            gate: None,
        }),
        weighs_input: true,
    })))
}
