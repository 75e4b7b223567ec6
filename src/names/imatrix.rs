//! From a weight's name to the names that llama.cpp uses for the same input.
//!
//! Norms belong to a layer's *input*, so the question goes from the weight's name to its input (`rules.rs`), and from there
//! to every name that llama.cpp gives the readers of that input. Nothing is guessed when `q_proj` is answered by
//! `attn_qkv`: the query, key and value of a block share one input, and so do gate and up.
//!
//! llama.cpp permutes the *rows* of the query and key weights for its rotary embedding, and splits and reorders fused
//! query-key-value rows. Rows are output features; the columns, and with them the norms, stay where they are.

use super::grammar::block;
use super::rules::{Input, known};

/// What llama.cpp calls the tensors on an input, without `blk.N.` and `.weight`, the likeliest first: any of them holds
/// its norms.
const fn names(input: Input) -> &'static [&'static str] {
    match input {
        Input::Attention => &[
            "attn_q",
            "attn_qkv",
            "attn_k",
            "attn_v",
            "attn_q_a",
            "attn_kv_a_mqa",
        ],
        Input::QueryLatent => &["attn_q_b"],
        Input::KeyValueLatent => &["attn_kv_b"],
        Input::AttentionOutput => &["attn_output"],
        Input::Mlp => &["ffn_up", "ffn_gate"],
        Input::MlpDown => &["ffn_down"],
        Input::Experts => &["ffn_up_exps", "ffn_gate_exps", "ffn_gate_up_exps"],
        Input::ExpertsDown => &["ffn_down_exps"],
        Input::SharedExperts => &["ffn_up_shexp", "ffn_gate_shexp"],
        Input::SharedExpertsDown => &["ffn_down_shexp"],
        Input::Mixer => &["ssm_in", "ssm_ba", "shortconv.in_proj"],
        Input::MixerOutput => &["ssm_out", "shortconv.out_proj"],
        Input::MixerStates => &["ssm_x"],
        Input::MixerTimeStep => &["ssm_dt"],
        Input::Unnamed => &[],
    }
}

/// The heads, which have one name each in llama.cpp: `output.weight`.
const HEADS: &[&str] = &[
    "lm_head.weight",
    "language_model.lm_head.weight",
    "embed_out.weight",
];

/// The names that an importance matrix may hold this weight's norms under, and the expert to take under each.
///
/// `expert` is the caller's choice in a weight that holds several; a number in the weight's own name wins over it.
pub(crate) fn candidates(weight: &str, expert: Option<usize>) -> Vec<(String, Option<usize>)> {
    if HEADS.contains(&weight) {
        return vec![("output.weight".into(), expert)];
    }
    // A linear layer's weight may be a parameter of another name, without `.weight`.
    let known = known(weight).or_else(|| known(&format!("{weight}.weight")));
    let (Some(block), Some(known)) = (block(weight), known) else {
        return Vec::new();
    };
    let (number, expert) = (block.number, known.expert.or(expert));
    let names = names(known.rule.input);
    let whole = names
        .iter()
        .map(|name| (format!("blk.{number}.{name}.weight"), expert));
    // Before they were stacked, llama.cpp kept experts as `ffn_up.E`.
    let split = names.iter().filter_map(|name| {
        let stem = name.strip_suffix("_exps")?;
        Some((format!("blk.{number}.{stem}.{}.weight", expert?), None))
    });
    whole.chain(split).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(weight: &str) -> Option<(String, Option<usize>)> {
        candidates(weight, None).into_iter().next()
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
