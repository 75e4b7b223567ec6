//! Rotary position embedding: the angle by which each pair of features turns from one token to the next.
//!
//! RoFormer (arXiv 2104.09864); the scaling of Llama 3.1 as published with its weights.

use std::f64::consts::PI;

use super::config::Config;
use super::error::Error;
use crate::untrusted::shown;

/// How queries and keys are turned by their position.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rotary {
    /// Radians a token, `[pairs]`: feature `i` of a head turns together with feature `i + pairs`; features behind those stay.
    pub(crate) frequencies: Vec<f64>,
}

impl Rotary {
    /// Reads the base, the part of a head that turns, and the scaling; both the older keys (`rope_theta`,
    /// `rope_scaling`, `rotary_emb_base`, `rotary_pct`) and the newer `rope_parameters`.
    pub(super) fn read(config: &Config<'_>, head_dim: usize, fraction: f64) -> Result<Self, Error> {
        let newer = config.part("rope_parameters");
        let scaling = config.part("rope_scaling");
        let old_base = config.number_or("rotary_emb_base", 10_000.0)?;
        let base = config.number_or("rope_theta", old_base)?;
        let base = match &newer {
            Some(part) => part.number_or("rope_theta", base)?,
            None => base,
        };
        let old_fraction = config.number_or("rotary_pct", fraction)?;
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
        let pairs = dims / 2;
        let mut frequencies: Vec<f64> = (0..pairs)
            .map(|i| base.powf(-(i as f64) / pairs as f64))
            .collect();

        // A scaling of the older form stands beside the base, one of the newer form among the parameters.
        if let Some(scaling) = newer.or(scaling) {
            let kind = scaling
                .word("rope_type")
                .or(scaling.word("type"))
                .unwrap_or("default");
            match kind {
                "default" => {}
                "linear" => {
                    let factor = scaling.number_or("factor", 1.0)?;
                    frequencies.iter_mut().for_each(|f| *f /= factor);
                }
                "llama3" => llama3(&scaling, &mut frequencies)?,
                other => {
                    return Err(Error::Unsupported(format!(
                        "rotary embedding scaled by {}",
                        shown(other)
                    )));
                }
            }
        }
        Ok(Self { frequencies })
    }
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
        Rotary::read(&Config::new(config), 8, 1.0)
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
            read(&json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}})).unwrap_err();
        assert!(error.to_string().contains("yarn"), "{error}");
    }
}
