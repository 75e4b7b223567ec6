//! Rotary position embedding: the angle by which each pair of features is rotated from one token to the next.
//!
//! RoFormer (arXiv 2104.09864); YaRN (arXiv 2309.00071); LongRoPE (arXiv 2402.13753); the scaling of Llama 3.1 as published
//! with its weights.

use std::f64::consts::PI;

use super::config::Config;
use super::error::Error;
use crate::untrusted::shown;

/// Which features of a head are rotated together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pairing {
    /// Feature `i` and feature `i + pairs`.
    Halves,
    /// Feature `2 i` and feature `2 i + 1`.
    Interleaved,
}

/// How queries and keys are rotated by their position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Radians a token, `[pairs]`; features behind `2 pairs` stay.
    pub(crate) frequencies: Vec<f64>,
    pub(crate) pairing: Pairing,
    /// What rotated features are multiplied by.
    pub(crate) amplitude: f64,
    /// Beyond so many tokens, other frequencies.
    pub(crate) beyond: Option<(usize, Vec<f64>)>,
    /// The longest sequence that this is right for.
    pub(crate) longest: Option<usize>,
}

/// The rope of a family, and under which keys config.json describes it.
#[derive(Clone, Copy, Debug)]
pub(super) struct RotaryDefaults {
    /// Features of a head.
    pub(super) head_dim: usize,
    /// The key of the base beside the parameters; none where only a class's default of `rope_theta` counts.
    pub(super) base_key: Option<&'static str>,
    /// The key of the part of a head that rope rotates; none where it is the whole head.
    pub(super) fraction_key: Option<&'static str>,
    pub(super) pairing: Pairing,
    /// What a family calls LongRoPE.
    pub(super) longrope: &'static [&'static str],
    /// Whether `alpha` makes the base of a dynamic scaling that does not move with the length (Hunyuan).
    pub(super) alpha: bool,
}

impl RotaryDefaults {
    /// Whole heads, by halves.
    pub(super) fn of(head_dim: usize) -> Self {
        Self {
            head_dim,
            base_key: Some("rope_theta"),
            fraction_key: None,
            pairing: Pairing::Halves,
            longrope: &["longrope"],
            alpha: false,
        }
    }
}

/// The base of the paper, for what has no other.
const BASE: f64 = 10_000.0;

/// What config.json says of the rotary embedding: `rope_scaling`, in which the scaling stands alone and which somebody may
/// have added to a saved file, before `rope_parameters`, before what the class has of its own.
pub(super) fn parameters<'a>(config: &Config<'a>) -> Result<Option<Config<'a>>, Error> {
    if let Some(scaling) = config.part("rope_scaling")? {
        return Ok(Some(scaling));
    }
    let key = "rope_parameters";
    match config.get(key) {
        Some(_) => config.part(key),
        None => Ok(config.default(key).map(Config::new)),
    }
}

/// The type of a scaling.
pub(super) fn kind<'a>(parameters: &Config<'a>) -> Result<&'a str, Error> {
    let kind = match parameters.word("rope_type")? {
        Some(kind) => Some(kind),
        None => parameters.word("type")?,
    };
    Ok(kind.unwrap_or("default"))
}

impl Rotary {
    /// Reads the base, the part of a head that is rotated, and the scaling, as transformers does: from `rope_scaling`, or else
    /// `rope_parameters`; what is missing there from the keys beside it.
    pub(super) fn read(config: &Config<'_>, defaults: RotaryDefaults) -> Result<Self, Error> {
        let parameters = parameters(config)?;
        if let Some(parameters) = &parameters {
            for layers in ["full_attention", "sliding_attention"] {
                if parameters.get(layers).is_some() {
                    return Err(Error::Config(format!(
                        "the rotary embedding has parameters for {layers}, and all blocks of this model type have the same"
                    )));
                }
            }
        }
        Self::of_parameters(config, parameters.as_ref(), parameters.as_ref(), defaults)
    }

    /// That of the blocks of one type in `layer_types`, where each type has its own part of `rope_parameters`. `scaled`:
    /// whether `rope_scaling` is for them, whose keys replace those of the part.
    pub(super) fn of_layers(
        config: &Config<'_>,
        layer_type: &str,
        scaled: bool,
        defaults: RotaryDefaults,
    ) -> Result<Self, Error> {
        let key = "rope_parameters";
        let all = config.part(key)?;
        let own = match &all {
            Some(all) => all.part(layer_type)?,
            None => None,
        };
        let scaling = config.part("rope_scaling")?.filter(|_| scaled);
        if scaling.is_some() && all.is_some() && own.is_none() {
            return Err(Error::Config(format!(
                "rope_scaling is for {layer_type}, of which {key} has no part"
            )));
        }
        // transformers has "default" there already, which only a `rope_type` replaces.
        let is_silent = |scaling: &Config<'_>| {
            scaling.get("type").is_some() && scaling.get("rope_type").is_none()
        };
        if scaling.as_ref().is_some_and(is_silent) {
            return Err(Error::Config(
                "rope_scaling has a type, which has no effect for this model type: its name must be rope_type"
                    .to_owned(),
            ));
        }
        let both = match (&own, &scaling) {
            (Some(own), Some(scaling)) => Some(own.updated(scaling)),
            _ => None,
        };
        let parameters = both.as_ref().map(Config::new).or(scaling).or(own);
        Self::of_parameters(config, parameters.as_ref(), all.as_ref(), defaults)
    }

    /// One of so many features, whatever config.json says.
    pub(super) fn fixed(turned: usize, head_dim: usize, pairing: Pairing) -> Result<Self, Error> {
        check_rope_width(turned, head_dim)?;
        Ok(Self::unscaled(BASE, turned / 2, pairing))
    }

    fn unscaled(base: f64, pairs: usize, pairing: Pairing) -> Self {
        Self {
            frequencies: unscaled(base, pairs),
            pairing,
            amplitude: 1.0,
            beyond: None,
            longest: None,
        }
    }

    /// `outer`: the parameters of all types of blocks, of which YaRN reads `truncate`.
    fn of_parameters(
        config: &Config<'_>,
        parameters: Option<&Config<'_>>,
        outer: Option<&Config<'_>>,
        defaults: RotaryDefaults,
    ) -> Result<Self, Error> {
        let said = |key: &str| -> Result<Option<f64>, Error> {
            let number = parameters.map(|part| part.number(key)).transpose()?;
            Ok(number.flatten())
        };
        let beside = |key: Option<&str>| key.map(|key| config.number(key)).transpose();
        let base = match (said("rope_theta")?, beside(defaults.base_key)?.flatten()) {
            (Some(base), _) | (None, Some(base)) => base,
            (None, None) => {
                let usual = config.default("rope_theta").and_then(|base| base.as_f64());
                usual.unwrap_or(BASE)
            }
        };
        let kind = parameters.map_or(Ok("default"), kind)?;
        let key = "partial_rotary_factor";
        let fraction = match (said(key)?, defaults.fraction_key) {
            (Some(fraction), Some(_)) => fraction,
            (None, Some(key)) => config.number_or(key, 1.0)?,
            // Nothing reads it there.
            (_, None) if kind == "default" => 1.0,
            (given, None) => match given.or(config.number(key)?) {
                None | Some(1.0) => 1.0,
                Some(part) => {
                    let problem =
                        format!("{key} {part} where whole heads are rotated, scaled by {kind},");
                    return Err(Error::Unsupported(shown(&problem).to_string()));
                }
            },
        };
        let head_dim = defaults.head_dim;
        let dims = (head_dim as f64 * fraction) as usize;
        check_rope_width(dims, head_dim)?;
        let mut rotary = Self::unscaled(base, dims / 2, defaults.pairing);
        let Some(scaling) = parameters else {
            return Ok(rotary);
        };
        match kind {
            "default" => {}
            "linear" => {
                let factor = scaling.needed_number("factor")?;
                rotary.frequencies.iter_mut().for_each(|f| *f /= factor);
            }
            "dynamic" if defaults.alpha && scaling.get("alpha").is_some() => {
                let alpha = scaling.needed_number("alpha")?;
                let dims = dims as f64;
                let base = base * alpha.powf(dims / (dims - 2.0));
                rotary.frequencies = unscaled(base, rotary.frequencies.len());
            }
            "dynamic" => {
                scaling.needed_number("factor")?;
                rotary.longest = Some(config.size("max_position_embeddings")?);
            }
            "llama3" => llama3(config, scaling, &mut rotary.frequencies)?,
            kind if defaults.longrope.contains(&kind) => rotary.longrope(config, scaling)?,
            "yarn" => {
                let truncate = outer
                    .map(|outer| outer.flag_or("truncate", true))
                    .transpose()?;
                rotary.yarn(config, scaling, base, truncate.unwrap_or(true))?;
            }
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
    pub(crate) fn cosines_and_sines(
        frequencies: &[f64],
        amplitude: f64,
        tokens: usize,
    ) -> Vec<[f32; 2]> {
        let angles = (0..tokens).flat_map(|t| frequencies.iter().map(move |f| t as f64 * f));
        let turns = angles.map(|angle| [angle.cos(), angle.sin()]);
        turns
            .map(|turn| turn.map(|x| (x * amplitude) as f32))
            .collect()
    }

    /// Between pairs that turn often within the trained context, which stay, and pairs that hardly turn, which are slowed
    /// by `factor`, it goes linearly.
    fn yarn(
        &mut self,
        config: &Config<'_>,
        scaling: &Config<'_>,
        base: f64,
        truncate: bool,
    ) -> Result<(), Error> {
        let trained = trained_context(config, scaling)?;
        let factor = match scaling.number("factor")? {
            Some(factor) => factor,
            None => config.size("max_position_embeddings")? as f64 / trained,
        };
        let mscale = |by: f64| {
            if factor > 1.0 {
                0.1 * by * factor.ln() + 1.0
            } else {
                1.0
            }
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
        if truncate {
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
        let usual = if factor > 1.0 {
            (1.0 + factor.ln() / trained.ln()).sqrt()
        } else {
            1.0
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

/// Refuses what cannot be rotated.
fn check_rope_width(dims: usize, head_dim: usize) -> Result<(), Error> {
    if dims < 2 || !dims.is_multiple_of(2) || dims > head_dim {
        return Err(Error::Config(format!(
            "the rotary embedding rotates {dims} of {head_dim} features a head, and it rotates pairs"
        )));
    }
    Ok(())
}

/// The context that a model was first trained on: beside the scaling, as in Phi 3, before in it.
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
fn llama3(config: &Config<'_>, scaling: &Config<'_>, frequencies: &mut [f64]) -> Result<(), Error> {
    let factor = scaling.needed_number("factor")?;
    let low = scaling.needed_number("low_freq_factor")?;
    let high = scaling.needed_number("high_freq_factor")?;
    let trained = trained_context(config, scaling)?;
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
        let neox = RotaryDefaults {
            base_key: Some("rotary_emb_base"),
            fraction_key: Some("rotary_pct"),
            ..RotaryDefaults::of(8)
        };
        let read = |config| Rotary::read(&Config::new(&config), neox).unwrap();
        let old = read(json!({"rotary_emb_base": 77, "rotary_pct": 0.5}));
        let new = json!({"rope_theta": 77, "partial_rotary_factor": 0.5});
        assert_eq!(old, read(json!({"rope_parameters": new})));
    }

    #[test]
    fn a_scaling_counts_before_parameters_and_brings_its_own_base() {
        let parameters = json!({"rope_type": "default", "rope_theta": 500.0});
        let scaling = json!({"type": "linear", "factor": 2.0});
        let both =
            json!({"rope_parameters": parameters, "rope_scaling": scaling, "rope_theta": 70.0});
        let alone = json!({"rope_parameters": scaling, "rope_theta": 70.0});
        assert_eq!(read(&both).unwrap(), read(&alone).unwrap());
        let none = json!({"rope_parameters": parameters, "rope_scaling": {}});
        let plain = json!({"rope_parameters": parameters});
        assert_eq!(read(&none).unwrap(), read(&plain).unwrap());
        // Of two names of the type, the newer one.
        let named = json!({"rope_scaling": {"type": "yarn", "rope_type": "linear", "factor": 2.0}});
        let once = json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0}});
        assert_eq!(read(&named).unwrap(), read(&once).unwrap());
    }

    #[test]
    fn blocks_of_a_type_have_their_own_part_and_none_of_what_is_beside_it() {
        let of = |config: &serde_json::Value, kind, scaled| {
            let config = Config::new(config);
            Rotary::of_layers(&config, kind, scaled, RotaryDefaults::of(8))
        };
        let own = json!({"rope_type": "default", "rope_theta": 500.0});
        let flat = json!({"rope_theta": 900.0, "rope_type": "linear", "factor": 2.0});
        let plain = read(&json!({})).unwrap();
        let flat = json!({"rope_parameters": flat});
        assert_eq!(of(&flat, "full_attention", true).unwrap(), plain);
        let both = json!({
            "rope_parameters": {"full_attention": own}, "rope_scaling": {"rope_type": "linear", "factor": 2.0}
        });
        let scaled =
            json!({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}});
        assert_eq!(
            of(&both, "full_attention", true).unwrap(),
            read(&scaled).unwrap()
        );
        assert_eq!(of(&both, "sliding_attention", false).unwrap(), plain);
        // transformers takes no notice of a `type` there, and of its factor.
        let older = json!({"rope_scaling": {"type": "linear", "factor": 2.0}});
        let error = of(&older, "full_attention", true).unwrap_err();
        assert!(error.to_string().contains("rope_type"), "{error}");
        let error = read(&json!({"rope_parameters": {"full_attention": own}})).unwrap_err();
        assert!(error.to_string().contains("full_attention"), "{error}");
    }

    #[test]
    fn the_trained_length_beside_a_scaling_counts_before_that_in_it() {
        let scaled = |inside: serde_json::Value, beside: serde_json::Value| {
            let mut scaling = json!({
                "rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0
            });
            scaling["original_max_position_embeddings"] = inside;
            read(&json!({
                "rope_scaling": scaling, "original_max_position_embeddings": beside, "max_position_embeddings": 64
            }))
            .unwrap()
            .frequencies
        };
        let null = serde_json::Value::Null;
        assert_eq!(
            scaled(json!(16), json!(32)),
            scaled(json!(32), null.clone())
        );
        assert_eq!(
            scaled(null.clone(), null.clone()),
            scaled(json!(64), null.clone())
        );
        assert_ne!(scaled(json!(16), null.clone()), scaled(json!(64), null));
    }

    #[test]
    fn what_a_scaling_cannot_do_without_is_asked_for() {
        for (scaling, says) in [
            (json!({"rope_type": "linear"}), "factor is missing"),
            (json!({"rope_type": "dynamic"}), "factor is missing"),
            (
                json!({"rope_type": "llama3", "factor": 8.0}),
                "low_freq_factor is missing",
            ),
            (
                json!({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}),
                "where whole heads are rotated",
            ),
            // Only Phi 3 calls it so.
            (json!({"rope_type": "su"}), "scaled by su"),
        ] {
            let error = read(&json!({"rope_scaling": scaling}))
                .unwrap_err()
                .to_string();
            assert!(error.contains(says), "{scaling}: {error}");
        }
        // Whole heads are rotated where nothing is scaled.
        let part = json!({"rope_parameters": {"partial_rotary_factor": 0.5}});
        assert_eq!(read(&part).unwrap(), read(&json!({})).unwrap());
        // What moves the base of Hunyuan is nothing to others.
        let alpha = json!({"max_position_embeddings": 100, "rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 9.0}});
        assert_eq!(
            read(&alpha).unwrap().frequencies,
            read(&json!({})).unwrap().frequencies
        );
        let hunyuan = RotaryDefaults {
            alpha: true,
            ..RotaryDefaults::of(8)
        };
        let moved = Rotary::read(&Config::new(&alpha), hunyuan).unwrap();
        assert_ne!(moved.frequencies, read(&json!({})).unwrap().frequencies);
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
