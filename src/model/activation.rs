//! The nonlinearities of feed-forward parts, and what config.json calls them.

use super::parts::{Loader, Parts};
use super::tensors::Vector;

/// A nonlinearity. Its number is the one that `shaders/forward/activation.wgsl` knows it by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Activation {
    /// `x / (1 + exp(-x))`.
    Silu = 0,
    /// `x Phi(x)` with the normal distribution's `Phi`.
    Gelu = 1,
    /// The same, by a hyperbolic tangent.
    GeluTanh = 2,
    /// `max(x, 0)`.
    Relu = 3,
    /// Its square.
    ReluSquared = 4,
    /// `x / (1 + exp(-1.702 x))`.
    GeluSigmoid = 5,
    /// `1 / (1 + exp(-x))`.
    Sigmoid = 6,
    /// `tanh(x)`.
    Tanh = 7,
    /// `x`.
    Identity = 8,
    /// `x`, a hundredth of it below 0.
    LeakyRelu = 9,
    /// `x tanh(ln(1 + exp(x)))`.
    Mish = 10,
    /// `min(max(x, 0), 6)`.
    Relu6 = 11,
    /// `x min(max(x + 3, 0), 6) / 6`.
    HardSwish = 12,
    /// `a x^2 + b x` above 0, `(exp(min(x, e)) - 1 - x) c + b x` otherwise, with learned numbers: [`Xielu`].
    Xielu = 13,
    /// With a gate only: `g / (1 + exp(-1.702 g)) (u + 1)`, where `g` is 7 at most and `u` within -7 and 7 (gpt-oss).
    ClampedSwiglu = 64,
}

/// The names that transformers knows each of them by.
const NAMES: &[(Activation, &[&str])] = &[
    (Activation::Silu, &["silu", "swish"]),
    (Activation::Gelu, &["gelu", "gelu_python"]),
    (
        Activation::GeluTanh,
        &[
            "gelu_new",
            "gelu_fast",
            "gelu_pytorch_tanh",
            "gelu_accurate",
            "gelu_python_tanh",
        ],
    ),
    (Activation::Relu, &["relu"]),
    (Activation::ReluSquared, &["relu2"]),
    (Activation::GeluSigmoid, &["quick_gelu"]),
    (Activation::Sigmoid, &["sigmoid"]),
    (Activation::Tanh, &["tanh"]),
    (Activation::Identity, &["linear"]),
    (Activation::LeakyRelu, &["leaky_relu"]),
    (Activation::Mish, &["mish"]),
    (Activation::Relu6, &["relu6"]),
    (Activation::HardSwish, &["hardswish"]),
    (Activation::Xielu, &["xielu"]),
    // hidden_act of gpt-oss says silu.
    (Activation::ClampedSwiglu, &[]),
];

impl Activation {
    /// The one of this name in config.json.
    pub(super) fn named(name: &str) -> Option<Self> {
        let known = NAMES.iter().find(|(_, names)| names.contains(&name));
        known.map(|(activation, _)| *activation)
    }
}

/// A nonlinearity with what it learned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Nonlinearity {
    pub(crate) activation: Activation,
    /// [`Xielu::numbers`]; of no meaning for others.
    pub(crate) numbers: [f32; 4],
}

impl From<Activation> for Nonlinearity {
    fn from(activation: Activation) -> Self {
        let numbers = [0.0; 4];
        Self {
            activation,
            numbers,
        }
    }
}

/// What xIELU learns (arXiv 2411.13010): lists of one number each.
#[derive(Clone, Debug)]
pub(crate) struct Xielu<V> {
    /// `a = softplus(of this)`.
    pub(crate) above: V,
    /// `c = b + softplus(of this)`.
    pub(crate) below: V,
    /// `b`, where it is stored; 1/2 otherwise.
    pub(crate) slope: Option<V>,
    /// `e`, where it is stored; a millionth below 0 otherwise.
    pub(crate) edge: Option<V>,
}

impl Xielu<Vector> {
    /// The same with other parts.
    pub(super) fn load<L: Loader>(
        &self,
        loader: &mut L,
    ) -> Result<Xielu<<L::Parts as Parts>::Numbers>, L::Error> {
        let mut optional = |list: &Option<Vector>| -> Result<_, L::Error> {
            list.as_ref().map(|list| loader.numbers(list)).transpose()
        };
        let (slope, edge) = (optional(&self.slope)?, optional(&self.edge)?);
        Ok(Xielu {
            above: loader.numbers(&self.above)?,
            below: loader.numbers(&self.below)?,
            slope,
            edge,
        })
    }
}

impl Xielu<Vec<f32>> {
    /// `a`, `b`, `c`, `e`.
    pub(crate) fn numbers(&self) -> [f32; 4] {
        let softplus = |of: &[f32]| f64::from(of[0]).exp().ln_1p();
        let slope = self.slope.as_ref().map_or(0.5, |slope| slope[0]);
        let edge = self.edge.as_ref().map_or(-1e-6, |edge| edge[0]);
        let below = f64::from(slope) + softplus(&self.below);
        [softplus(&self.above) as f32, slope, below as f32, edge]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shader_knows_each_by_its_number() {
        let wgsl = include_str!("../../shaders/forward/activation.wgsl");
        let count = wgsl.matches("const ACTIVATION_").count();
        assert_eq!(count, NAMES.len());
        for (activation, constant) in [
            (Activation::Silu, "SILU"),
            (Activation::Gelu, "GELU"),
            (Activation::GeluTanh, "GELU_TANH"),
            (Activation::Relu, "RELU"),
            (Activation::ReluSquared, "RELU_SQUARED"),
            (Activation::GeluSigmoid, "GELU_SIGMOID"),
            (Activation::Sigmoid, "SIGMOID"),
            (Activation::Tanh, "TANH"),
            (Activation::Identity, "IDENTITY"),
            (Activation::LeakyRelu, "LEAKY_RELU"),
            (Activation::Mish, "MISH"),
            (Activation::Relu6, "RELU6"),
            (Activation::HardSwish, "HARD_SWISH"),
            (Activation::Xielu, "XIELU"),
            (Activation::ClampedSwiglu, "CLAMPED_SWIGLU"),
        ] {
            let number = activation as u32;
            let declared = format!("const ACTIVATION_{constant}: u32 = {number}u;");
            assert!(wgsl.contains(&declared), "{declared}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_none() {
        assert_eq!(Activation::named("swish"), Some(Activation::Silu));
        assert_eq!(Activation::named("prelu"), None);
    }
}
