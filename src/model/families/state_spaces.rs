//! The mixers of Mamba 1 and 2, as they and the hybrids with them store them.

use super::common;
use crate::model::activation::Activation;
use crate::model::config::Config;
use crate::model::error::Error;
use crate::model::recurrence::{GatedNorm, Recurrence, SelectiveScan, Ssm, StateSpace};
use crate::model::scan::{Convolution, ScanSizes, ScanTensors, StateSizes};
use crate::model::tensors::{HeadFactors, NormTensors, Vector};
use crate::untrusted::shown;

/// A mixer of Mamba 1.
pub(super) struct Mamba {
    pub(super) hidden_size: usize,
    /// Channels.
    pub(super) inner: usize,
    pub(super) states: usize,
    /// Features of the narrow vector of the time step.
    pub(super) rank: usize,
    /// Tokens that the convolution sees.
    pub(super) width: usize,
    pub(super) projection_bias: bool,
    pub(super) convolution_bias: bool,
    pub(super) activation: Activation,
}

impl Mamba {
    /// What is in a module.
    pub(super) fn mixer(&self, module: &str, norms: Option<[NormTensors; 3]>) -> Recurrence {
        let &Self {
            hidden_size,
            inner,
            states,
            rank,
            ..
        } = self;
        let linear = |name, bias, shape| common::linear(format!("{module}.{name}"), bias, shape);
        let bias = self.projection_bias;
        let [values, gate] = linear("in_proj", bias, [2 * inner, hidden_size]).split([inner; 2]);
        let x_proj = linear("x_proj", false, [rank + 2 * states, inner]);
        let ssm = Ssm::SelectiveScan(Box::new(SelectiveScan {
            activation: self.activation,
            values,
            gate,
            convolution: convolution(module, inner, self.width, self.convolution_bias),
            x_proj: x_proj.split([rank, states, states]),
            norms,
            time_step: linear("dt_proj", true, [inner, rank]),
            scan: ScanTensors {
                sizes: ScanSizes::of_channels(inner, states),
                log: Vector {
                    tensor: format!("{module}.A_log"),
                    shape: vec![inner, states],
                },
                bias: None,
                skip: Some(Vector::list(format!("{module}.D"), inner)),
                limits: [0.0, f32::INFINITY],
            },
        }));
        let output = linear("out_proj", bias, [hidden_size, inner]);
        Recurrence { ssm, output }
    }
}

/// A mixer of Mamba 2.
pub(super) struct Mamba2 {
    pub(super) hidden_size: usize,
    pub(super) sizes: StateSizes,
    pub(super) width: usize,
    pub(super) projection_bias: bool,
    pub(super) output_bias: bool,
    pub(super) convolution_bias: bool,
    pub(super) activation: Activation,
    /// The least and the most that a time step is.
    pub(super) limits: [f32; 2],
    /// What gate, values, B, C and time step are multiplied by.
    pub(super) multipliers: [f64; 5],
    /// What is added to the variance in the norm beside the gate; none without one.
    pub(super) norm: Option<f64>,
    /// Whether it is before the gate.
    pub(super) norm_before_gate: bool,
}

impl Mamba2 {
    /// What hybrids say of it, under keys that begin with `mamba_`, of so many channels.
    pub(super) fn of_hybrid(config: &Config<'_>, channels: usize) -> Result<Self, Error> {
        let heads = config.size("mamba_n_heads")?;
        let groups = config.size("mamba_n_groups")?;
        let key = "mamba_d_head";
        let features = match config.get(key) {
            Some(value) if value.as_str() == Some("auto") => channels / heads,
            _ => config.size(key)?,
        };
        if heads.saturating_mul(features) != channels {
            return Err(Error::Config(format!(
                "mamba_n_heads is {heads} and {key} {features}, which is not {channels} channels"
            )));
        }
        let projection_bias = config.flag("mamba_proj_bias")?;
        let sizes = StateSizes {
            heads,
            features,
            groups,
            states: config.size("mamba_d_state")?,
        };
        check_groups(sizes)?;
        Ok(Self {
            hidden_size: config.size("hidden_size")?,
            sizes,
            width: config.size("mamba_d_conv")?,
            projection_bias,
            output_bias: projection_bias,
            convolution_bias: config.flag("mamba_conv_bias")?,
            activation: common::activation(config)?,
            limits: limits(config)?,
            multipliers: [1.0; 5],
            norm: Some(config.needed_number("rms_norm_eps")?),
            norm_before_gate: false,
        })
    }

    /// What is in a module.
    pub(super) fn mixer(&self, module: &str) -> Recurrence {
        let StateSizes {
            heads,
            groups,
            states,
            ..
        } = self.sizes;
        let inner = self.sizes.channels();
        let both = groups * states;
        let linear = |name, bias, shape| common::linear(format!("{module}.{name}"), bias, shape);
        let rows = 2 * inner + 2 * both + heads;
        let all = linear("in_proj", self.projection_bias, [rows, self.hidden_size]);
        let [gate, values, b, c, time_step] = all.split([inner, inner, both, both, heads]);
        let [of_gate, of_values, of_b, of_c, of_step] = self.multipliers;
        let norm = self.norm.map(|epsilon| GatedNorm {
            norm: NormTensors {
                heads: groups,
                head_factors: HeadFactors::List,
                ..common::rms_norm(&format!("{module}.norm"), inner / groups, epsilon)
            },
            before_gate: self.norm_before_gate,
        });
        let list = |name: &str| Vector::list(format!("{module}.{name}"), heads);
        let all = convolution(module, inner + 2 * both, self.width, self.convolution_bias);
        let [of_channels, of_b_channels, of_c_channels] = all.split([inner, both, both]);
        let ssm = Ssm::StateSpace(Box::new(StateSpace {
            activation: self.activation,
            gate: gate.times(of_gate),
            convolved: [
                (values.times(of_values), of_channels),
                (b.times(of_b), of_b_channels),
                (c.times(of_c), of_c_channels),
            ],
            time_step: time_step.times(of_step),
            scan: ScanTensors {
                sizes: ScanSizes::StateSpace(self.sizes),
                log: list("A_log"),
                bias: Some(list("dt_bias")),
                skip: Some(list("D")),
                limits: self.limits,
            },
            norm,
        }));
        let output = linear("out_proj", self.output_bias, [self.hidden_size, inner]);
        Recurrence { ssm, output }
    }
}

/// Refuses groups that heads and channels cannot be shared out to.
pub(super) fn check_groups(sizes: StateSizes) -> Result<(), Error> {
    let StateSizes { heads, groups, .. } = sizes;
    if heads.is_multiple_of(groups) {
        Ok(())
    } else {
        Err(Error::Config(format!(
            "{heads} heads of a state space cannot be shared out to {groups} groups"
        )))
    }
}

/// `time_step_limit`: two numbers, of which the second may be infinite. transformers 5 writes an object for that; what
/// transformers 4 wrote is no JSON, and has been read as `null`.
pub(super) fn limits(config: &Config<'_>) -> Result<[f32; 2], Error> {
    let key = "time_step_limit";
    let Some(value) = config.get(key) else {
        return Ok([0.0, f32::INFINITY]);
    };
    let number = |value: &serde_json::Value| {
        let said = value.get("__float__").unwrap_or(value);
        match said.as_str() {
            Some("Infinity") => Some(f32::INFINITY),
            _ => said.as_f64().map(|number| number as f32),
        }
    };
    let list = value.as_array().map(Vec::as_slice);
    let both = match list {
        Some([least, most]) if most.is_null() => number(least).zip(Some(f32::INFINITY)),
        Some([least, most]) => number(least).zip(number(most)),
        _ => None,
    };
    match both {
        Some((least, most)) if least <= most => Ok([least, most]),
        _ => Err(Error::Config(format!(
            "{key} is {}, not two numbers in order",
            shown(&value.to_string())
        ))),
    }
}

/// The convolution of a module.
fn convolution(module: &str, channels: usize, width: usize, bias: bool) -> Convolution {
    Convolution {
        weight: Vector {
            tensor: format!("{module}.conv1d.weight"),
            shape: vec![channels, 1, width],
        },
        bias: bias.then(|| Vector::list(format!("{module}.conv1d.bias"), channels)),
        width,
        channels: 0..channels,
    }
}
