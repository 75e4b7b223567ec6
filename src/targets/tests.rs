//! Decisions over names and shapes of real checkpoints (`real_names.txt`), and over what else there can be.

use serde_json::json;

use super::*;
use crate::checkpoint::Config;
use crate::dtype::StoredDtype;
use crate::untrusted::tests::{HOSTILE, is_fit_for_a_terminal};

/// A line of the list: a tensor, and what must become of it.
struct Row {
    name: &'static str,
    shape: Vec<usize>,
    wish: &'static str,
}

/// The tensors of one checkpoint.
struct Checkpoint {
    model: Model,
    rows: Vec<Row>,
}

/// The list of real names.
fn checkpoints() -> Vec<Checkpoint> {
    let mut checkpoints = Vec::new();
    for line in include_str!("real_names.txt").lines() {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(head) = line.strip_prefix('[') {
            let head = head.strip_suffix(']').unwrap();
            let (model_type, hidden_size) = head.rsplit_once(' ').unwrap();
            checkpoints.push(Checkpoint {
                model: Model {
                    model_type: Some(model_type.to_owned()),
                    hidden_size: Some(hidden_size.parse().unwrap()),
                    ..Model::default()
                },
                rows: Vec::new(),
            });
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let [name, shape, wish] = words[..] else {
            panic!("{line}");
        };
        let shape = match shape {
            "scalar" => Vec::new(),
            _ => shape.split('x').map(|side| side.parse().unwrap()).collect(),
        };
        let rows = &mut checkpoints.last_mut().unwrap().rows;
        rows.push(Row { name, shape, wish });
    }
    checkpoints
}

/// What was decided, in the words of the list.
fn word(decision: &Decision) -> &'static str {
    match decision {
        Decision::Prune(target) => match target.layout {
            Layout::OutIn => "out,in",
            Layout::InOut => "in,out",
        },
        Decision::Skip(reason) => match reason {
            Reason::Embedding => "embedding",
            Reason::Head => "head",
            Reason::Norm => "norm",
            Reason::Bias => "bias",
            Reason::Router => "router",
            Reason::FurtherPrediction => "further-prediction",
            Reason::NotLinear => "not-linear",
            Reason::OtherModality => "other-modality",
            Reason::NotInABlock => "not-in-a-block",
            Reason::UnknownName => "unknown-name",
            Reason::NotAMatrix => "not-a-matrix",
            Reason::ExpertsUnknown => "experts-unknown",
            Reason::AxisUnknown => "axis-unknown",
            Reason::Quantized | Reason::Excluded { .. } | Reason::NotIncluded => "unlisted",
        },
        Decision::Unsupported { .. } => "unsupported",
    }
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
    let checkpoints = checkpoints();
    assert_eq!(checkpoints.len(), 62);
    for Checkpoint { model, rows } in checkpoints {
        let tensors: Vec<_> = rows
            .iter()
            .map(|row| tensor(row.name, &row.shape))
            .collect();
        let decided = decide(&tensors, &model, &NameFilter::default());
        for (Row { name, shape, wish }, decision) in rows.iter().zip(&decided.decisions) {
            assert_eq!(
                word(decision),
                *wish,
                "{:?} {name} {shape:?}",
                model.model_type
            );
            let Some(target) = decision.target() else {
                continue;
            };
            let (first, last) = (shape[shape.len() - 2], shape[shape.len() - 1]);
            let sides = match target.layout {
                Layout::OutIn => (first, last),
                Layout::InOut => (last, first),
            };
            assert_eq!((target.out_features, target.in_features), sides, "{name}");
            let experts = if shape.len() == 3 { shape[0] } else { 1 };
            assert_eq!(target.experts, experts, "{name}");
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
    assert_eq!(alone, Decision::Skip(Reason::AxisUnknown));
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
            Decision::Skip(Reason::Embedding)
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
        Decision::Skip(Reason::Norm)
    );
    assert_eq!(
        bf16(
            "model.layers.1.mlp.experts.down_proj_bias",
            shape,
            &selection
        ),
        Decision::Skip(Reason::Bias)
    );
    assert_eq!(
        bf16(
            "conv.1.weight",
            &[4, 1, 3],
            &NameFilter::new(&["*"], &[]).unwrap()
        ),
        Decision::Skip(Reason::NotAMatrix)
    );
    assert_eq!(
        bf16("model.layers.1.mlp.up_proj.weight", &[0, 4], &selection),
        Decision::Skip(Reason::NotAMatrix)
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
        &["*.layers.9.*", "*norm*"],
    )
    .unwrap();
    let plan = decide(&tensors, &Model::default(), &selection);
    let taken: Vec<_> = plan
        .exclude
        .iter()
        .map(|u| (u.matched, u.excluded))
        .collect();
    assert_eq!(taken, [(0, 0), (1, 0)]);
    let counts: Vec<_> = plan.include.iter().map(|u| (u.matched, u.pruned)).collect();
    assert_eq!(counts, [(1, 1), (2, 1), (1, 0), (0, 0)]);
    assert_eq!(
        (plan.include[3].glob.as_str(), plan.exclude[0].matched),
        ("upproj", 0)
    );
}

#[test]
fn experts_one_below_the_other_are_as_many_as_the_config_says() {
    let config = json!({"model_type": "dbrx", "d_model": 64, "ffn_config": {"moe_num_experts": 4}});
    let model = Model::from_config(&Config::parse(config.to_string().as_bytes()).unwrap());
    let all = NameFilter::default();
    let decide = |name: &str, shape: &[usize], model| {
        let name = format!("transformer.blocks.0.ffn.experts.mlp.{name}");
        classify(&tensor(&name, shape), model, &all)
    };
    for (name, layout, sides) in [
        ("w1", Layout::OutIn, (48, 64)),
        ("v1", Layout::OutIn, (48, 64)),
        ("w2", Layout::InOut, (64, 48)),
    ] {
        let decision = decide(name, &[4 * 48, 64], &model);
        let target = decision.target().unwrap();
        assert_eq!((target.experts, target.layout), (4, layout), "{name}");
        assert_eq!((target.out_features, target.in_features), sides, "{name}");
    }
    for (rows, model) in [(4 * 48 + 2, &model), (4 * 48, &Model::default())] {
        let decision = decide("w2", &[rows, 64], model);
        assert_eq!(decision, Decision::Skip(Reason::ExpertsUnknown));
    }
}

#[test]
fn blocks_behind_those_of_the_decoder_stay_dense_unless_asked_for() {
    let config = json!({"num_hidden_layers": 2, "num_nextn_predict_layers": 1});
    let model = Model::from_config(&Config::parse(config.to_string().as_bytes()).unwrap());
    let default = NameFilter::default();
    let name = |block| format!("model.layers.{block}.mlp.up_proj.weight");
    let decide = |block, filter| classify(&tensor(&name(block), &[8, 8]), &model, filter);
    assert!(decide(1, &default).target().is_some());
    let left = Decision::Skip(Reason::FurtherPrediction);
    assert_eq!(decide(2, &default), left);
    assert!(decide(3, &default).target().is_some(), "nobody's block");
    let asked = NameFilter::new(&["*layers.2.*"], &[]).unwrap();
    assert!(decide(2, &asked).target().is_some());
    for broken in [
        json!({"num_hidden_layers": 2, "num_nextn_predict_layers": u64::MAX}),
        json!({"num_nextn_predict_layers": -1}),
    ] {
        let model = Model::from_config(&Config::parse(broken.to_string().as_bytes()).unwrap());
        assert!(!model.further_blocks.contains(&0));
    }
}

#[test]
fn a_broken_glob_is_named() {
    let message = NameFilter::new(&["model.[layers"], &[])
        .unwrap_err()
        .to_string();
    assert!(message.contains("`model.[layers`"), "{message}");
}

#[test]
fn a_glob_that_somebody_made_to_do_harm_is_refused_and_does_not_panic() {
    let nested = |depth: usize| format!("{}a{}", "{".repeat(depth), "}".repeat(depth));
    for refused in [
        nested(300),
        nested(2000),
        format!("*{}", nested(400)),
        "{a,".repeat(300) + "b" + &"}".repeat(300),
        "a".repeat(5000),
        "[".repeat(100),
        "{".repeat(3000),
    ] {
        let error = NameFilter::new(&[refused], &[]).unwrap_err();
        is_fit_for_a_terminal(&error.to_string());
    }
    for taken in [
        nested(20),
        "*".repeat(4096),
        "**/".repeat(1000),
        "?".repeat(4096),
        format!("{{{}}}", "model.layers.1.mlp,".repeat(200)),
        "[!a-z]".repeat(600),
        "[\u{0}-\u{10ffff}]".repeat(300),
    ] {
        let name = "model.layers.0.self_attn.q_proj.weight".repeat(20);
        // One that took long would be seen by who waits for this test.
        if let Ok(filter) = NameFilter::new(std::slice::from_ref(&taken), &[]) {
            filter.includes(&name);
        }
    }
    let many = vec!["a"; 2000];
    assert!(matches!(
        NameFilter::new(&many, &[]),
        Err(Error::TooMany(2000))
    ));
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
    for broken in [format!("{HOSTILE}["), "[\u{202e}-\u{1b}]".to_owned()] {
        is_fit_for_a_terminal(&NameFilter::new(&[broken], &[]).unwrap_err().to_string());
    }
}
