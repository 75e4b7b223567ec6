//! Llama 4, and its text's half where it knows pictures, too: chunks of attention, blocks without rotation, experts as
//! `[in, out]` in some blocks.

use serde_json::json;

use super::common;
use super::llama_like::{LlamaLike, MlpModules};
use super::moe::{self, ExpertSizes};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth, Position, QueryTemperature};
use crate::model::error::Error;
use crate::model::experts::{Experts, Router, Scores, SharedExpert};
use crate::model::family::{Family, ModelFiles};
use crate::model::feed_forward::FeedForward;
use crate::model::rotary::{Pairing, RotaryDefaults};
use crate::model::tensors::{Linear, NormKind, NormTensors};

pub(super) static FAMILY: Family = Family {
    model_types: &["llama4", "llama4_text"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    // A text_config says only what differs from these.
    let defaults = json!({
        "vocab_size": 202_048, "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16_384,
        "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 131_072, "rms_norm_eps": 1e-5, "num_experts_per_tok": 1, "num_local_experts": 16,
        "attention_chunk_size": 8192,
    });
    let files = &files.over(&defaults);
    let config = &files.config;
    let blocks = files.blocks()?;
    let bias = config.flag_or("attention_bias", false)?;
    let rotates = rotates(files, blocks)?;
    let types = [&["full_attention"][..], &["chunked_attention"]];
    let sees_all = common::attending(config, &["layer_types"], blocks, types)?;
    let sees_all = sees_all.unwrap_or_else(|| rotates.iter().map(|rotates| !rotates).collect());
    let key = "attention_chunk_size";
    let chunk = match config.get(key) {
        None => None,
        Some(_) => Some(config.size(key)?),
    };
    if chunk.is_none() && sees_all.contains(&false) {
        let problem = format!("layer_types has chunked_attention, and there is no {key}");
        return Err(Error::Config(problem));
    }
    let heads = common::grouped_heads(config)?;
    let neighbours = RotaryDefaults {
        base: 500_000.0,
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
        ..LlamaLike::turning(files, neighbours)?
    };
    let mut architecture = llama.describe_with(files, config.size("intermediate_size_mlp")?)?;

    let temperature = match config.flag_or("attn_temperature_tuning", true)? {
        true => Some(QueryTemperature {
            strength: config.number_or("attn_scale", 0.1)? as f32,
            period: config.size_or("floor_scale", Some(8192))?,
        }),
        false => None,
    };
    let epsilon = config.number_or("rms_norm_eps", 1e-5)?;
    let normed = config.flag_or("use_qk_norm", true)?;
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
    let activation = common::activation(config, Activation::Silu)?;
    let sizes = ExpertSizes::read(
        files,
        &["num_local_experts"],
        "intermediate_size",
        activation,
    )?;
    let sparse = sparse(files)?;
    moe::put(
        &mut architecture,
        |block| sparse.contains(&block),
        |block| experts(files, &sizes, &format!("{block}feed_forward")),
    )?;
    Ok(architecture)
}

/// The blocks whose heads turn: all but those that `no_rope_layers` marks with 0, or every fourth.
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
            let interval = config.size_or("no_rope_layer_interval", Some(4))?;
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
    let step = config.size_or("interleave_moe_layer_step", Some(1))?;
    Ok((step - 1..files.blocks()?).step_by(step).collect())
}

/// Experts whose input is multiplied by their weight, and one for every token.
fn experts(
    files: &ModelFiles<'_>,
    sizes: &ExpertSizes,
    module: &str,
) -> Result<FeedForward<Linear>, Error> {
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
