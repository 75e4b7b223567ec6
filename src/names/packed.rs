//! The names of the pieces that quantised weights are stored in.

/// What the last part of a name is when it is a packed weight, or what unpacks one: gptq, awq, fp8, bitsandbytes,
/// compressed-tensors, mxfp4.
const WEIGHTS: &[&str] = &[
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "SCB",
    "absmax",
    "quant_map",
    "nested_absmax",
    "nested_quant_map",
    "compressed",
    "bitmask",
    "row_offsets",
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "weight_g_idx",
    "scale_inv",
];

/// Scales of activations and caches: beside a weight that may be stored as it is.
const SCALES: &[&str] = &[
    "input_scale",
    "input_zero_point",
    "output_scale",
    "k_scale",
    "v_scale",
];

/// Whether a tensor of this name is a piece of a quantised weight.
pub(crate) fn is_packed_weight(name: &str) -> bool {
    let last = last(name);
    WEIGHTS.contains(&last)
        || last.starts_with("weight_scale")
        || last.starts_with("weight_global_scale")
        || last.ends_with("_scale_inv")
        || last.ends_with("_proj_blocks")
        || last.ends_with("_proj_scales")
        || name.contains(".quant_state.")
}

/// Whether a tensor of this name belongs to a quantisation, of weights or of activations.
pub(crate) fn is_of_quantisation(name: &str) -> bool {
    is_packed_weight(name) || SCALES.contains(&last(name))
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_told_from_weights() {
        let piece = |tail: &str| is_packed_weight(&format!("model.layers.0.{tail}"));
        for tail in [
            "mlp.up_proj.qweight",
            "mlp.up_proj.weight_scale",
            "mlp.up_proj.weight_scale_inv",
            "mlp.up_proj.weight.quant_state.bitsandbytes__nf4",
            "mlp.experts.gate_up_proj_blocks",
        ] {
            assert!(piece(tail), "{tail}");
        }
        for tail in ["mlp.up_proj.weight", "self_attn.k_scale", "mlp.gate.weight"] {
            assert!(!piece(tail), "{tail}");
        }
        assert!(is_of_quantisation("model.layers.0.self_attn.k_scale"));
    }
}
