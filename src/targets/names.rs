//! What a tensor's name says: one table of rules, and the small grammar that it needs.
//!
//! A checkpoint says nothing about what its tensors *are*; their names do. Names of decoder weights read
//! `PREFIX.CONTAINER.N.TAIL`, as in `model` `layers` `3` `self_attn.q_proj.weight`. The prefix varies with whatever model
//! class was saved, so only the tail is compared, with [`RULES`]. **To support an architecture, add its tails there**;
//! every rule is tested by the loop in this module and by lists of real names in the parent.

use super::Reason;

/// Names that hold the numbered blocks.
const CONTAINERS: &[&str] = &["layers", "h", "blocks"];

/// How a rule's weights lie, and whether that needs to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// `nn.Linear`: `[out, in]`, always.
    Linear,
    /// A module that is `nn.Linear` in some architectures and GPT-2's `Conv1D`, `[in, out]`, in others.
    MaybeConv1d(Hidden),
    /// All experts of a block in one tensor, `[experts, out, in]` or `[experts, in, out]`.
    FusedExperts(Hidden),
}

/// Which side of a layer has `hidden_size` features: the handle by which a shape gives its axes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// It reads the residual stream.
    In,
    /// It writes to the residual stream.
    Out,
}

/// Names of prunable weights, and how those lie in the file.
pub(crate) struct Rule {
    /// Where they are seen; for the reader.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "documents the table, and names the row that a test fails on"
        )
    )]
    pub(crate) seen_in: &'static str,
    pub(crate) stored: Stored,
    /// The name within its block, without `.weight`; `*` is a number.
    pub(crate) tails: &'static [&'static str],
}

/// The default set: every weight a name of which is known to be a linear layer of a decoder block.
pub(crate) static RULES: &[Rule] = &[
    Rule {
        seen_in: "attention of llama, mistral, qwen 2 and 3, gemma, phi 3, olmo, granite, cohere, mixtral, opt, phi 1 and 2",
        stored: Stored::Linear,
        tails: &[
            "self_attn.q_proj",
            "self_attn.k_proj",
            "self_attn.v_proj",
            "self_attn.qkv_proj",
            "self_attn.W_pack",
            "self_attn.o_proj",
            "self_attn.out_proj",
            "self_attn.dense",
        ],
    },
    Rule {
        seen_in: "latent attention of deepseek 2 and 3, kimi, minicpm 3",
        stored: Stored::Linear,
        tails: &[
            "self_attn.q_a_proj",
            "self_attn.q_b_proj",
            "self_attn.kv_a_proj_with_mqa",
            "self_attn.kv_b_proj",
        ],
    },
    Rule {
        seen_in: "feed-forward of llama, mistral, qwen 2 and 3, gemma, olmo; phi 3 and glm 4 (gate and up in one)",
        stored: Stored::Linear,
        tails: &[
            "mlp.gate_proj",
            "mlp.up_proj",
            "mlp.down_proj",
            "mlp.gate_up_proj",
        ],
    },
    Rule {
        seen_in: "feed-forward of phi 1 and 2, opt",
        stored: Stored::Linear,
        tails: &["mlp.fc1", "mlp.fc2", "fc1", "fc2"],
    },
    Rule {
        seen_in: "gpt_neox (pythia), falcon, bloom, chatglm",
        stored: Stored::Linear,
        tails: &[
            "attention.query_key_value",
            "attention.dense",
            "self_attention.query_key_value",
            "self_attention.dense",
            "mlp.dense_h_to_4h",
            "mlp.dense_4h_to_h",
        ],
    },
    Rule {
        seen_in: "gpt-j, codegen, gpt_neo",
        stored: Stored::Linear,
        tails: &[
            "attn.q_proj",
            "attn.k_proj",
            "attn.v_proj",
            "attn.qkv_proj",
            "attn.out_proj",
            "attn.attention.q_proj",
            "attn.attention.k_proj",
            "attn.attention.v_proj",
            "attn.attention.out_proj",
            "mlp.fc_in",
            "mlp.fc_out",
        ],
    },
    Rule {
        seen_in: "mpt (its out_proj is above)",
        stored: Stored::Linear,
        tails: &["attn.Wqkv", "ffn.up_proj", "ffn.down_proj"],
    },
    Rule {
        seen_in: "llama as first published, mistral's own files, internlm 2, lfm 2",
        stored: Stored::Linear,
        tails: &[
            "attention.wq",
            "attention.wk",
            "attention.wv",
            "attention.wo",
            "attention.wqkv",
            "feed_forward.w1",
            "feed_forward.w2",
            "feed_forward.w3",
        ],
    },
    Rule {
        seen_in: "dense layers of llama 4, jamba",
        stored: Stored::Linear,
        tails: &[
            "feed_forward.gate_proj",
            "feed_forward.up_proj",
            "feed_forward.down_proj",
        ],
    },
    Rule {
        seen_in: "experts, one tensor each: mixtral, phi 3.5 moe, minimax, lfm 2 moe",
        stored: Stored::Linear,
        tails: &[
            "block_sparse_moe.experts.*.w1",
            "block_sparse_moe.experts.*.w2",
            "block_sparse_moe.experts.*.w3",
            "feed_forward.experts.*.w1",
            "feed_forward.experts.*.w2",
            "feed_forward.experts.*.w3",
        ],
    },
    Rule {
        seen_in: "experts, one tensor each: qwen 2 and 3 moe, deepseek, olmoe, glm 4 moe",
        stored: Stored::Linear,
        tails: &[
            "mlp.experts.*.gate_proj",
            "mlp.experts.*.up_proj",
            "mlp.experts.*.down_proj",
        ],
    },
    Rule {
        seen_in: "shared experts: qwen 2 moe, deepseek, llama 4, granite moe",
        stored: Stored::Linear,
        tails: &[
            "mlp.shared_expert.gate_proj",
            "mlp.shared_expert.up_proj",
            "mlp.shared_expert.down_proj",
            "mlp.shared_experts.gate_proj",
            "mlp.shared_experts.up_proj",
            "mlp.shared_experts.down_proj",
            "feed_forward.shared_expert.gate_proj",
            "feed_forward.shared_expert.up_proj",
            "feed_forward.shared_expert.down_proj",
            "shared_mlp.input_linear",
            "shared_mlp.output_linear",
        ],
    },
    Rule {
        seen_in: "experts of a block in one tensor, gate and up: llama 4, gpt-oss, mixtral and qwen 3 moe since transformers 5",
        stored: Stored::FusedExperts(Hidden::In),
        tails: &[
            "mlp.experts.gate_up_proj",
            "feed_forward.experts.gate_up_proj",
            "experts.gate_up_proj",
            "block_sparse_moe.input_linear",
        ],
    },
    Rule {
        seen_in: "experts of a block in one tensor, down: the same",
        stored: Stored::FusedExperts(Hidden::Out),
        tails: &[
            "mlp.experts.down_proj",
            "feed_forward.experts.down_proj",
            "experts.down_proj",
            "block_sparse_moe.output_linear",
        ],
    },
    Rule {
        seen_in: "gpt2, openai-gpt (Conv1D); gpt_bigcode, gpt_neo, starcoder 2, qwen 1 (Linear)",
        stored: Stored::MaybeConv1d(Hidden::In),
        tails: &["attn.c_attn", "mlp.c_fc"],
    },
    Rule {
        seen_in: "the same",
        stored: Stored::MaybeConv1d(Hidden::Out),
        tails: &["attn.c_proj", "mlp.c_proj"],
    },
];

/// A name within the numbered blocks of the decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// The number, as written.
    pub(crate) number: &'a str,
    /// What follows it.
    pub(crate) tail: &'a str,
}

/// The block a tensor belongs to; `None` outside of blocks, in encoders and in towers of other modalities.
pub(crate) fn block(name: &str) -> Option<Block<'_>> {
    if of_another_modality(name) {
        return None;
    }
    let mut rest = name;
    let mut before = "";
    // An encoder that stands alone under `transformer` is chatglm's name for its decoder.
    let mut encoder = false;
    while let Some((part, after)) = rest.split_once('.') {
        if CONTAINERS.contains(&part)
            && let Some((number, tail)) = after.split_once('.')
            && is_number(number)
        {
            return (!encoder).then_some(Block { number, tail });
        }
        encoder |= part == "encoder" && before != "transformer";
        (before, rest) = (part, after);
    }
    None
}

/// What a pattern of a rule found in a tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Match {
    /// The number in place of `*`: the expert.
    pub(crate) expert: Option<usize>,
}

/// Compares a tail, without `.weight`, with a pattern of a rule, part by part.
pub(crate) fn match_tail(pattern: &str, tail: &str) -> Option<Match> {
    let mut found = Match { expert: None };
    let mut parts = tail.split('.');
    for wanted in pattern.split('.') {
        let part = parts.next()?;
        if wanted == "*" {
            found.expert = Some(part.parse().ok().filter(|_| is_number(part))?);
        } else if wanted != part {
            return None;
        }
    }
    parts.next().is_none().then_some(found)
}

/// The rule for a tensor, by its name alone.
pub(crate) fn rule(name: &str) -> Option<&'static Rule> {
    let tail = block(name)?.tail;
    let bare = tail.strip_suffix(".weight");
    RULES.iter().find(|rule| {
        // Fused experts are parameters of their module, mostly without `.weight`.
        let tail = match rule.stored {
            Stored::FusedExperts(_) => bare.unwrap_or(tail),
            _ => match bare {
                Some(bare) => bare,
                None => return false,
            },
        };
        rule.tails
            .iter()
            .any(|pattern| match_tail(pattern, tail).is_some())
    })
}

/// A short label for tables: the last part of the module's name, and more where that alone would mix unlike things.
pub(crate) fn kind(name: &str) -> String {
    let bare = name.strip_suffix(".weight").unwrap_or(name);
    let last = bare.rsplit('.').next().unwrap_or(bare);
    let Some(block) = block(bare) else {
        return last.to_owned();
    };
    let has = |part: &str| block.tail.split('.').any(|p| p == part);
    if has("experts") {
        format!("experts.{last}")
    } else if has("shared_expert") || has("shared_experts") || has("shared_mlp") {
        format!("shared_expert.{last}")
    } else if last == "c_proj" {
        // The same name in the attention and in the feed-forward.
        block
            .tail
            .strip_suffix(".weight")
            .unwrap_or(block.tail)
            .to_owned()
    } else {
        last.to_owned()
    }
}

/// What a name says that no wish can change: this is no weight of a linear layer.
pub(super) fn never(name: &str) -> Option<Reason> {
    let last = name.rsplit('.').next().unwrap_or(name);
    let module = name
        .strip_suffix(".weight")
        .unwrap_or(name)
        .rsplit('.')
        .next()
        .unwrap_or(name);
    if is_quantised(name, last) {
        Some(Reason::Quantized)
    } else if last == "bias" || last.ends_with("_bias") {
        Some(Reason::Bias)
    } else if module.contains("norm") || module == "ln" || module.starts_with("ln_") {
        Some(Reason::Norm)
    } else {
        None
    }
}

/// Parts of a quantised or packed weight: gptq, awq, fp8, bitsandbytes, compressed-tensors, mxfp4.
fn is_quantised(name: &str, last: &str) -> bool {
    const LAST: &[&str] = &[
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
        "input_scale",
        "input_zero_point",
        "output_scale",
        "k_scale",
        "v_scale",
        "scale_inv",
    ];
    LAST.contains(&last)
        || last.starts_with("weight_scale")
        || last.starts_with("weight_global_scale")
        || last.ends_with("_scale_inv")
        || last.ends_with("_proj_blocks")
        || last.ends_with("_proj_scales")
        || name.contains(".quant_state.")
}

/// The reason to leave a weight alone unless it is asked for by name.
pub(super) fn unless_asked(name: &str) -> Option<Reason> {
    if of_another_modality(name) {
        return Some(Reason::OtherModality);
    }
    let mut parts = name.split('.');
    let Some(block) = block(name) else {
        return Some(
            if parts
                .clone()
                .any(|p| p == "wte" || p == "wpe" || (p.contains("embed") && p != "embed_out"))
            {
                Reason::Embedding
            } else if parts.any(|p| HEADS.contains(&p)) {
                Reason::Head
            } else {
                Reason::NotInABlock
            },
        );
    };
    let tail = block.tail.strip_suffix(".weight").unwrap_or(block.tail);
    let last = tail.rsplit('.').next().unwrap_or(tail);
    (last == "gate" || last == "shared_expert_gate" || tail.split('.').any(|p| p == "router"))
        .then_some(Reason::Router)
}

/// Names of output layers.
const HEADS: &[&str] = &[
    "lm_head",
    "embed_out",
    "output_layer",
    "output",
    "score",
    "classifier",
    "head",
];

/// Whether a part of the name is of a vision, audio or speech tower, or of what connects it to the language model.
fn of_another_modality(name: &str) -> bool {
    const STARTS: &[&str] = &[
        "vision",
        "visual",
        "vit",
        "image",
        "img_",
        "patch_",
        "sam_",
        "audio",
        "speech",
        "talker",
        "code2wav",
        "token2wav",
        "multi_modal",
        "multimodal",
        "mm_",
        "embed_vision",
        "embed_audio",
        "connector",
        "aligner",
        "resampler",
    ];
    name.split('.')
        .any(|part| STARTS.iter().any(|start| part.starts_with(start)))
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_reached_by_its_own_names_and_hidden_by_none_before_it() {
        for row in RULES {
            assert!(!row.seen_in.is_empty() && !row.tails.is_empty());
            for tail in row.tails {
                let name = format!("model.layers.3.{}.weight", tail.replace('*', "11"));
                let found =
                    rule(&name).unwrap_or_else(|| panic!("{}: {name} has no rule", row.seen_in));
                assert!(
                    std::ptr::eq(found, row),
                    "{name} is of `{}`, not of `{}`",
                    found.seen_in,
                    row.seen_in
                );
                assert_eq!(never(&name), None, "{name}");
                assert_eq!(unless_asked(&name), None, "{name}");
                assert!(!kind(&name).is_empty());
            }
        }
    }

    #[test]
    fn no_tail_is_in_two_rules() {
        let mut tails: Vec<_> = RULES.iter().flat_map(|r| r.tails).collect();
        let count = tails.len();
        tails.sort();
        tails.dedup();
        assert_eq!(tails.len(), count);
    }

    #[test]
    fn a_block_is_found_behind_any_prefix_but_not_in_a_tower_or_an_encoder() {
        let found = |name| block(name).map(|b| (b.number, b.tail));
        for prefix in [
            "",
            "model.",
            "transformer.",
            "gpt_neox.",
            "model.decoder.",
            "language_model.model.",
            "transformer.encoder.",
        ] {
            let name = format!("{prefix}layers.12.fc1.weight");
            assert_eq!(
                block(&name).map(|b| (b.number, b.tail)),
                Some(("12", "fc1.weight")),
                "{name}"
            );
        }
        assert_eq!(found("h.0.mlp.c_fc.weight"), Some(("0", "mlp.c_fc.weight")));
        for name in [
            "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
            "model.visual.blocks.0.attn.qkv.weight",
            "model.encoder.layers.0.fc1.weight",
            "model.layers.x.fc1.weight",
            "model.layers",
            "layers.0",
            "",
        ] {
            assert_eq!(found(name), None, "{name}");
        }
    }

    #[test]
    fn a_star_is_one_number_and_nothing_else() {
        let expert = |tail| match_tail("experts.*.w1", tail).map(|m| m.expert);
        assert_eq!(expert("experts.7.w1"), Some(Some(7)));
        for tail in [
            "experts.w1",
            "experts.x.w1",
            "experts.+7.w1",
            "experts.7.7.w1",
            "experts.7.w1.more",
            "experts.7",
            "",
        ] {
            assert_eq!(expert(tail), None, "{tail}");
        }
        assert_eq!(expert("experts.99999999999999999999999.w1"), None);
    }

    #[test]
    fn labels_keep_unlike_things_apart() {
        for (name, label) in [
            ("model.layers.3.self_attn.q_proj.weight", "q_proj"),
            (
                "model.layers.3.block_sparse_moe.experts.5.w1.weight",
                "experts.w1",
            ),
            (
                "model.layers.3.mlp.experts.gate_up_proj",
                "experts.gate_up_proj",
            ),
            (
                "model.layers.3.mlp.shared_experts.down_proj.weight",
                "shared_expert.down_proj",
            ),
            ("h.3.attn.c_proj.weight", "attn.c_proj"),
            ("h.3.mlp.c_proj.weight", "mlp.c_proj"),
            ("lm_head.weight", "lm_head"),
        ] {
            assert_eq!(kind(name), label);
        }
    }
}
