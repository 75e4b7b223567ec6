//! The nonlinearities of feed-forward parts, and what config.json calls them.

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
