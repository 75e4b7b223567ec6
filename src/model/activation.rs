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
}

/// The names that transformers knows each of them by.
const NAMES: &[(Activation, &[&str])] = &[
    (Activation::Silu, &["silu", "swish"]),
    (Activation::Gelu, &["gelu"]),
    (
        Activation::GeluTanh,
        &["gelu_new", "gelu_fast", "gelu_pytorch_tanh"],
    ),
    (Activation::Relu, &["relu"]),
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
        ] {
            let number = activation as u32;
            let declared = format!("const ACTIVATION_{constant}: u32 = {number}u;");
            assert!(wgsl.contains(&declared), "{declared}");
        }
    }

    #[test]
    fn a_name_that_nobody_knows_is_none() {
        assert_eq!(Activation::named("swish"), Some(Activation::Silu));
        assert_eq!(Activation::named("relu6"), None);
    }
}
