//! The architectures: one row each. **To add one, add a row**, and a checkpoint of it to `tests/forward/goldens.py`.

use super::config::Config;
use super::{Activation, Mlp, NormKind, Projections};

/// What a `model_type` of config.json means.
pub(super) struct Row {
    pub(super) model_type: &'static str,
    pub(super) norm: NormKind,
    /// The key of the norms' epsilon, and its value when nothing is said.
    pub(super) epsilon: (&'static str, f64),
    pub(super) projections: Projections,
    /// Whether each head of the queries and keys has a norm of its own.
    pub(super) head_norms: bool,
    pub(super) mlp: Mlp,
    pub(super) activation: Activation,
    /// Whether attention and MLP read the same hidden state, unless `use_parallel_residual` says otherwise.
    pub(super) parallel: bool,
    /// The part of each head that turns with the position, when nothing is said.
    pub(super) rotary_fraction: f64,
    pub(super) bias: Bias,
    pub(super) window: Window,
    pub(super) names: &'static Names,
}

/// Which linear layers have a bias.
pub(super) struct Bias {
    /// Queries, keys and values.
    pub(super) attention: Switch,
    /// What comes after attention.
    pub(super) output: Switch,
    pub(super) mlp: Switch,
}

/// Yes, no, or as a key of config.json says.
pub(super) enum Switch {
    Always,
    Never,
    /// The key, and what it is when nothing is said.
    Key(&'static str, bool),
}

impl Switch {
    pub(super) fn read(&self, config: &Config<'_>) -> Result<bool, super::Error> {
        match self {
            Self::Always => Ok(true),
            Self::Never => Ok(false),
            Self::Key(key, default) => config.flag_or(key, *default),
        }
    }
}

/// Which blocks attend to the last `sliding_window` tokens only.
pub(super) enum Window {
    None,
    /// All, if there is a `sliding_window`.
    Everywhere,
    /// If `use_sliding_window` says so, those from `max_window_layers` on.
    Above,
}

/// What the tensors are called; modules without `.weight`.
#[derive(Debug)]
pub(super) struct Names {
    /// Before everything but the head.
    pub(super) prefix: &'static str,
    pub(super) embedding: &'static str,
    pub(super) final_norm: &'static str,
    /// Newer versions of transformers write another name.
    pub(super) head: &'static [&'static str],
    pub(super) attention_norm: &'static str,
    pub(super) mlp_norm: &'static str,
    /// One module, or three.
    pub(super) projections: &'static [&'static str],
    /// Of queries and of keys.
    pub(super) head_norms: [&'static str; 2],
    pub(super) output: &'static str,
    /// The gate, if there is one, then up.
    pub(super) up: &'static [&'static str],
    pub(super) down: &'static str,
}

const LLAMA: Names = Names {
    prefix: "model.",
    embedding: "embed_tokens",
    final_norm: "norm",
    head: &["lm_head"],
    attention_norm: "input_layernorm",
    mlp_norm: "post_attention_layernorm",
    projections: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    head_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    output: "self_attn.o_proj",
    up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
};

const GPT_NEOX: Names = Names {
    prefix: "gpt_neox.",
    embedding: "embed_in",
    final_norm: "final_layer_norm",
    head: &["embed_out", "lm_head"],
    attention_norm: "input_layernorm",
    mlp_norm: "post_attention_layernorm",
    projections: &["attention.query_key_value"],
    head_norms: ["", ""],
    output: "attention.dense",
    up: &["mlp.dense_h_to_4h"],
    down: "mlp.dense_4h_to_h",
};

/// Llama 1 to 3, and everything that was trained in its likeness (SmolLM2, TinyLlama, Yi).
const LIKE_LLAMA: Row = Row {
    model_type: "llama",
    norm: NormKind::Rms,
    epsilon: ("rms_norm_eps", 1e-6),
    projections: Projections::Separate,
    head_norms: false,
    mlp: Mlp::Gated,
    activation: Activation::Silu,
    parallel: false,
    rotary_fraction: 1.0,
    bias: Bias {
        attention: Switch::Key("attention_bias", false),
        output: Switch::Key("attention_bias", false),
        mlp: Switch::Key("mlp_bias", false),
    },
    window: Window::None,
    names: &LLAMA,
};

const NO_BIAS: Bias = Bias {
    attention: Switch::Never,
    output: Switch::Never,
    mlp: Switch::Never,
};

pub(super) static ROWS: &[Row] = &[
    LIKE_LLAMA,
    Row {
        model_type: "mistral",
        bias: NO_BIAS,
        window: Window::Everywhere,
        ..LIKE_LLAMA
    },
    Row {
        model_type: "qwen2",
        bias: Bias {
            attention: Switch::Always,
            ..NO_BIAS
        },
        window: Window::Above,
        ..LIKE_LLAMA
    },
    Row {
        model_type: "qwen3",
        head_norms: true,
        bias: Bias {
            attention: Switch::Key("attention_bias", false),
            output: Switch::Key("attention_bias", false),
            mlp: Switch::Never,
        },
        window: Window::Above,
        ..LIKE_LLAMA
    },
    // Pythia.
    Row {
        model_type: "gpt_neox",
        norm: NormKind::Layer,
        epsilon: ("layer_norm_eps", 1e-5),
        projections: Projections::Interleaved,
        head_norms: false,
        mlp: Mlp::Plain,
        activation: Activation::Gelu,
        parallel: true,
        rotary_fraction: 0.25,
        bias: Bias {
            attention: Switch::Key("attention_bias", true),
            output: Switch::Key("attention_bias", true),
            mlp: Switch::Always,
        },
        window: Window::None,
        names: &GPT_NEOX,
    },
];
