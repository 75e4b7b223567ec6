//! Nemotron, and the hybrid Nemotron H.

use serde_json::Value;

use super::common;
use super::llama_like::{LlamaLike, MlpModules, NormStyle};
use super::moe;
use super::state_spaces::{self, Mamba2};
use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::{Position, Projections, SelfAttention};
use crate::model::block::{BlockOrder, DecoderBlock, Mixer};
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::experts::{Router, Scores, SharedExpert};
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::rotary::RotaryDefaults;
use crate::model::scan::StateSizes;
use crate::model::tensors::{NormKind, Vector};
use crate::untrusted::shown;

/// Nemotron 4 and Minitron: LayerNorms by one plus their weight, squared ReLU without a gate, rope on half of each head.
pub(super) fn nemotron(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let rope = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let attention_bias = config.flag("attention_bias")?;
    let nemotron = LlamaLike {
        norm: NormStyle {
            biased: true,
            offset: 1.0,
            ..NormStyle::of(NormKind::Layer, config.needed_number("norm_eps")?)
        },
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp: MlpModules::Plain("mlp.up_proj", "mlp.down_proj"),
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::with_rope(files, rope)?
    };
    nemotron.describe(files)
}

/// What a block is.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Mamba,
    Attention,
    Mlp,
    Experts,
}

/// Nemotron H: each block is one thing, Mamba 2, attention without positions, a feed-forward part or experts.
pub(super) fn nemotron_h(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let hidden_size = config.size("hidden_size")?;
    let epsilon = config.needed_number("layer_norm_epsilon")?;
    let kinds = kinds(files)?;
    let activation = common::activation_at(config, "mlp_hidden_act")?;
    if config.get("moe_latent_size").is_some() && kinds.contains(&Kind::Experts) {
        return Err(Error::Unsupported("moe_latent_size".to_owned()));
    }
    let mamba = mamba_mixer(config, hidden_size, epsilon)?;

    let prefix = files.prefix("model.", "embeddings");
    let prefix = if files.headers.has(&format!("{prefix}embeddings.weight")) {
        prefix
    } else {
        "backbone.".to_owned()
    };
    let block = |(index, kind): (usize, &Kind)| -> Result<DecoderBlock, Error> {
        let module = format!("{prefix}layers.{index}.mixer");
        let norm = common::rms_norm(
            &format!("{prefix}layers.{index}.norm"),
            hidden_size,
            epsilon,
        );
        let (mixer, mlp): (Option<Mixer>, _) = match kind {
            Kind::Mamba => (Some(mamba.mixer(&module).into()), None),
            Kind::Attention => (Some(attention(config, &module)?.into()), None),
            Kind::Mlp => {
                let width = config.size("intermediate_size")?;
                let bias = config.flag("mlp_bias")?;
                let mlp = plain_mlp(activation, &module, bias, [width, hidden_size]);
                (None, Some(FeedForward::Dense(mlp)))
            }
            Kind::Experts => (None, Some(experts(files, activation, &module)?)),
        };
        Ok(DecoderBlock {
            order: BlockOrder::Sequential,
            mixer_norm: mixer.as_ref().map(|_| norm.clone()),
            mlp_norm: mlp.as_ref().map(|_| norm),
            mixers: mixer.into_iter().collect(),
            mixer_post_norm: None,
            mlp,
            mlp_post_norm: None,
            residual_scale: 1.0,
            adds_to_normed: false,
        })
    };
    let embedding = format!("{prefix}embeddings.weight");
    let parts = common::Parts {
        block_prefix: format!("{prefix}layers."),
        blocks: kinds
            .iter()
            .enumerate()
            .map(block)
            .collect::<Result<_, _>>()?,
        final_norm: common::rms_norm(&format!("{prefix}norm_f"), hidden_size, epsilon),
        lm_head: files.lm_head(&["lm_head"], &embedding),
        embedding,
    };
    common::plain(files, parts)
}

/// What the blocks are, by a list or by a letter each.
fn kinds(files: &ModelFiles<'_>) -> Result<Vec<Kind>, Error> {
    let config = &files.config;
    let unknown = |kind: &str| Error::Unsupported(format!("a block of the type {}", shown(kind)));
    let listed = config.get("layers_block_type");
    let kinds: Vec<Kind> = match (
        listed.and_then(Value::as_array),
        config.word("hybrid_override_pattern")?,
    ) {
        (Some(list), _) => {
            let kind = |value: &Value| match value.as_str() {
                Some("linear_attention" | "mamba") => Ok(Kind::Mamba),
                Some("full_attention" | "attention") => Ok(Kind::Attention),
                Some("mlp") => Ok(Kind::Mlp),
                Some("moe") => Ok(Kind::Experts),
                _ => Err(unknown(&value.to_string())),
            };
            list.iter().map(kind).collect::<Result<_, _>>()?
        }
        (None, Some(pattern)) => {
            let kind = |letter| match letter {
                'M' => Ok(Kind::Mamba),
                '*' => Ok(Kind::Attention),
                '-' => Ok(Kind::Mlp),
                'E' => Ok(Kind::Experts),
                other => Err(unknown(&other.to_string())),
            };
            pattern.chars().map(kind).collect::<Result<_, _>>()?
        }
        (None, None) => vec![Kind::Mamba, Kind::Experts, Kind::Attention, Kind::Mlp],
    };
    // Each has tensors of its own.
    let tensors = files.headers.len();
    if kinds.len() <= tensors {
        Ok(kinds)
    } else {
        Err(Error::Config(format!(
            "there are {} blocks, and the checkpoint has only {tensors} tensors",
            kinds.len()
        )))
    }
}

fn mamba_mixer(config: &Config<'_>, hidden_size: usize, epsilon: f64) -> Result<Mamba2, Error> {
    let sizes = StateSizes {
        heads: config.size("mamba_num_heads")?,
        features: config.size("mamba_head_dim")?,
        groups: config.size("n_groups")?,
        states: config.size("ssm_state_size")?,
    };
    state_spaces::check_groups(sizes)?;
    let least = config.needed_number("time_step_min")?;
    Ok(Mamba2 {
        hidden_size,
        sizes,
        width: config.size("conv_kernel")?,
        projection_bias: config.flag("use_bias")?,
        output_bias: config.flag("use_bias")?,
        convolution_bias: config.flag("use_conv_bias")?,
        activation: common::activation_at(config, "mamba_hidden_act")?,
        // What config.json calls the limit is for training.
        limits: [least as f32, f32::INFINITY],
        multipliers: [1.0; 5],
        norm: Some(epsilon),
        norm_before_gate: false,
    })
}

fn attention(config: &Config<'_>, module: &str) -> Result<SelfAttention, Error> {
    let hidden_size = config.size("hidden_size")?;
    let heads = common::grouped_heads(config)?;
    let [queries, keys] = [heads.queries, heads.keys].map(|count| count * heads.features);
    let bias = config.flag("attention_bias")?;
    let linear = |name, shape| common::linear(format!("{module}.{name}"), bias, shape);
    let projections = Projections::Separate([
        linear("q_proj", [queries, hidden_size]),
        linear("k_proj", [keys, hidden_size]),
        linear("v_proj", [keys, hidden_size]),
    ]);
    let output = linear("o_proj", [hidden_size, queries]);
    Ok(SelfAttention {
        window: common::window(config)?,
        ..SelfAttention::plain(heads, projections, Position::None, output)
    })
}

/// `down(act(up(x)))` of a module.
fn plain_mlp(
    activation: Activation,
    module: &str,
    bias: bool,
    [width, hidden_size]: [usize; 2],
) -> Mlp {
    let linear = |name, shape| common::linear(format!("{module}.{name}"), bias, shape);
    Mlp {
        activation,
        xielu: None,
        gate: None,
        up: linear("up_proj", [width, hidden_size]),
        down: linear("down_proj", [hidden_size, width]),
    }
}

/// Experts chosen as in DeepSeek 3, without gates, and one for every token.
fn experts(
    files: &ModelFiles<'_>,
    activation: Activation,
    module: &str,
) -> Result<FeedForward, Error> {
    let config = &files.config;
    let sizes = moe::ExpertSizes::read(
        files,
        "n_routed_experts",
        "moe_intermediate_size",
        activation,
    )?;
    let bias = config.flag("mlp_bias")?;
    let widths = [sizes.intermediate_size, sizes.hidden_size];
    let last = format!("{module}.experts.{}.down_proj.weight", sizes.count - 1);
    files.headers.require(&last)?;
    sizes.check_count(files)?;
    let expert = |expert| {
        let module = format!("{module}.experts.{expert}");
        plain_mlp(activation, &module, false, widths)
    };
    let router = sizes.router(config, format!("{module}.gate.weight"))?;
    let correction = format!("{module}.gate.e_score_correction_bias");
    let router = Router {
        scores: Scores::Sigmoid,
        correction: Some(Vector::list(correction, sizes.count)),
        groups: moe::groups(config, sizes.count, router.chosen, 2)?,
        normalised: config.flag("norm_topk_prob")?,
        scale: config.needed_number("routed_scaling_factor")?,
        ..router
    };
    let width = config.size("moe_shared_expert_intermediate_size")?;
    let shared = SharedExpert {
        mlp: plain_mlp(
            activation,
            &format!("{module}.shared_experts"),
            bias,
            [width, sizes.hidden_size],
        ),
        gate: None,
    };
    let experts = (0..sizes.count).map(expert).collect();
    Ok(moe::feed_forward(router, experts, Some(shared)))
}
