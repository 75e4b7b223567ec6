//! Rotary position embedding: the angle by which each pair of features turns from one token to the next.
//!
//! RoFormer (arXiv 2104.09864); YaRN (arXiv 2309.00071); LongRoPE (arXiv 2402.13753); the scaling of Llama 3.1 as published
//! with its weights.

use std::f64::consts::PI;

use super::config::Config;
use super::error::Error;
use crate::untrusted::shown;

/// Which features of a head turn together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Feature `i` and feature `i + pairs`.
    Halves,
    /// Feature `2 i` and feature `2 i + 1`.
    Interleaved,
}

/// How queries and keys are turned by their position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Radians a token, `[pairs]`; features behind `2 pairs` stay.
    pub(crate) frequencies: Vec<f64>,
    pub(crate) pairing: Pairing,
    /// What turned features are multiplied by.
    pub(crate) amplitude: f64,
    /// Beyond so many tokens, other frequencies.
    pub(crate) beyond: Option<(usize, Vec<f64>)>,
    /// The longest sequence that this is right for.
    pub(crate) longest: Option<usize>,
}

/// What a family means where config.json says nothing.
#[derive(Clone, Copy, Debug)]
pub(super) struct RotaryDefaults {
    /// Features of a head.
    pub(super) head_dim: usize,
    pub(super) base: f64,
    /// The older key of the base.
    pub(super) base_key: &'static str,
    /// The part of a head that turns.
    pub(super) fraction: f64,
    pub(super) pairing: Pairing,
}

impl RotaryDefaults {
    /// Whole heads, by halves, with the base of the paper.
    pub(super) fn of(head_dim: usize) -> Self {
        Self {
            head_dim,
            base: 10_000.0,
            base_key: "rope_theta",
            fraction: 1.0,
            pairing: Pairing::Halves,
        }
    }
}

impl Rotary {
    /// Reads the base, the part of a head that turns, and the scaling; both the older keys (`rope_theta`,
    /// `rope_scaling`, `rotary_emb_base`, `rotary_pct`) and the newer `rope_parameters`.
    pub(super) fn read(config: &Config<'_>, defaults: RotaryDefaults) -> Result<Self, Error> {
        let newer = config.part("rope_parameters");
        Self::of_parts(config, newer, config.part("rope_scaling"), defaults)
    }

    /// That of the blocks of one type in `layer_types`, where each type may have its own part of `rope_parameters`. `scaled`:
    /// whether the older `rope_scaling` is for them.
    pub(super) fn of_layers(
        config: &Config<'_>,
        layer_type: &str,
        scaled: bool,
        defaults: RotaryDefaults,
    ) -> Result<Self, Error> {
        let newer = config.part("rope_parameters");
        let own = newer.as_ref().and_then(|part| part.part(layer_type));
        let scaling = config.part("rope_scaling").filter(|_| scaled);
        Self::of_parts(config, own.or(newer), scaling, defaults)
    }

    fn of_parts(
        config: &Config<'_>,
        newer: Option<Config<'_>>,
        scaling: Option<Config<'_>>,
        defaults: RotaryDefaults,
    ) -> Result<Self, Error> {
        let head_dim = defaults.head_dim;
        let old_base = config.number_or("rotary_emb_base", defaults.base)?;
        let base = config.number_or(defaults.base_key, old_base)?;
        let base = match &newer {
            Some(part) => part.number_or("rope_theta", base)?,
            None => base,
        };
        let old_fraction = config.number_or("rotary_pct", defaults.fraction)?;
        let fraction = config.number_or("partial_rotary_factor", old_fraction)?;
        let fraction = match &newer {
            Some(part) => part.number_or("partial_rotary_factor", fraction)?,
            None => fraction,
        };
        let dims = (head_dim as f64 * fraction) as usize;
        if dims < 2 || !dims.is_multiple_of(2) || dims > head_dim {
            return Err(Error::Config(format!(
                "the rotary embedding turns {dims} of {head_dim} features a head, and they turn in pairs"
            )));
        }
        let mut rotary = Self {
            frequencies: unscaled(base, dims / 2),
            pairing: defaults.pairing,
            amplitude: 1.0,
            beyond: None,
            longest: None,
        };
        // A scaling of the older form stands beside the base, one of the newer form among the parameters.
        let Some(scaling) = newer.or(scaling) else {
            return Ok(rotary);
        };
        let kind = scaling
            .word("rope_type")
            .or(scaling.word("type"))
            .unwrap_or("default");
        match kind {
            "default" | "mrope" => {}
            "linear" => {
                let factor = scaling.number_or("factor", 1.0)?;
                rotary.frequencies.iter_mut().for_each(|f| *f /= factor);
            }
            "dynamic" if scaling.get("alpha").is_some() => {
                // The base of Hunyuan, which does not move with the length.
                let alpha = scaling.number_or("alpha", 1.0)?;
                let dims = dims as f64;
                let base = base * alpha.powf(dims / (dims - 2.0));
                rotary.frequencies = unscaled(base, rotary.frequencies.len());
            }
            "dynamic" => rotary.longest = Some(config.size("max_position_embeddings")?),
            "llama3" => llama3(&scaling, &mut rotary.frequencies)?,
            "yarn" => rotary.yarn(config, &scaling, base)?,
            "longrope" | "su" => rotary.longrope(config, &scaling)?,
            other => {
                return Err(Error::Unsupported(format!(
                    "rotary embedding scaled by {}",
                    shown(other)
                )));
            }
        }
        Ok(rotary)
    }

    /// The frequencies of sequences by their length: up to so many tokens these, then those. Only what sequences of at most
    /// `context` tokens need.
    pub(crate) fn by_length(&self, context: usize) -> impl Iterator<Item = (usize, &[f64])> {
        let limit = self.beyond.as_ref().map_or(usize::MAX, |(limit, _)| *limit);
        let long = self
            .beyond
            .iter()
            .filter(move |(limit, _)| context > *limit);
        let long = long.map(|(_, frequencies)| (usize::MAX, frequencies.as_slice()));
        std::iter::once((limit, self.frequencies.as_slice())).chain(long)
    }

    /// Cosine and sine of each pair's angle, `[tokens, pairs]`.
    pub(crate) fn turns(frequencies: &[f64], amplitude: f64, tokens: usize) -> Vec<[f32; 2]> {
        let angles = (0..tokens).flat_map(|t| frequencies.iter().map(move |f| t as f64 * f));
        let turns = angles.map(|angle| [angle.cos(), angle.sin()]);
        turns
            .map(|turn| turn.map(|x| (x * amplitude) as f32))
            .collect()
    }

    /// Between pairs that turn often within the trained context, which stay, and pairs that hardly turn, which are slowed
    /// by `factor`, it goes linearly.
    fn yarn(&mut self, config: &Config<'_>, scaling: &Config<'_>, base: f64) -> Result<(), Error> {
        let trained = trained_context(config, scaling)?;
        let factor = match scaling.get("factor") {
            Some(_) => scaling.number_or("factor", 1.0)?,
            None => config.size("max_position_embeddings")? as f64 / trained,
        };
        let mscale = |by: f64| match factor > 1.0 {
            true => 0.1 * by * factor.ln() + 1.0,
            false => 1.0,
        };
        let by = |key| scaling.get(key).and_then(serde_json::Value::as_f64);
        let given = (by("mscale"), by("mscale_all_dim"));
        let usual = match given {
            (Some(own), Some(all)) if own != 0.0 && all != 0.0 => mscale(own) / mscale(all),
            _ => mscale(1.0),
        };
        self.amplitude = scaling.number_or("attention_factor", usual)?;

        let pairs = self.frequencies.len();
        // The pair, counted in features, that turns so often within the trained context.
        let pair = |turns: f64| pairs as f64 * (trained / (turns * 2.0 * PI)).ln() / base.ln();
        let mut low = pair(scaling.number_or("beta_fast", 32.0)?);
        let mut high = pair(scaling.number_or("beta_slow", 1.0)?);
        if scaling.flag_or("truncate", true)? {
            (low, high) = (low.floor(), high.ceil());
        }
        let low = low.max(0.0);
        let mut high = high.min((2 * pairs - 1) as f64);
        if low == high {
            high += 0.001;
        }
        for (i, frequency) in self.frequencies.iter_mut().enumerate() {
            let slowed = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            *frequency *= slowed / factor + (1.0 - slowed);
        }
        Ok(())
    }

    /// Each pair is slowed by a factor of its own: one list within the trained context, another beyond it.
    fn longrope(&mut self, config: &Config<'_>, scaling: &Config<'_>) -> Result<(), Error> {
        let trained = trained_context(config, scaling)?;
        let longest = config.size("max_position_embeddings")? as f64;
        let factor = scaling.number_or("factor", longest / trained)?;
        let usual = match factor > 1.0 {
            true => (1.0 + factor.ln() / trained.ln()).sqrt(),
            false => 1.0,
        };
        self.amplitude = scaling.number_or("attention_factor", usual)?;
        let slowed = |key: &str| -> Result<Vec<f64>, Error> {
            let factors = scaling.numbers(key, self.frequencies.len())?;
            let each = self.frequencies.iter().zip(factors);
            Ok(each.map(|(frequency, factor)| frequency / factor).collect())
        };
        let (short, long) = (slowed("short_factor")?, slowed("long_factor")?);
        self.frequencies = short;
        self.beyond = Some((trained as usize, long));
        Ok(())
    }
}

/// Frequencies without a scaling.
fn unscaled(base: f64, pairs: usize) -> Vec<f64> {
    let exponents = (0..pairs).map(|i| i as f64 / pairs as f64);
    exponents.map(|exponent| base.powf(-exponent)).collect()
}

/// The context that a model was first trained on: beside the scaling in Phi 3, in it elsewhere.
fn trained_context(config: &Config<'_>, scaling: &Config<'_>) -> Result<f64, Error> {
    let key = "original_max_position_embeddings";
    let part = if config.get(key).is_some() {
        config
    } else {
        scaling
    };
    let trained = match part.get(key) {
        Some(_) => part.size(key)?,
        None => config.size("max_position_embeddings")?,
    };
    Ok(trained as f64)
}

/// Slow turns are slowed further by `factor`, fast ones stay, and between the two it goes smoothly.
fn llama3(scaling: &Config<'_>, frequencies: &mut [f64]) -> Result<(), Error> {
    let factor = scaling.number_or("factor", 8.0)?;
    let low = scaling.number_or("low_freq_factor", 1.0)?;
    let high = scaling.number_or("high_freq_factor", 4.0)?;
    let trained = scaling.number_or("original_max_position_embeddings", 8192.0)?;
    if low >= high {
        return Err(Error::Config(format!(
            "low_freq_factor {low} is not below high_freq_factor {high}"
        )));
    }
    for frequency in frequencies {
        // Whole turns within the context the model was first trained on.
        let turns = trained * *frequency / (2.0 * PI);
        let kept = ((turns - low) / (high - low)).clamp(0.0, 1.0);
        *frequency *= kept + (1.0 - kept) / factor;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(config: &serde_json::Value) -> Result<Rotary, Error> {
        Rotary::read(&Config::new(config), RotaryDefaults::of(8))
    }

    #[test]
    fn older_and_newer_spellings_mean_the_same() {
        let old =
            read(&json!({"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}}));
        let new = read(
            &json!({"rope_parameters": {"rope_theta": 500.0, "rope_type": "linear", "factor": 2.0}}),
        );
        assert_eq!(old.unwrap(), new.unwrap());
        let old = read(&json!({"rotary_emb_base": 77, "rotary_pct": 0.5}));
        let new =
            read(&json!({"rope_parameters": {"rope_theta": 77, "partial_rotary_factor": 0.5}}));
        assert_eq!(old.unwrap(), new.unwrap());
    }

    #[test]
    fn llama3_keeps_fast_turns_and_slows_slow_ones() {
        let plain = read(&json!({"rope_theta": 500_000.0})).unwrap().frequencies;
        let scaled = read(&json!({"rope_theta": 500_000.0, "rope_scaling": {
            "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192
        }}));
        let scaled = scaled.unwrap().frequencies;
        assert_eq!(scaled[0], plain[0]);
        assert_eq!(scaled[3], plain[3] / 32.0);
    }

    #[test]
    fn a_scaling_nobody_implemented_is_named() {
        let error =
            read(&json!({"rope_scaling": {"rope_type": "axial", "factor": 4.0}})).unwrap_err();
        assert!(error.to_string().contains("axial"), "{error}");
    }

    #[test]
    fn dynamic_is_none_within_the_trained_length() {
        let plain = read(&json!({})).unwrap();
        let dynamic = read(&json!({"max_position_embeddings": 100, "rope_scaling": {
            "type": "dynamic", "factor": 4.0
        }}));
        let dynamic = dynamic.unwrap();
        assert_eq!(dynamic.frequencies, plain.frequencies);
        assert_eq!(dynamic.longest, Some(100));
    }

    #[test]
    fn longrope_has_a_list_for_short_and_one_for_long_sequences() {
        let plain = read(&json!({})).unwrap().frequencies;
        let config = json!({"max_position_embeddings": 64, "original_max_position_embeddings": 16, "rope_scaling": {
            "type": "longrope", "short_factor": [1, 1, 2, 2], "long_factor": [1, 3, 3, 4]
        }});
        let rotary = read(&config).unwrap();
        let lengths: Vec<_> = rotary.by_length(17).collect();
        assert_eq!(lengths[0], (16, &rotary.frequencies[..]));
        assert_eq!(lengths[1].0, usize::MAX);
        assert_eq!(lengths[1].1[1], plain[1] / 3.0);
        assert_eq!(rotary.by_length(16).count(), 1);
        assert_eq!(rotary.amplitude, 1.5_f64.sqrt());
        let short = json!({"max_position_embeddings": 64, "rope_scaling": {
            "type": "longrope", "short_factor": [1], "long_factor": [1, 3, 3, 4]
        }});
        let error = read(&short).unwrap_err().to_string();
        assert!(
            error.contains("short_factor is not a list of 4 numbers"),
            "{error}"
        );
    }
}
