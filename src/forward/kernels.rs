//! The kernels of the forward pass: each a WGSL shader (`shaders/forward/NAME.wgsl`) and the uniform block it is told.
//!
//! To add one: write the shader, declare its uniform block, add a row to [`KERNELS`], give it cases in
//! `gpu/probe/cases.rs`; the shader tests and the start-up check iterate that slice.

use crate::shader::{Kernel, kernel, params};

params!(
    /// Tokens to normalise.
    NormParams { features: u32, epsilon: f32 }
);
params!(
    /// Heads of queries, or of keys.
    HeadsParams {
        head_dim: u32,
        pairs: u32,
        interleaved: u32,
        first: u32,
        token_stride: u32,
        head_stride: u32,
        centred: u32,
        weight_stride: u32,
        epsilon: f32,
        position: u32,
    }
);
params!(
    /// A part of every head, and where it goes.
    CopyHeadsParams {
        features: u32,
        from_first: u32,
        from_token_stride: u32,
        from_head_stride: u32,
        to_first: u32,
        to_token_stride: u32,
        to_head_stride: u32,
    }
);
params!(
    /// Where queries, keys and values lie.
    AttentionParams {
        rows: u32,
        row: u32,
        position: u32,
        key_row: u32,
        capacity: u32,
        head_dim: u32,
        value_dim: u32,
        query_heads: u32,
        group_size: u32,
        token_stride: u32,
        key_token_stride: u32,
        query_stride: u32,
        key_stride: u32,
        value_stride: u32,
        first_query: u32,
        first_key: u32,
        first_value: u32,
        window: u32,
        chunk: u32,
        temperature: f32,
        temperature_period: u32,
        scale: f32,
        soft_cap: f32,
        has_sinks: u32,
        alibi: u32,
        alibi_factor: f32,
        first_group_x: u32,
        first_group_y: u32,
    }
);
params!(
    /// Values to put through the nonlinearity.
    ActivationParams {
        count: u32,
        activation: u32,
        row: u32,
        above: f32,
        slope: f32,
        below: f32,
        edge: f32,
    }
);
params!(
    /// Values to change one by one.
    ElementwiseParams { count: u32, row: u32, scale: f32, bound: f32 }
);
params!(
    /// Channels to convolve.
    ConvolutionParams { channels: u32, width: u32, biased: u32, row: u32, rows: u32, before: u32 }
);
params!(
    /// Heads of a state space.
    StateSpaceParams {
        first: u32,
        end: u32,
        resumes: u32,
        goes_on: u32,
        heads: u32,
        features: u32,
        groups: u32,
        states: u32,
        decays: u32,
        least: f32,
        most: f32,
    }
);
params!(
    /// Heads of a delta net.
    DeltaNetParams {
        first: u32,
        end: u32,
        resumes: u32,
        goes_on: u32,
        key_heads: u32,
        value_heads: u32,
        key_features: u32,
        value_features: u32,
        least: f32,
        most: f32,
    }
);
params!(
    /// Activations to sum, and where.
    SiteNormsParams { row: u32, tokens: u32, features: u32, first: u32, squared: u32 }
);
params!(
    /// Rows to take out of a hidden state, or to add to one.
    RowsParams { features: u32 }
);
params!(
    /// Rows of the head.
    LogSumExpParams { rows: u32, first: u32 }
);

/// Every kernel, in the order in which a block comes to them; the last one is of the head.
pub static KERNELS: &[Kernel] = &[
    kernel!(
        "forward" / "norm",
        NormParams,
        "RMSNorm or LayerNorm of each token",
        ["rms_norm": 256, [0, 1, 2, 4]; "layer_norm": 256, [0, 1, 2, 3, 4]],
        with "reduce"
    ),
    kernel!(
        "forward" / "site_norms",
        SiteNormsParams,
        "column norms and sums of activations",
        ["site_norms": 256, [0, 1, 2]]
    ),
    kernel!(
        "forward" / "heads",
        HeadsParams,
        "norm and rotary embedding of each head",
        ["normalise_heads": 64, [0, 2, 3, 4]; "apply_rope": 64, [0, 1, 4]],
        with "reduce"
    ),
    kernel!(
        "forward" / "copy_heads",
        CopyHeadsParams,
        "a part of every head from one place to another",
        ["copy_heads": 64, [0, 1, 2]]
    ),
    kernel!(
        "forward" / "attention",
        AttentionParams,
        "causal grouped-query attention",
        ["attention": 256, [0, 1, 2, 3, 4]]
    ),
    kernel!(
        "forward" / "convolution",
        ConvolutionParams,
        "causal convolution of each channel",
        ["convolution": 64, [0, 1, 2, 3, 4]; "tail": 64, [0, 1, 3, 4]]
    ),
    kernel!(
        "forward" / "state_space",
        StateSpaceParams,
        "the recurrence of Mamba 1 and 2",
        ["state_space": 64, [0, 1, 2, 3, 4]],
        with "softplus", "four"
    ),
    kernel!(
        "forward" / "delta_net",
        DeltaNetParams,
        "the recurrence of gated delta nets",
        ["delta_net": 64, [0, 1, 2, 3, 4]],
        with "softplus", "four"
    ),
    kernel!(
        "forward" / "activation",
        ActivationParams,
        "SiLU, GELU and others, with or without a gate",
        ["gated": 256, [0, 1, 2]; "plain": 256, [0, 1]]
    ),
    kernel!(
        "forward" / "rows",
        RowsParams,
        "rows of some tokens out of a hidden state, and back into one",
        ["gather": 256, [0, 1, 2, 3]; "scatter": 256, [0, 1, 2, 3]]
    ),
    kernel!(
        "forward" / "elementwise",
        ElementwiseParams,
        "scaled sums, products with a number, clipping, soft caps",
        ["add_scaled": 256, [0, 1, 2]; "scaled": 256, [0, 1, 2]; "clip_all": 256, [0, 2]; "soft_cap": 256, [0, 2]]
    ),
    kernel!(
        "forward" / "log_sum_exp",
        LogSumExpParams,
        "what a loss needs of some logits",
        ["log_sum_exp": 256, [0, 1, 2, 3]],
        with "reduce"
    ),
];
