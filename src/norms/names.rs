//! The names llama.cpp gives the weights that Hugging Face names otherwise.
//!
//! Norms belong to a layer's *input*, so the table is one row per input: on one side the weights that read it, on the
//! other the llama.cpp tensors that read it too, any of which holds the same norms. Nothing is guessed when `q_proj` is
//! answered by `attn_qkv`: the query, key and value of a block share one input, and so do gate and up.
//!
//! llama.cpp permutes the *rows* of the query and key weights for its rotary embedding, and splits and reorders fused
//! query-key-value rows. Rows are output features; the columns, and with them the norms, stay where they are.
//!
//! A checkpoint does not always say its architecture, so the question goes from the weight's name to every name the norms
//! could have. Adding an architecture is adding its spelling to a row.

use crate::targets::names::{block, match_tail};

/// Weights that read one input of a block.
struct Input {
    /// The block-relative Hugging Face names, without `.weight`; `*` is a number, the expert's.
    weights: &'static [&'static str],
    /// What llama.cpp calls the tensors on that input, without `blk.N.` and `.weight`, the likeliest first.
    llama_cpp: &'static [&'static str],
}

const INPUTS: &[Input] = &[
    Input {
        weights: &[
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.qkv_proj",
            "self_attn.q_a_proj",
            "self_attn.kv_a_proj_with_mqa",
            "self_attn.W_pack",
            "self_attention.query_key_value",
            "attention.query_key_value",
            "attention.wqkv",
            "attention.wq",
            "attention.wk",
            "attention.wv",
            "attn.c_attn",
            "attn.Wqkv",
            "attn.q_proj",
            "attn.k_proj",
            "attn.v_proj",
        ],
        llama_cpp: &[
            "attn_q",
            "attn_qkv",
            "attn_k",
            "attn_v",
            "attn_q_a",
            "attn_kv_a_mqa",
        ],
    },
    Input {
        weights: &["self_attn.q_b_proj"],
        llama_cpp: &["attn_q_b"],
    },
    Input {
        weights: &["self_attn.kv_b_proj"],
        llama_cpp: &["attn_kv_b"],
    },
    Input {
        weights: &[
            "self_attn.o_proj",
            "self_attn.dense",
            "self_attn.out_proj",
            "self_attention.dense",
            "attention.dense",
            "attention.wo",
            "attn.c_proj",
            "attn.out_proj",
        ],
        llama_cpp: &["attn_output"],
    },
    Input {
        weights: &[
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.gate_up_proj",
            "mlp.dense_h_to_4h",
            "mlp.c_fc",
            "mlp.fc1",
            "mlp.fc_in",
            "fc1",
            "ffn.up_proj",
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.w1",
            "feed_forward.w3",
        ],
        llama_cpp: &["ffn_up", "ffn_gate"],
    },
    Input {
        weights: &[
            "mlp.down_proj",
            "mlp.dense_4h_to_h",
            "mlp.c_proj",
            "mlp.fc2",
            "mlp.fc_out",
            "fc2",
            "ffn.down_proj",
            "feed_forward.down_proj",
            "feed_forward.w2",
        ],
        llama_cpp: &["ffn_down"],
    },
    Input {
        weights: &[
            "mlp.experts.*.gate_proj",
            "mlp.experts.*.up_proj",
            "mlp.experts.gate_up_proj",
            "experts.gate_up_proj",
            "feed_forward.experts.*.w1",
            "feed_forward.experts.*.w3",
            "feed_forward.experts.gate_up_proj",
            "block_sparse_moe.experts.*.w1",
            "block_sparse_moe.experts.*.w3",
            "block_sparse_moe.input_linear",
        ],
        llama_cpp: &["ffn_up_exps", "ffn_gate_exps", "ffn_gate_up_exps"],
    },
    Input {
        weights: &[
            "mlp.experts.*.down_proj",
            "mlp.experts.down_proj",
            "experts.down_proj",
            "feed_forward.experts.*.w2",
            "feed_forward.experts.down_proj",
            "block_sparse_moe.experts.*.w2",
            "block_sparse_moe.output_linear",
        ],
        llama_cpp: &["ffn_down_exps"],
    },
    Input {
        weights: &[
            "mlp.shared_expert.gate_proj",
            "mlp.shared_expert.up_proj",
            "mlp.shared_experts.gate_proj",
            "mlp.shared_experts.up_proj",
            "feed_forward.shared_expert.gate_proj",
            "feed_forward.shared_expert.up_proj",
            "shared_mlp.input_linear",
        ],
        llama_cpp: &["ffn_up_shexp", "ffn_gate_shexp"],
    },
    Input {
        weights: &[
            "mlp.shared_expert.down_proj",
            "mlp.shared_experts.down_proj",
            "feed_forward.shared_expert.down_proj",
            "shared_mlp.output_linear",
        ],
        llama_cpp: &["ffn_down_shexp"],
    },
];

/// The heads, which have one name each in llama.cpp: `output.weight`.
const HEADS: &[&str] = &[
    "lm_head.weight",
    "language_model.lm_head.weight",
    "embed_out.weight",
];

/// The names, and the expert to take under each, that an importance matrix may hold this weight's norms under.
///
/// `expert` is the caller's choice in a weight that holds several; a number in the weight's own name wins over it.
pub(super) fn candidates(weight: &str, expert: Option<usize>) -> Vec<(String, Option<usize>)> {
    if HEADS.contains(&weight) {
        return vec![("output.weight".into(), expert)];
    }
    let Some(block) = block(weight) else {
        return Vec::new();
    };
    let (number, tail) = (
        block.number,
        block.tail.strip_suffix(".weight").unwrap_or(block.tail),
    );
    for input in INPUTS {
        let Some(found) = input
            .weights
            .iter()
            .find_map(|pattern| match_tail(pattern, tail))
        else {
            continue;
        };
        let expert = found.expert.or(expert);
        let whole = input
            .llama_cpp
            .iter()
            .map(|name| (format!("blk.{number}.{name}.weight"), expert));
        // Before they were stacked, llama.cpp kept experts as `ffn_up.E`.
        let split = input.llama_cpp.iter().filter_map(|name| {
            let stem = name.strip_suffix("_exps")?;
            Some((format!("blk.{number}.{stem}.{}.weight", expert?), None))
        });
        return whole.chain(split).collect();
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::names::RULES;

    fn first(weight: &str) -> Option<(String, Option<usize>)> {
        candidates(weight, None).into_iter().next()
    }

    #[test]
    fn every_name_of_the_table_is_of_a_weight_that_is_pruned() {
        for weight in INPUTS.iter().flat_map(|i| i.weights) {
            assert!(
                RULES.iter().any(|rule| rule.tails.contains(weight)),
                "{weight} is in no rule of `targets`"
            );
        }
    }

    #[test]
    fn no_weight_reads_two_inputs() {
        let mut weights: Vec<_> = INPUTS.iter().flat_map(|i| i.weights).collect();
        let count = weights.len();
        weights.sort();
        weights.dedup();
        assert_eq!(weights.len(), count);
    }

    #[test]
    fn llama_and_gpt_neox_names_are_found() {
        for (weight, name) in [
            (
                "model.layers.3.self_attn.q_proj.weight",
                "blk.3.attn_q.weight",
            ),
            (
                "model.language_model.layers.12.self_attn.o_proj.weight",
                "blk.12.attn_output.weight",
            ),
            (
                "model.layers.0.mlp.gate_proj.weight",
                "blk.0.ffn_gate.weight",
            ),
            (
                "model.layers.0.mlp.down_proj.weight",
                "blk.0.ffn_down.weight",
            ),
            (
                "gpt_neox.layers.5.attention.query_key_value.weight",
                "blk.5.attn_qkv.weight",
            ),
            (
                "gpt_neox.layers.5.attention.dense.weight",
                "blk.5.attn_output.weight",
            ),
            (
                "gpt_neox.layers.5.mlp.dense_h_to_4h.weight",
                "blk.5.ffn_up.weight",
            ),
            (
                "gpt_neox.layers.5.mlp.dense_4h_to_h.weight",
                "blk.5.ffn_down.weight",
            ),
            ("h.1.attn.c_attn.weight", "blk.1.attn_qkv.weight"),
            (
                "model.layers.2.mlp.shared_experts.up_proj.weight",
                "blk.2.ffn_up_shexp.weight",
            ),
            ("lm_head.weight", "output.weight"),
        ] {
            let names = candidates(weight, None);
            assert!(
                names.iter().any(|(n, e)| n == name && e.is_none()),
                "{weight}: {names:?}"
            );
        }
    }

    #[test]
    fn an_experts_number_comes_from_the_name_or_from_the_caller() {
        let down = ("blk.4.ffn_down_exps.weight".to_owned(), Some(17));
        assert_eq!(
            first("model.layers.4.block_sparse_moe.experts.17.w2.weight"),
            Some(down.clone())
        );
        assert_eq!(
            first("model.layers.4.mlp.experts.17.down_proj.weight"),
            Some(down.clone())
        );
        assert_eq!(
            candidates("model.layers.4.mlp.experts.down_proj", Some(17))[0],
            down
        );
        let split = ("blk.4.ffn_down.17.weight".to_owned(), None);
        assert!(
            candidates("model.layers.4.block_sparse_moe.experts.17.w2.weight", None)
                .contains(&split)
        );
    }

    #[test]
    fn other_towers_and_unknown_names_have_no_norms_here() {
        for weight in [
            "vision_tower.vision_model.encoder.layers.3.self_attn.q_proj.weight",
            "model.embed_tokens.weight",
            "model.layers.3.self_attn.q_norm.weight",
            "model.layers.3.mlp.gate.weight",
        ] {
            assert_eq!(first(weight), None, "{weight}");
        }
    }
}
