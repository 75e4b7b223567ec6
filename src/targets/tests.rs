//! Decisions over names and shapes of real checkpoints, block 0 (or the first of its kind) of each.

use serde_json::json;

use super::*;
use crate::checkpoint::Config;
use crate::dtype::StoredDtype;
use crate::untrusted::tests::{HOSTILE, is_fit_for_a_terminal};

/// What must become of a tensor.
#[derive(Debug, PartialEq)]
enum Wish {
    /// `[out, in]`.
    OutIn,
    /// `[in, out]`.
    InOut,
    Skip(Reason),
}
use Reason::{
    AxisUnknown, Bias, Embedding, Head, Norm, NotAMatrix, NotInABlock, OtherModality, Router,
    UnknownName,
};
use Wish::{InOut, OutIn};

type Row = (&'static str, &'static [usize], Wish);

struct Checkpoint {
    model_type: &'static str,
    hidden_size: usize,
    tensors: Vec<Row>,
}

fn skip(reason: Reason) -> Wish {
    Wish::Skip(reason)
}

fn checkpoints() -> Vec<Checkpoint> {
    vec![
        Checkpoint {
            model_type: "llama",
            hidden_size: 4096,
            tensors: vec![
                (
                    "model.embed_tokens.weight",
                    &[128256, 4096],
                    skip(Embedding),
                ),
                ("model.layers.0.input_layernorm.weight", &[4096], skip(Norm)),
                (
                    "model.layers.0.self_attn.q_proj.weight",
                    &[4096, 4096],
                    OutIn,
                ),
                (
                    "model.layers.0.self_attn.k_proj.weight",
                    &[1024, 4096],
                    OutIn,
                ),
                (
                    "model.layers.0.self_attn.v_proj.weight",
                    &[1024, 4096],
                    OutIn,
                ),
                (
                    "model.layers.0.self_attn.o_proj.weight",
                    &[4096, 4096],
                    OutIn,
                ),
                (
                    "model.layers.0.self_attn.rotary_emb.inv_freq",
                    &[64],
                    skip(NotAMatrix),
                ),
                ("model.layers.0.mlp.gate_proj.weight", &[14336, 4096], OutIn),
                ("model.layers.0.mlp.up_proj.weight", &[14336, 4096], OutIn),
                ("model.layers.0.mlp.down_proj.weight", &[4096, 14336], OutIn),
                (
                    "model.layers.0.post_attention_layernorm.weight",
                    &[4096],
                    skip(Norm),
                ),
                ("model.norm.weight", &[4096], skip(Norm)),
                ("lm_head.weight", &[128256, 4096], skip(Head)),
            ],
        },
        Checkpoint {
            model_type: "mistral",
            hidden_size: 4096,
            tensors: vec![
                (
                    "model.layers.31.self_attn.q_proj.weight",
                    &[4096, 4096],
                    OutIn,
                ),
                (
                    "model.layers.31.mlp.down_proj.weight",
                    &[4096, 14336],
                    OutIn,
                ),
                ("layers.31.attention.wq.weight", &[4096, 4096], OutIn),
                ("layers.31.feed_forward.w2.weight", &[4096, 14336], OutIn),
                ("layers.31.ffn_norm.weight", &[4096], skip(Norm)),
                ("tok_embeddings.weight", &[32768, 4096], skip(Embedding)),
                ("output.weight", &[32768, 4096], skip(Head)),
            ],
        },
        Checkpoint {
            model_type: "qwen2",
            hidden_size: 896,
            tensors: vec![
                ("model.layers.0.self_attn.q_proj.weight", &[896, 896], OutIn),
                ("model.layers.0.self_attn.q_proj.bias", &[896], skip(Bias)),
                ("model.layers.0.self_attn.k_proj.weight", &[128, 896], OutIn),
                ("model.layers.0.mlp.down_proj.weight", &[896, 4864], OutIn),
            ],
        },
        Checkpoint {
            model_type: "qwen3",
            hidden_size: 1024,
            tensors: vec![
                ("model.layers.0.self_attn.q_norm.weight", &[128], skip(Norm)),
                (
                    "model.layers.0.self_attn.q_proj.weight",
                    &[2048, 1024],
                    OutIn,
                ),
                (
                    "model.layers.0.self_attn.o_proj.weight",
                    &[1024, 2048],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            model_type: "qwen3_moe",
            hidden_size: 2048,
            tensors: vec![
                ("model.layers.0.mlp.gate.weight", &[128, 2048], skip(Router)),
                (
                    "model.layers.0.mlp.experts.127.gate_proj.weight",
                    &[768, 2048],
                    OutIn,
                ),
                (
                    "model.layers.0.mlp.experts.127.up_proj.weight",
                    &[768, 2048],
                    OutIn,
                ),
                (
                    "model.layers.0.mlp.experts.127.down_proj.weight",
                    &[2048, 768],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            // As transformers 5 keeps it.
            model_type: "qwen3_moe",
            hidden_size: 2048,
            tensors: vec![
                (
                    "model.layers.0.mlp.experts.gate_up_proj",
                    &[128, 1536, 2048],
                    OutIn,
                ),
                (
                    "model.layers.0.mlp.experts.down_proj",
                    &[128, 2048, 768],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            model_type: "qwen2_moe",
            hidden_size: 2048,
            tensors: vec![
                (
                    "model.layers.0.mlp.shared_expert.up_proj.weight",
                    &[5632, 2048],
                    OutIn,
                ),
                (
                    "model.layers.0.mlp.shared_expert_gate.weight",
                    &[1, 2048],
                    skip(Router),
                ),
            ],
        },
        Checkpoint {
            model_type: "mixtral",
            hidden_size: 4096,
            tensors: vec![
                (
                    "model.layers.0.block_sparse_moe.gate.weight",
                    &[8, 4096],
                    skip(Router),
                ),
                (
                    "model.layers.0.block_sparse_moe.experts.7.w1.weight",
                    &[14336, 4096],
                    OutIn,
                ),
                (
                    "model.layers.0.block_sparse_moe.experts.7.w2.weight",
                    &[4096, 14336],
                    OutIn,
                ),
                (
                    "model.layers.0.block_sparse_moe.experts.7.w3.weight",
                    &[14336, 4096],
                    OutIn,
                ),
                (
                    "model.layers.1.mlp.experts.gate_up_proj",
                    &[8, 28672, 4096],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            model_type: "deepseek_v3",
            hidden_size: 7168,
            tensors: vec![
                (
                    "model.layers.3.self_attn.q_a_proj.weight",
                    &[1536, 7168],
                    OutIn,
                ),
                (
                    "model.layers.3.self_attn.q_a_layernorm.weight",
                    &[1536],
                    skip(Norm),
                ),
                (
                    "model.layers.3.self_attn.kv_b_proj.weight",
                    &[32768, 512],
                    OutIn,
                ),
                (
                    "model.layers.3.mlp.gate.e_score_correction_bias",
                    &[256],
                    skip(Bias),
                ),
                (
                    "model.layers.3.mlp.shared_experts.down_proj.weight",
                    &[7168, 2048],
                    OutIn,
                ),
                (
                    "model.layers.61.eh_proj.weight",
                    &[7168, 14336],
                    skip(UnknownName),
                ),
            ],
        },
        Checkpoint {
            model_type: "gpt_neox",
            hidden_size: 768,
            tensors: vec![
                ("gpt_neox.embed_in.weight", &[50304, 768], skip(Embedding)),
                (
                    "gpt_neox.layers.0.attention.bias",
                    &[1, 1, 2048, 2048],
                    skip(Bias),
                ),
                ("gpt_neox.layers.0.attention.masked_bias", &[], skip(Bias)),
                (
                    "gpt_neox.layers.0.attention.query_key_value.weight",
                    &[2304, 768],
                    OutIn,
                ),
                (
                    "gpt_neox.layers.0.attention.dense.weight",
                    &[768, 768],
                    OutIn,
                ),
                (
                    "gpt_neox.layers.0.mlp.dense_h_to_4h.weight",
                    &[3072, 768],
                    OutIn,
                ),
                (
                    "gpt_neox.layers.0.mlp.dense_4h_to_h.weight",
                    &[768, 3072],
                    OutIn,
                ),
                ("gpt_neox.final_layer_norm.weight", &[768], skip(Norm)),
                ("embed_out.weight", &[50304, 768], skip(Head)),
            ],
        },
        Checkpoint {
            model_type: "gpt2",
            hidden_size: 768,
            tensors: vec![
                ("wte.weight", &[50257, 768], skip(Embedding)),
                ("wpe.weight", &[1024, 768], skip(Embedding)),
                ("h.0.attn.bias", &[1, 1, 1024, 1024], skip(Bias)),
                ("h.0.ln_1.weight", &[768], skip(Norm)),
                ("h.0.attn.c_attn.weight", &[768, 2304], InOut),
                ("h.0.attn.c_proj.weight", &[768, 768], InOut),
                ("h.0.mlp.c_fc.weight", &[768, 3072], InOut),
                ("transformer.h.0.mlp.c_proj.weight", &[3072, 768], InOut),
                ("ln_f.weight", &[768], skip(Norm)),
            ],
        },
        Checkpoint {
            // The same names, another module.
            model_type: "gpt_bigcode",
            hidden_size: 2048,
            tensors: vec![
                ("transformer.h.0.attn.c_attn.weight", &[2304, 2048], OutIn),
                ("transformer.h.0.attn.c_proj.weight", &[2048, 2048], OutIn),
                ("transformer.h.0.mlp.c_proj.weight", &[2048, 8192], OutIn),
            ],
        },
        Checkpoint {
            model_type: "opt",
            hidden_size: 768,
            tensors: vec![
                (
                    "model.decoder.embed_positions.weight",
                    &[2050, 768],
                    skip(Embedding),
                ),
                (
                    "model.decoder.layers.0.self_attn.out_proj.weight",
                    &[768, 768],
                    OutIn,
                ),
                (
                    "model.decoder.layers.0.self_attn_layer_norm.weight",
                    &[768],
                    skip(Norm),
                ),
                ("model.decoder.layers.0.fc1.weight", &[3072, 768], OutIn),
                ("model.decoder.layers.0.fc2.weight", &[768, 3072], OutIn),
                (
                    "model.decoder.project_in.weight",
                    &[1024, 512],
                    skip(NotInABlock),
                ),
            ],
        },
        Checkpoint {
            model_type: "phi",
            hidden_size: 2560,
            tensors: vec![
                (
                    "model.layers.0.self_attn.dense.weight",
                    &[2560, 2560],
                    OutIn,
                ),
                ("model.layers.0.mlp.fc1.weight", &[10240, 2560], OutIn),
                ("model.layers.0.mlp.fc2.weight", &[2560, 10240], OutIn),
            ],
        },
        Checkpoint {
            model_type: "phi3",
            hidden_size: 3072,
            tensors: vec![
                (
                    "model.layers.0.self_attn.qkv_proj.weight",
                    &[9216, 3072],
                    OutIn,
                ),
                (
                    "model.layers.0.mlp.gate_up_proj.weight",
                    &[16384, 3072],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            model_type: "gemma2",
            hidden_size: 2304,
            tensors: vec![
                (
                    "model.layers.0.pre_feedforward_layernorm.weight",
                    &[2304],
                    skip(Norm),
                ),
                (
                    "model.layers.0.self_attn.o_proj.weight",
                    &[2304, 2048],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            model_type: "gemma3_text",
            hidden_size: 2560,
            tensors: vec![
                (
                    "language_model.model.embed_tokens.weight",
                    &[262208, 2560],
                    skip(Embedding),
                ),
                (
                    "language_model.model.layers.0.self_attn.q_proj.weight",
                    &[2048, 2560],
                    OutIn,
                ),
                (
                    "model.language_model.layers.0.mlp.up_proj.weight",
                    &[10240, 2560],
                    OutIn,
                ),
                (
                    "multi_modal_projector.mm_input_projection_weight",
                    &[1152, 2560],
                    skip(OtherModality),
                ),
                (
                    "multi_modal_projector.mm_soft_emb_norm.weight",
                    &[1152],
                    skip(Norm),
                ),
                (
                    "vision_tower.vision_model.embeddings.patch_embedding.weight",
                    &[1152, 3, 14, 14],
                    skip(OtherModality),
                ),
                (
                    "vision_tower.vision_model.encoder.layers.0.mlp.fc1.weight",
                    &[4304, 1152],
                    skip(OtherModality),
                ),
                (
                    "vision_tower.vision_model.encoder.layers.0.self_attn.q_proj.weight",
                    &[1152, 1152],
                    skip(OtherModality),
                ),
            ],
        },
        Checkpoint {
            model_type: "llama4_text",
            hidden_size: 5120,
            tensors: vec![
                (
                    "language_model.model.layers.0.feed_forward.router.weight",
                    &[16, 5120],
                    skip(Router),
                ),
                (
                    "language_model.model.layers.0.feed_forward.experts.gate_up_proj",
                    &[16, 5120, 16384],
                    InOut,
                ),
                (
                    "language_model.model.layers.0.feed_forward.experts.down_proj",
                    &[16, 8192, 5120],
                    InOut,
                ),
                (
                    "language_model.model.layers.0.feed_forward.shared_expert.up_proj.weight",
                    &[8192, 5120],
                    OutIn,
                ),
                (
                    "vision_model.model.layers.0.mlp.fc1.weight",
                    &[5632, 1408],
                    skip(OtherModality),
                ),
            ],
        },
        Checkpoint {
            model_type: "gpt_oss",
            hidden_size: 2880,
            tensors: vec![
                (
                    "model.layers.0.mlp.router.weight",
                    &[32, 2880],
                    skip(Router),
                ),
                ("model.layers.0.mlp.router.bias", &[32], skip(Bias)),
                (
                    "model.layers.0.mlp.experts.gate_up_proj",
                    &[32, 2880, 5760],
                    InOut,
                ),
                (
                    "model.layers.0.mlp.experts.gate_up_proj_bias",
                    &[32, 5760],
                    skip(Bias),
                ),
                (
                    "model.layers.0.mlp.experts.down_proj",
                    &[32, 2880, 2880],
                    InOut,
                ),
                ("model.layers.0.self_attn.sinks", &[64], skip(NotAMatrix)),
            ],
        },
        Checkpoint {
            model_type: "falcon",
            hidden_size: 4544,
            tensors: vec![
                (
                    "transformer.word_embeddings.weight",
                    &[65024, 4544],
                    skip(Embedding),
                ),
                (
                    "transformer.h.0.self_attention.query_key_value.weight",
                    &[4672, 4544],
                    OutIn,
                ),
                (
                    "transformer.h.0.self_attention.dense.weight",
                    &[4544, 4544],
                    OutIn,
                ),
                (
                    "transformer.h.0.mlp.dense_4h_to_h.weight",
                    &[4544, 18176],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            model_type: "bloom",
            hidden_size: 1024,
            tensors: vec![
                ("word_embeddings_layernorm.weight", &[1024], skip(Norm)),
                (
                    "h.0.self_attention.query_key_value.weight",
                    &[3072, 1024],
                    OutIn,
                ),
                ("h.0.mlp.dense_h_to_4h.weight", &[4096, 1024], OutIn),
            ],
        },
        Checkpoint {
            model_type: "chatglm",
            hidden_size: 4096,
            tensors: vec![
                (
                    "transformer.encoder.layers.0.self_attention.dense.weight",
                    &[4096, 4096],
                    OutIn,
                ),
                (
                    "transformer.output_layer.weight",
                    &[65024, 4096],
                    skip(Head),
                ),
            ],
        },
        Checkpoint {
            model_type: "mpt",
            hidden_size: 4096,
            tensors: vec![
                (
                    "transformer.blocks.0.attn.Wqkv.weight",
                    &[12288, 4096],
                    OutIn,
                ),
                (
                    "transformer.blocks.0.ffn.down_proj.weight",
                    &[4096, 16384],
                    OutIn,
                ),
            ],
        },
        Checkpoint {
            model_type: "gptj",
            hidden_size: 4096,
            tensors: vec![
                ("transformer.h.0.attn.out_proj.weight", &[4096, 4096], OutIn),
                ("transformer.h.0.mlp.fc_in.weight", &[16384, 4096], OutIn),
            ],
        },
        Checkpoint {
            // Cohere's query norm is a matrix.
            model_type: "cohere",
            hidden_size: 8192,
            tensors: vec![(
                "model.layers.0.self_attn.q_norm.weight",
                &[64, 128],
                skip(Norm),
            )],
        },
        Checkpoint {
            model_type: "of no architecture known",
            hidden_size: 2880,
            tensors: vec![(
                "model.layers.0.mlp.experts.down_proj",
                &[32, 2880, 2880],
                skip(AxisUnknown),
            )],
        },
    ]
}

fn tensor<'a>(name: &'a str, shape: &'a [usize]) -> Tensor<'a> {
    Tensor {
        name,
        dtype: StoredDtype::Bf16,
        shape,
    }
}

fn bf16(name: &str, shape: &[usize], filter: &NameFilter) -> Decision {
    classify(&tensor(name, shape), &Model::default(), filter)
}

#[test]
fn tensors_of_real_checkpoints_are_decided_as_their_architecture_wants() {
    for checkpoint in checkpoints() {
        let model = Model {
            model_type: Some(checkpoint.model_type.into()),
            hidden_size: Some(checkpoint.hidden_size),
        };
        let tensors: Vec<_> = checkpoint
            .tensors
            .iter()
            .map(|(name, shape, _)| tensor(name, shape))
            .collect();
        let plan = decide(&tensors, &model, &NameFilter::default());
        for ((name, shape, wish), decision) in checkpoint.tensors.iter().zip(&plan.decisions) {
            let got = match decision {
                Decision::Prune(target) => {
                    let first = shape[shape.len() - 2];
                    let last = shape[shape.len() - 1];
                    let (wish, out, inn) = match target.layout {
                        Layout::OutIn => (OutIn, first, last),
                        Layout::InOut => (InOut, last, first),
                    };
                    assert_eq!(
                        (target.out_features, target.in_features),
                        (out, inn),
                        "{name}"
                    );
                    assert_eq!(
                        target.experts,
                        if shape.len() == 3 { shape[0] } else { 1 },
                        "{name}"
                    );
                    wish
                }
                Decision::Skip(reason) => Wish::Skip(reason.clone()),
                Decision::Unsupported { .. } => panic!("{name}: {decision:?}"),
            };
            assert_eq!(&got, wish, "{} {name} {shape:?}", checkpoint.model_type);
        }
    }
}

#[test]
fn gpt2_without_a_config_is_settled_by_its_fanning_layers() {
    let tensors = [
        tensor("h.0.attn.c_proj.weight", &[768, 768]),
        tensor("h.0.attn.c_attn.weight", &[768, 2304]),
    ];
    let alone = classify(&tensors[0], &Model::default(), &NameFilter::default());
    assert_eq!(alone, Decision::Skip(AxisUnknown));
    let plan = decide(&tensors, &Model::default(), &NameFilter::default());
    for decision in &plan.decisions {
        assert_eq!(
            decision.target().map(|t| t.layout),
            Some(Layout::InOut),
            "{decision:?}"
        );
    }
}

#[test]
fn a_target_of_another_dtype_is_not_skipped_in_silence() {
    let model = Model::default();
    for dtype in [
        StoredDtype::F8E4m3,
        StoredDtype::F64,
        StoredDtype::I8,
        StoredDtype::U8,
    ] {
        let target = Tensor {
            name: "model.layers.0.mlp.up_proj.weight",
            dtype,
            shape: &[8, 4],
        };
        let wanted = Decision::Unsupported {
            dtype,
            kind: "up_proj".into(),
        };
        assert_eq!(classify(&target, &model, &NameFilter::default()), wanted);
        let other = Tensor {
            name: "model.embed_tokens.weight",
            dtype,
            shape: &[8, 4],
        };
        assert_eq!(
            classify(&other, &model, &NameFilter::default()),
            Decision::Skip(Embedding)
        );
        let without = NameFilter::new(&[], &["*up_proj*"]).unwrap();
        assert!(matches!(
            classify(&target, &model, &without),
            Decision::Skip(Reason::Excluded { .. })
        ));
    }
}

#[test]
fn pieces_of_quantised_weights_are_never_pruned_not_even_when_asked_for() {
    let all = NameFilter::new(&["*"], &[]).unwrap();
    for piece in [
        "self_attn.q_proj.qweight",
        "self_attn.q_proj.scales",
        "self_attn.q_proj.weight_scale",
        "self_attn.q_proj.weight_scale_inv",
        "self_attn.q_proj.weight_packed",
        "self_attn.q_proj.compressed",
        "self_attn.q_proj.weight.absmax",
        "self_attn.q_proj.weight.quant_state.bitsandbytes__nf4",
        "mlp.experts.gate_up_proj_blocks",
        "mlp.experts.gate_up_proj_scales",
    ] {
        let name = format!("model.layers.0.{piece}");
        assert_eq!(
            bf16(&name, &[8, 4], &all),
            Decision::Skip(Reason::Quantized),
            "{name}"
        );
        assert_eq!(
            bf16(&name, &[8, 4], &NameFilter::default()),
            Decision::Skip(Reason::Quantized),
            "{name}"
        );
    }
}

#[test]
fn include_replaces_the_default_set_and_exclude_takes_away() {
    let selection =
        NameFilter::new(&["model.embed_tokens.weight", "*.1.*"], &["*k_proj*"]).unwrap();
    let shape: &[usize] = &[8, 4];
    assert!(
        bf16("model.embed_tokens.weight", shape, &selection)
            .target()
            .is_some()
    );
    assert!(
        bf16("vision_tower.blocks.1.attn.qkv.weight", shape, &selection)
            .target()
            .is_some()
    );
    assert!(
        bf16("model.layers.1.self_attn.q_proj.weight", shape, &selection)
            .target()
            .is_some()
    );
    assert!(
        bf16("model.layers.1.mlp.gate.weight", shape, &selection)
            .target()
            .is_some()
    );
    assert_eq!(
        bf16("model.layers.0.self_attn.q_proj.weight", shape, &selection),
        Decision::Skip(Reason::NotIncluded)
    );
    assert_eq!(
        bf16("model.layers.1.self_attn.k_proj.weight", shape, &selection),
        Decision::Skip(Reason::Excluded {
            glob: "*k_proj*".into()
        })
    );
    // A wide glob does not turn everything it touches into a weight.
    assert_eq!(
        bf16("model.layers.1.self_attn.q_norm.weight", shape, &selection),
        Decision::Skip(Norm)
    );
    assert_eq!(
        bf16(
            "model.layers.1.mlp.experts.down_proj_bias",
            shape,
            &selection
        ),
        Decision::Skip(Bias)
    );
    assert_eq!(
        bf16(
            "conv.1.weight",
            &[4, 1, 3],
            &NameFilter::new(&["*"], &[]).unwrap()
        ),
        Decision::Skip(NotAMatrix)
    );
    assert_eq!(
        bf16("model.layers.1.mlp.up_proj.weight", &[0, 4], &selection),
        Decision::Skip(NotAMatrix)
    );
}

#[test]
fn an_included_conv1d_keeps_its_layout() {
    let selection = NameFilter::new(&["h.0.*"], &[]).unwrap();
    let decision = bf16("h.0.attn.c_attn.weight", &[768, 2304], &selection);
    assert_eq!(
        decision.target().map(|t| (t.layout, t.in_features)),
        Some((Layout::InOut, 768))
    );
}

#[test]
fn a_glob_that_matches_nothing_is_counted_as_such() {
    let tensors = [
        tensor("model.layers.0.mlp.up_proj.weight", &[8, 4]),
        tensor("model.layers.0.input_layernorm.weight", &[4]),
    ];
    let selection = NameFilter::new(
        &["*up_proj*", "*.layers.0.*", "*norm*", "upproj"],
        &["*.layers.9.*"],
    )
    .unwrap();
    let plan = decide(&tensors, &Model::default(), &selection);
    let counts: Vec<_> = plan.include.iter().map(|u| (u.matched, u.pruned)).collect();
    assert_eq!(counts, [(1, 1), (2, 1), (1, 0), (0, 0)]);
    assert_eq!(
        (plan.include[3].glob.as_str(), plan.exclude[0].matched),
        ("upproj", 0)
    );
}

#[test]
fn a_broken_glob_is_named() {
    let message = NameFilter::new(&["model.[layers"], &[])
        .unwrap_err()
        .to_string();
    assert!(message.contains("`model.[layers`"), "{message}");
}

#[test]
fn a_config_of_several_parts_gives_the_language_models_facts() {
    let facts = |config: serde_json::Value| {
        let model = Model::from_config(&Config::parse(config.to_string().as_bytes()).unwrap());
        (model.model_type.unwrap_or_default(), model.hidden_size)
    };
    assert_eq!(
        facts(json!({"model_type": "gpt2", "n_embd": 768})),
        ("gpt2".into(), Some(768))
    );
    let gemma = json!({"model_type": "gemma3", "hidden_size": 1, "text_config": {"model_type": "gemma3_text", "hidden_size": 2560}});
    assert_eq!(facts(gemma), ("gemma3_text".into(), Some(2560)));
    let bare = json!({"model_type": "llama4", "text_config": {"hidden_size": 5120}, "vision_config": {"hidden_size": 1408}});
    assert_eq!(facts(bare), ("llama4".into(), Some(5120)));
    for broken in [
        json!({}),
        json!([]),
        json!({"model_type": 3, "hidden_size": -1, "text_config": "x"}),
    ] {
        assert_eq!(facts(broken), (String::new(), None));
    }
}

#[test]
fn no_sentence_or_error_prints_a_glob_raw() {
    let excluded = Reason::Excluded {
        glob: HOSTILE.into(),
    };
    is_fit_for_a_terminal(&excluded.to_string());
    let broken = format!("{HOSTILE}[");
    is_fit_for_a_terminal(&NameFilter::new(&[broken], &[]).unwrap_err().to_string());
}
