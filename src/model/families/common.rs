//! Keys of config.json that most families have in common.

use serde_json::Value;

use crate::model::activation::Activation;
use crate::model::architecture::Architecture;
use crate::model::attention::HeadCounts;
use crate::model::block::DecoderBlock;
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::family::ModelFiles;
use crate::model::feed_forward::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::tensors::{Linear, NormKind, NormTensors};
use crate::untrusted::shown;

/// Heads and their width: `num_attention_heads`, `head_dim`, and as many keys as `key_heads` says of the queries.
pub(super) fn heads(
    config: &Config<'_>,
    key_heads: impl FnOnce(usize) -> Result<usize, Error>,
) -> Result<HeadCounts, Error> {
    let hidden_size = config.size("hidden_size")?;
    let queries = config.size("num_attention_heads")?;
    let keys = key_heads(queries)?;
    if !queries.is_multiple_of(keys) {
        return Err(Error::Config(format!(
            "num_attention_heads {queries} is not a multiple of num_key_value_heads {keys}"
        )));
    }
    if config.get("head_dim").is_none() && !hidden_size.is_multiple_of(queries) {
        return Err(Error::Config(format!(
            "hidden_size {hidden_size} is not a multiple of num_attention_heads {queries}, and there is no head_dim"
        )));
    }
    Ok(HeadCounts {
        queries,
        keys,
        features: config.size_or("head_dim", Some(hidden_size / queries))?,
    })
}

/// Refuses a `head_dim` that is not `hidden_size / num_attention_heads`, for a family of which only the rotary embedding
/// reads it: transformers then rotates other features than there are.
pub(super) fn only_usual_heads(config: &Config<'_>, usual: usize) -> Result<(), Error> {
    match config.size_or("head_dim", Some(usual))? {
        features if features == usual => Ok(()),
        features => Err(Error::Unsupported(format!(
            "head_dim {features}, where hidden_size makes heads of {usual} features,"
        ))),
    }
}

/// Heads where keys and values may be fewer than queries: `num_key_value_heads`.
pub(super) fn grouped_heads(config: &Config<'_>) -> Result<HeadCounts, Error> {
    heads(config, |queries| {
        config.size_or("num_key_value_heads", Some(queries))
    })
}

/// What every architecture has.
pub(super) struct Parts {
    /// The tensor of the embedding.
    pub(super) embedding: String,
    pub(super) block_prefix: String,
    pub(super) blocks: Vec<DecoderBlock>,
    pub(super) final_norm: NormTensors,
    /// The tensor of the head.
    pub(super) lm_head: String,
}

/// These parts and nothing besides: the embedding is not scaled or normalised, there is no rope, and the logits are what the
/// head gives.
pub(super) fn plain(files: &ModelFiles<'_>, parts: Parts) -> Result<Architecture, Error> {
    Ok(Architecture {
        model_type: files.model_type,
        hidden_size: files.config.size("hidden_size")?,
        vocab_size: files.config.size("vocab_size")?,
        max_context: max_context(&files.config)?,
        embedding: parts.embedding,
        embedding_size: files.config.size("hidden_size")?,
        embedding_projections: None,
        embedding_scale: 1.0,
        position_embedding: None,
        embedding_norm: None,
        rotaries: Vec::new(),
        alibi: None,
        block_prefix: parts.block_prefix,
        blocks: parts.blocks,
        final_norm: parts.final_norm,
        lm_head: parts.lm_head,
        lm_head_bias: None,
        logit_scale: 1.0,
        logit_soft_cap: None,
    })
}

/// A LayerNorm with a weight and a bias.
pub(super) fn layer_norm(module: String, features: usize, epsilon: f64) -> NormTensors {
    NormTensors {
        bias: Some(format!("{module}.bias")),
        ..NormTensors::plain(
            NormKind::Layer,
            format!("{module}.weight"),
            features,
            epsilon,
        )
    }
}

/// An RMSNorm with a weight.
pub(super) fn rms_norm(module: &str, features: usize, epsilon: f64) -> NormTensors {
    NormTensors::plain(NormKind::Rms, format!("{module}.weight"), features, epsilon)
}

/// A layer with a tensor of its own, `[out_features, in_features]`.
pub(super) fn linear(module: String, bias: bool, shape: [usize; 2]) -> Linear {
    let bias = bias.then(|| format!("{module}.bias"));
    Linear::of_its_own(format!("{module}.weight"), bias, shape)
}

/// `down(act(up(x)))`.
pub(super) fn ungated(activation: Activation, up: Linear, down: Linear) -> FeedForward {
    FeedForward::Dense(Mlp {
        activation,
        xielu: None,
        gate: None,
        up,
        down,
    })
}

/// `hidden_act`; SiLU where a family's class has no such key.
pub(super) fn activation(config: &Config<'_>) -> Result<Activation, Error> {
    match config.get("hidden_act") {
        None => Ok(Activation::Silu),
        Some(_) => activation_at(config, "hidden_act"),
    }
}

/// The activation that a key names.
pub(super) fn activation_at(config: &Config<'_>, key: &str) -> Result<Activation, Error> {
    let name = config.word(key)?;
    let name = name.ok_or_else(|| Error::Config(format!("{key} is missing")))?;
    Activation::named(name).ok_or_else(|| Error::Unsupported(format!("{key} {}", shown(name))))
}

/// Refuses a setting that is not what it usually is.
pub(super) fn only(config: &Config<'_>, key: &str, usual: bool) -> Result<(), Error> {
    if config.flag_or(key, usual)? == usual {
        Ok(())
    } else {
        Err(Error::Unsupported(format!("{key} {}", !usual)))
    }
}

/// `max_position_embeddings`, where config.json itself says it: nothing ends at a class's default.
pub(super) fn max_context(config: &Config<'_>) -> Result<Option<usize>, Error> {
    let key = "max_position_embeddings";
    config.says(key).then(|| config.size(key)).transpose()
}

/// `sliding_window`, where every block has the same.
pub(super) fn window(config: &Config<'_>) -> Result<Option<usize>, Error> {
    config.size_if_any("sliding_window")
}

/// What a product of queries and keys is usually multiplied by.
pub(super) fn usual_scale(heads: HeadCounts) -> f32 {
    (heads.features as f32).powf(-0.5)
}

/// The blocks that slide: those that `layer_types` says, or else those that `usual` does.
pub(super) fn sliding(
    config: &Config<'_>,
    blocks: usize,
    usual: impl Fn(usize) -> bool,
) -> Result<Vec<bool>, Error> {
    let Some(types) = config.get("layer_types") else {
        return Ok((0..blocks).map(usual).collect());
    };
    let types = types.as_array().filter(|types| types.len() == blocks);
    let types = types.ok_or_else(|| {
        Error::Config(format!(
            "layer_types is not a list of {blocks} types, one a block"
        ))
    })?;
    let slides = types.iter().map(|kind| match kind.as_str() {
        // The second is what earlier versions of transformers called it.
        Some("full_attention" | "attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(Error::Unsupported(format!(
            "a block of the type {}",
            shown(&kind.to_string())
        ))),
    });
    slides.collect()
}

/// The blocks that slide where every so many-th does not: `sliding_window_pattern` says how many.
pub(super) fn sliding_but_every(config: &Config<'_>, blocks: usize) -> Result<Vec<bool>, Error> {
    let period = match config.get("layer_types") {
        Some(_) => 1,
        None => config.size("sliding_window_pattern")?,
    };
    sliding(config, blocks, |block| (block + 1) % period != 0)
}

/// The window of each block.
pub(super) fn windows_of(
    sliding: &[bool],
    window: Option<usize>,
) -> Result<Vec<Option<usize>>, Error> {
    if window.is_none() && sliding.contains(&true) {
        let problem = "layer_types has sliding_attention, and there is no sliding_window in use";
        return Err(Error::Config(problem.to_owned()));
    }
    Ok(sliding
        .iter()
        .map(|slides| window.filter(|_| *slides))
        .collect())
}

/// The window of each block where `use_sliding_window` may turn it on: in the blocks that `layer_types` names, or from
/// `max_window_layers` on.
pub(super) fn windows(config: &Config<'_>, blocks: usize) -> Result<Vec<Option<usize>>, Error> {
    let window = if config.flag("use_sliding_window")? {
        window(config)?
    } else {
        None
    };
    let first = count(config, "max_window_layers")?;
    let sliding = sliding(config, blocks, |block| window.is_some() && block >= first)?;
    windows_of(&sliding, window)
}

/// A count that may be zero.
pub(super) fn count(config: &Config<'_>, key: &str) -> Result<usize, Error> {
    let Some(value) = config.get(key) else {
        return Err(Error::Config(format!("{key} is missing")));
    };
    let count = value.as_u64();
    let count = count.and_then(|count| usize::try_from(count).ok());
    count.ok_or_else(|| Error::Config(format!("{key} is not a number")))
}

/// Refuses a switch that is on and that nobody wrote the code for.
pub(super) fn refuse(config: &Config<'_>, switch: &str) -> Result<(), Error> {
    if config.flag(switch)? {
        Err(Error::Unsupported(format!("a model with {switch}")))
    } else {
        Ok(())
    }
}

/// A list of numbers of blocks, if there is one.
pub(super) fn block_numbers(config: &Config<'_>, key: &str) -> Result<Option<Vec<usize>>, Error> {
    let Some(value) = config.get(key) else {
        return Ok(None);
    };
    let numbers = value.as_array().into_iter().flatten().map(Value::as_u64);
    let numbers = numbers.map(|number| usize::try_from(number?).ok());
    let numbers: Option<Vec<usize>> = numbers.collect();
    let numbers = numbers.filter(|_| value.is_array());
    let numbers =
        numbers.ok_or_else(|| Error::Config(format!("{key} is not a list of numbers")))?;
    Ok(Some(numbers))
}

/// Which blocks attend, and which do what `other` says, by the list of types of blocks under a key; none without one.
pub(super) fn attending(
    config: &Config<'_>,
    key: &str,
    blocks: usize,
    [attention, other]: [&[&str]; 2],
) -> Result<Option<Vec<bool>>, Error> {
    let Some(types) = config.get(key) else {
        return Ok(None);
    };
    let types = types.as_array().filter(|types| types.len() == blocks);
    let types = types.ok_or_else(|| {
        Error::Config(format!(
            "{key} is not a list of {blocks} types, one a block"
        ))
    })?;
    let attends = types.iter().map(|kind| match kind.as_str() {
        Some(kind) if attention.contains(&kind) => Ok(true),
        Some(kind) if other.contains(&kind) => Ok(false),
        _ => Err(Error::Unsupported(format!(
            "a block of the type {}",
            shown(&kind.to_string())
        ))),
    });
    Ok(Some(attends.collect::<Result<_, _>>()?))
}
