//! Qwen: 2 to 3, dense, with experts, and Next with its delta nets.

use super::common;
use super::llama_like::{LlamaLike, NormStyle, norms_of_each_head};
use super::moe::{self, ExpertSizes};
use crate::model::architecture::Architecture;
use crate::model::attention::Projections;
use crate::model::error::Error;
use crate::model::experts::{Router, SharedExpert};
use crate::model::family::ModelFiles;
use crate::model::recurrence::{DeltaNet, Recurrence, Ssm};
use crate::model::rotary::RotaryDefaults;
use crate::model::scan::{Convolution, DeltaSizes, ScanSizes, ScanTensors};
use crate::model::tensors::{Linear, NormKind, Vector};

/// Qwen 2 and 2.5: a Llama with biases on queries, keys and values.
pub(super) fn qwen2(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let qwen = LlamaLike {
        projection_bias: true,
        windows: common::windows(&files.config, files.blocks()?)?,
        ..LlamaLike::plain(files)?
    };
    qwen.describe(files)
}

/// Qwen 3: a Llama with a norm in each head of the queries and keys.
pub(super) fn qwen3(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let attention_bias = files.config.flag("attention_bias")?;
    let qwen = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: common::windows(&files.config, files.blocks()?)?,
        ..LlamaLike::plain(files)?
    };
    qwen.describe(files)
}

/// Qwen 1.5 and 2 with experts: one more for every token, behind a gate.
pub(super) fn qwen2_moe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let window = if config.flag("use_sliding_window")? {
        common::window(config)?
    } else {
        None
    };
    let end = common::count(config, "max_window_layers")?;
    let slides = |block: usize| window.is_some() && block.is_multiple_of(2) && block < end;
    let sliding = common::sliding(config, files.blocks()?, slides)?;
    let qwen = LlamaLike {
        projection_bias: config.flag("qkv_bias")?,
        windows: common::windows_of(&sliding, window)?,
        ..LlamaLike::plain(files)?
    };
    let mut architecture = qwen.describe(files)?;
    put_experts(files, &mut architecture, false)?;
    Ok(architecture)
}

/// Puts in experts with one for every token behind a gate; `normalised` where config.json says nothing of their weights.
pub(super) fn put_experts(
    files: &ModelFiles<'_>,
    architecture: &mut Architecture,
    normalised: bool,
) -> Result<(), Error> {
    let config = &files.config;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_experts", "moe_intermediate_size", activation)?;
    let hidden = sizes.hidden_size;
    let shared = config.size("shared_expert_intermediate_size")?;
    let sparse = moe::sparse_blocks(config, files.blocks()?)?;
    moe::put(
        architecture,
        |block| sparse[block],
        |block| {
            let module = format!("{block}mlp");
            let router = Router {
                normalised: config.flag_or("norm_topk_prob", normalised)?,
                ..sizes.router(config, format!("{module}.gate.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
            let gate = format!("{module}.shared_expert_gate.weight");
            let shared = SharedExpert {
                mlp: moe::gated(
                    &format!("{module}.shared_expert"),
                    activation,
                    [shared, hidden],
                ),
                gate: Some(Linear::of_its_own(gate, None, [1, hidden])),
            };
            Ok(moe::feed_forward(router, experts, Some(shared)))
        },
    )
}

/// Qwen 3 with experts.
pub(super) fn qwen3_moe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag("attention_bias")?;
    let window = if config.flag("use_sliding_window")? {
        common::window(config)?
    } else {
        None
    };
    let qwen = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: vec![window; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    let mut architecture = qwen.describe(files)?;
    let activation = common::activation(config)?;
    let sizes = ExpertSizes::read(files, "num_experts", "moe_intermediate_size", activation)?;
    let sparse = moe::sparse_blocks(config, files.blocks()?)?;
    moe::put(
        &mut architecture,
        |block| sparse[block],
        |block| {
            let module = format!("{block}mlp");
            let router = Router {
                normalised: config.flag("norm_topk_prob")?,
                ..sizes.router(config, format!("{module}.gate.weight"))?
            };
            let experts = sizes.of_block(files, &module, ["gate_proj", "up_proj", "down_proj"])?;
            Ok(moe::feed_forward(router, experts, None))
        },
    )?;
    Ok(architecture)
}

/// Qwen 3 Next and 3.5: gated delta nets in most blocks, gated attention in the others, with experts or without. Of those
/// that know pictures, too, the text's half, whose rope is that of one without pictures.
pub(super) fn qwen3_next(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let heads = common::grouped_heads(config)?;
    let quarter = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let bias = config.flag("attention_bias")?;
    let epsilon = config.needed_number("rms_norm_eps")?;
    let rope = LlamaLike::with_rope(files, quarter)?;
    let qwen = LlamaLike {
        norm: NormStyle {
            offset: 1.0,
            ..NormStyle::of(NormKind::Rms, epsilon)
        },
        head_norms: norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        projection_bias: bias,
        output_bias: bias,
        ..rope
    };
    // Where there are experts, no block may have the width that is said of dense ones, or say none.
    let width = config.size_or("intermediate_size", Some(1))?;
    let mut architecture = qwen.describe_with(files, width)?;

    let types = [&["full_attention"][..], &["linear_attention"]];
    let attends = match common::attending(config, "layer_types", blocks, types)? {
        Some(attends) => attends,
        None => {
            let interval = config.size("full_attention_interval")?;
            let attends = |block: usize| (block + 1).is_multiple_of(interval);
            (0..blocks).map(attends).collect()
        }
    };
    let prefix = architecture.block_prefix.clone();
    for (index, block) in architecture.blocks.iter_mut().enumerate() {
        if !attends[index] {
            let module = format!("{prefix}{index}.linear_attn");
            block.mixers = vec![delta_net(files, &module, epsilon)?.into()];
            continue;
        }
        for attention in block.attentions_mut() {
            if let Projections::Separate([queries, ..]) = &mut attention.projections {
                // Of each head the query, then the gate.
                let features = heads.features;
                queries.stored_features = 2 * queries.out_features;
                attention.gate = Some(queries.runs([features, features, 2 * features]));
                *queries = queries.runs([0, features, 2 * features]);
            }
        }
    }
    if !matches!(files.model_type, "qwen3_5" | "qwen3_5_text") {
        put_experts(files, &mut architecture, true)?;
    }
    Ok(architecture)
}

fn delta_net(files: &ModelFiles<'_>, module: &str, epsilon: f64) -> Result<Recurrence, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let sizes = DeltaSizes {
        key_heads: config.size("linear_num_key_heads")?,
        value_heads: config.size("linear_num_value_heads")?,
        key_features: config.size("linear_key_head_dim")?,
        value_features: config.size("linear_value_head_dim")?,
    };
    if !sizes.value_heads.is_multiple_of(sizes.key_heads) {
        return Err(Error::Config(format!(
            "linear_num_value_heads {} is not a multiple of linear_num_key_heads {}",
            sizes.value_heads, sizes.key_heads
        )));
    }
    // Values that a key head serves.
    let served = sizes.value_heads / sizes.key_heads;
    let (key, value) = (sizes.key_features, served * sizes.value_features);
    let group = 2 * key + 2 * value;
    let name = |name: &str| format!("{module}.{name}");
    let linear = |of: &str, rows| common::linear(name(of), false, [rows, hidden_size]);
    let all_values = sizes.key_heads * value;
    let (convolved, gate, beta, time_step);
    if files.model_type == "qwen3_next" {
        // By key head.
        let all = linear("in_proj_qkvz", sizes.key_heads * group);
        let part = |first, run| all.runs([first, run, group]);
        let x_proj = linear("in_proj_ba", 2 * sizes.value_heads);
        convolved = [part(0, key), part(key, key), part(2 * key, value)];
        gate = part(2 * key + value, value);
        beta = x_proj.runs([0, served, 2 * served]);
        time_step = x_proj.runs([served, served, 2 * served]);
    } else {
        let keys = sizes.key_heads * key;
        let all = linear("in_proj_qkv", 2 * keys + all_values);
        convolved = all.split([keys, keys, all_values]);
        gate = linear("in_proj_z", all_values);
        beta = linear("in_proj_b", sizes.value_heads);
        time_step = linear("in_proj_a", sizes.value_heads);
    }
    let keys = sizes.key_heads * key;
    let channels = 2 * keys + all_values;
    let width = config.size("linear_conv_kernel_dim")?;
    let convolution = Convolution {
        weight: Vector {
            tensor: name("conv1d.weight"),
            shape: vec![channels, 1, width],
        },
        bias: None,
        width,
        channels: 0..channels,
    };
    let [of_q, of_k, of_v] = convolution.split([keys, keys, all_values]);
    let [q, k, v] = convolved;
    let list = |of: &str| Vector::list(name(of), sizes.value_heads);
    let ssm = Ssm::DeltaNet(Box::new(DeltaNet {
        activation: common::activation(config)?,
        convolved: [(q, of_q), (k, of_k), (v, of_v)],
        gate,
        beta,
        time_step,
        scan: ScanTensors {
            sizes: ScanSizes::DeltaNet(sizes),
            log: list("A_log"),
            bias: Some(list("dt_bias")),
            skip: None,
            limits: [0.0, f32::INFINITY],
        },
        norm: common::rms_norm(&name("norm"), sizes.value_features, epsilon),
    }));
    Ok(Recurrence {
        ssm,
        output: common::linear(name("out_proj"), false, [hidden_size, all_values]),
    })
}
