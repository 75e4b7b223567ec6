//! What config.json can say: other spellings mean the same, what is special matters.

use super::*;

/// A case with these keys in its config.json, without those.
pub(super) fn case_with(name: &str, keys: &serde_json::Value, without: &[&str]) -> Checkpoint {
    let mut checkpoint = open(&folder(name));
    let json = fs::read(folder(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&json).unwrap();
    for key in without {
        let removed = config.as_object_mut().unwrap().remove(*key);
        assert!(removed.is_some(), "{name} has no {key}");
    }
    for (key, value) in keys.as_object().unwrap() {
        config[key] = value.clone();
    }
    checkpoint.config = Some(Config::parse(config.to_string().as_bytes()).unwrap());
    checkpoint
}

/// The logits of a case with these keys in its config.json, without those.
pub(super) fn logits_with(
    name: &str,
    keys: &serde_json::Value,
    without: &[&str],
) -> Result<Vec<f32>, Error> {
    let checkpoint = case_with(name, keys, without);
    let architecture = Architecture::of(&checkpoint)?;
    let device = cpu(2);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    Ok(forward.logits(&golden(name).tokens).unwrap())
}

fn qwen2_with(keys: serde_json::Value) -> Result<Vec<f32>, Error> {
    logits_with("qwen2", &keys, &[])
}

/// The goldens are as transformers 5 spells them.
#[test]
fn the_spellings_of_transformers_4_mean_the_same() {
    use serde_json::json;

    for (name, keys, without) in [
        // What the first releases of Gemma say, and do not mean.
        ("gemma", json!({"hidden_act": "gelu"}), &[][..]),
        ("gemma2", json!({}), &["layer_types"]),
        (
            "gemma3_text",
            json!({
                "sliding_window_pattern": 2, "rope_theta": 5000.0, "rope_local_base_freq": 100.0,
                "rope_scaling": {"rope_type": "linear", "factor": 8.0}
            }),
            &["layer_types", "rope_parameters"],
        ),
        (
            "phi3",
            json!({
                "rope_theta": 500.0, "partial_rotary_factor": 0.75, "rope_scaling": {
                    "type": "longrope", "short_factor": [1.0, 1.0, 1.1, 1.2, 1.3, 1.4],
                    "long_factor": [1.0, 1.2, 1.5, 2.0, 3.0, 4.0]
                }
            }),
            &["rope_parameters"],
        ),
        (
            "olmo3",
            json!({
                "rope_scaling": {
                    "rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "original_max_position_embeddings": 16
                },
                "rope_parameters": {
                    "full_attention": {"rope_type": "default", "rope_theta": 500.0},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 500.0}
                }
            }),
            &["rope_parameters"],
        ),
        (
            "smollm3",
            json!({"no_rope_layer_interval": 2, "rope_theta": 2_000_000.0}),
            &["no_rope_layers", "layer_types", "rope_parameters"],
        ),
        // As transformers 4 and 5 write a limit that is none.
        ("falcon_h1", json!({"time_step_limit": [0.0, null]}), &[]),
        (
            "falcon_h1",
            json!({"time_step_limit": [0.0, {"__float__": "Infinity"}]}),
            &[],
        ),
        ("stablelm", json!({}), &["rope_parameters"]),
        (
            "glm",
            json!({"partial_rotary_factor": 0.5}),
            &["rope_parameters"],
        ),
        ("nemotron", json!({}), &["rope_parameters"]),
        (
            "cohere2",
            json!({"sliding_window_pattern": 2}),
            &["layer_types"],
        ),
        (
            "exaone4",
            json!({"sliding_window_pattern": "LG"}),
            &["layer_types", "sliding_window_pattern"],
        ),
        (
            "hunyuan_v1_dense",
            json!({"rope_theta": 500.0, "rope_scaling": {"type": "dynamic", "alpha": 50.0, "factor": 1.0}}),
            &["rope_parameters"],
        ),
    ] {
        let logits = logits_with(name, &keys, without).unwrap();
        let difference = difference(&golden(name).logits, &logits);
        assert!(difference < 1e-5, "{name}: {difference}");
    }
}

/// Of the tensors that a family may have in other places: the text's half of a Llama 4 that knows pictures, too.
#[test]
fn the_text_of_a_llama_4_that_knows_pictures_is_run() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(folder("llama4_text").join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let inside = |name: &str| format!("language_model.{name}");
    let renamed = tensors.iter().map(|(name, tensor)| (inside(name), tensor));
    let path = dir.path().join("model.safetensors");
    fs::write(path, safetensors::serialize(renamed, None).unwrap()).unwrap();
    let text = fs::read(folder("llama4_text").join("config.json")).unwrap();
    let text: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let config = serde_json::json!({"model_type": "llama4", "text_config": text});
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();

    let mut golden = golden("llama4_text");
    for of in [&mut golden.norms, &mut golden.counts] {
        *of = std::mem::take(of)
            .into_iter()
            .map(|(name, numbers)| (inside(&name), numbers))
            .collect();
    }
    let (logits, norms) = differences(&open(dir.path()), &golden, &cpu(2));
    assert!(logits < 1e-3 && norms < 1e-4, "{logits}, {norms}");
}

/// That the goldens show what is special about a family: without it they are another model's.
#[test]
fn what_is_special_about_a_family_matters() {
    use serde_json::json;

    for (name, keys) in [
        ("apertus", json!({"hidden_act": "relu2"})),
        (
            "bloom-normed_residual",
            json!({"apply_residual_connection_post_layernorm": false}),
        ),
        ("gpt_neo", json!({"window_size": 64})),
        ("phimoe", json!({"router_jitter_noise": 0.0})),
        ("phimoe", json!({"sliding_window": null})),
        ("llama4_text", json!({"attention_chunk_size": 64})),
        (
            "llama4_text",
            json!({"layer_types": ["full_attention", "full_attention"]}),
        ),
        ("llama4_text", json!({"no_rope_layers": [1, 1]})),
        ("llama4_text", json!({"attn_temperature_tuning": false})),
        ("llama4_text", json!({"floor_scale": 6})),
        ("llama4_text", json!({"use_qk_norm": false})),
        ("dbrx", json!({"attn_config": {"kv_n_heads": 2}})),
        (
            "bamba",
            json!({"time_step_limit": [0.0, {"__float__": "Infinity"}]}),
        ),
        ("falcon_h1", json!({"mamba_norm_before_gate": false})),
        ("falcon_h1", json!({"attention_in_multiplier": 1.0})),
        ("falcon_h1", json!({"ssm_in_multiplier": 1.0})),
        ("falcon_h1", json!({"ssm_out_multiplier": 1.0})),
        ("falcon_h1", json!({"ssm_multipliers": null})),
        ("falcon_h1", json!({"mlp_multipliers": null})),
        ("falcon_h1", json!({"key_multiplier": 1.0})),
        ("falcon_h1", json!({"lm_head_multiplier": 1.0})),
        ("gemma2", json!({"attn_logit_softcapping": null})),
        ("gemma2", json!({"final_logit_softcapping": null})),
        ("gemma2", json!({"query_pre_attn_scalar": 24})),
        ("gemma2", json!({"sliding_window": 64})),
        (
            "gemma3_text",
            json!({"layer_types": ["full_attention", "sliding_attention"]}),
        ),
        ("phi3", json!({"original_max_position_embeddings": 64})),
        ("phi3", json!({"sliding_window": null})),
        ("olmo", json!({"clip_qkv": null})),
        ("olmo3", json!({"sliding_window": 64})),
        ("granite", json!({"embedding_multiplier": 1.0})),
        ("granite", json!({"attention_multiplier": 0.25})),
        ("granite", json!({"residual_multiplier": 1.0})),
        ("granite", json!({"logits_scaling": 1.0})),
        ("smollm3", json!({"no_rope_layers": [1, 1]})),
        (
            "smollm3",
            json!({"use_sliding_window": false, "layer_types": null}),
        ),
        ("starcoder2", json!({"hidden_act": "relu"})),
        ("cohere", json!({"use_qk_norm": false})),
        ("cohere", json!({"logit_scale": 1.0})),
        (
            "cohere2",
            json!({"layer_types": ["sliding_attention", "sliding_attention"]}),
        ),
        (
            "glm",
            json!({"rope_parameters": null, "partial_rotary_factor": 1.0}),
        ),
        (
            "exaone4",
            json!({"sliding_window": null, "layer_types": null}),
        ),
        (
            "hunyuan_v1_dense",
            json!({"rope_parameters": {"rope_theta": 500.0}}),
        ),
        ("nemotron", json!({"hidden_act": "relu"})),
        ("ministral", json!({"sliding_window": 64})),
        (
            "ministral",
            json!({"rope_parameters": {"rope_theta": 500.0}}),
        ),
    ] {
        let logits = logits_with(name, &keys, &[]).unwrap();
        let difference = difference(&golden(name).logits, &logits);
        assert!(difference > 1e-3, "{name} {keys}: {difference}");
    }
}

#[test]
fn nemotron_h_says_what_its_blocks_are_by_a_letter_each() {
    let keys = serde_json::json!({"hybrid_override_pattern": "ME*-"});
    let logits = logits_with("nemotron_h", &keys, &["layers_block_type"]).unwrap();
    assert!(difference(&golden("nemotron_h").logits, &logits) < 1e-5);
}

#[test]
fn blocks_slide_by_layer_types_as_by_max_window_layers() {
    use serde_json::json;

    let logits = |keys| qwen2_with(keys).unwrap();
    let by_layers =
        logits(json!({"use_sliding_window": true, "sliding_window": 8, "max_window_layers": 1}));
    let by_types = logits(json!({
        "use_sliding_window": true, "sliding_window": 8, "max_window_layers": 0,
        "layer_types": ["full_attention", "sliding_attention"]
    }));
    let full = logits(json!({"layer_types": ["full_attention", "full_attention"]}));
    assert_eq!(by_types, by_layers);
    assert!(difference(&golden("qwen2").logits, &full) < 1e-3);
    assert!(difference(&full, &by_types) > 1e-3, "the window matters");

    for (layer_types, says) in [
        (json!(["full_attention"]), "not a list of 2 types"),
        (
            json!(["full_attention", "sliding_attention"]),
            "no sliding_window in use",
        ),
        (
            json!(["full_attention", "chunked_attention"]),
            "chunked_attention",
        ),
    ] {
        let error = qwen2_with(json!({ "layer_types": layer_types })).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}

/// A copy of a checkpoint in which names lack `prefix`, as where a model was saved without its head.
fn without_prefix(name: &str, prefix: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(folder(name).join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let bare = tensors.iter().map(|(name, tensor)| {
        let name = name.strip_prefix(prefix).unwrap_or(name).to_owned();
        (name, tensor)
    });
    let path = dir.path().join("model.safetensors");
    fs::write(path, safetensors::serialize(bare, None).unwrap()).unwrap();
    let config = folder(name).join("config.json");
    fs::copy(config, dir.path().join("config.json")).unwrap();
    dir
}

#[test]
fn names_without_the_prefix_of_their_model_are_known() {
    for (name, prefix) in [
        ("opt", "model."),
        ("opt", "model.decoder."),
        ("gpt2", "transformer."),
        ("gpt_bigcode", "transformer."),
        ("bloom", "transformer."),
        ("mpt", "transformer."),
        ("gptj", "transformer."),
        ("codegen", "transformer."),
        ("gpt_neo", "transformer."),
        ("opt-350m", "model."),
        ("falcon", "transformer."),
        ("phi", "model."),
        ("persimmon", "model."),
    ] {
        let dir = without_prefix(name, prefix);
        let checkpoint = open(dir.path());
        let architecture = Architecture::of(&checkpoint).unwrap();
        let device = cpu(2);
        let forward = Forward::new(&checkpoint, &architecture, &device);
        let golden = golden(name);
        let logits = forward.logits(&golden.tokens).unwrap();
        assert!(difference(&golden.logits, &logits) < 1e-5, "{name}");
        for weight in golden.norms.keys() {
            let bare = weight.strip_prefix(prefix).unwrap();
            let mut sites = architecture.sites();
            assert!(
                sites.any(|site| site.readers.iter().any(|reader| reader == bare)),
                "{bare}"
            );
        }
    }
}

/// A key that another family reads and transformers does not look at in this one.
#[test]
fn a_key_of_another_family_does_not_act() {
    let strangers: serde_json::Value = serde_json::from_str(
        r#"{
        "intermediate_size": 40, "n_inner": 40, "ffn_dim": 40, "ffn_hidden_size": 40, "hidden_act": "relu",
        "activation_function": "relu", "activation": "relu", "hidden_activation": "relu", "layer_norm_eps": 0.5,
        "layer_norm_epsilon": 0.5, "rms_norm_eps": 0.5, "norm_eps": 0.5, "norm_epsilon": 0.5, "sliding_window": 3,
        "window_size": 3, "use_sliding_window": true, "attention_chunk_size": 3, "no_rope_layers": [0, 0],
        "rope_theta": 50.0, "rotary_emb_base": 50.0, "rotary_pct": 0.5, "partial_rotary_factor": 0.5, "clip_qkv": 0.01,
        "logit_scale": 3.0, "logits_scaling": 3.0, "embedding_multiplier": 3.0, "attention_multiplier": 3.0,
        "residual_multiplier": 3.0, "final_logit_softcapping": 0.1, "attn_logit_softcapping": 0.1,
        "query_pre_attn_scalar": 3, "head_dim": 8, "num_key_value_heads": 1, "num_kv_heads": 1, "use_bias": true,
        "bias": true, "mlp_bias": true, "attention_bias": true, "attention_out_bias": true, "qkv_bias": true,
        "use_qkv_bias": true, "use_qk_norm": true, "qk_layernorm": true, "use_parallel_residual": true,
        "parallel_attn": true, "alibi": true, "multi_query": true, "scale_attn_by_inverse_layer_idx": true,
        "num_local_experts": 3, "num_experts": 3, "n_routed_experts": 3, "num_experts_per_tok": 1,
        "norm_topk_prob": true, "routed_scaling_factor": 3.0, "n_group": 2, "text_config": {"hidden_size": 3},
        "hidden_size": 32, "num_attention_heads": 2, "n_layer": 1, "n_embd": 32, "n_head": 2, "d_model": 32,
        "max_seq_len": 2, "n_positions": 2, "seq_length": 2
    }"#,
    )
    .unwrap();
    // Of each, what its own class knows.
    for (name, own) in [
        (
            "gpt2",
            "activation_function layer_norm_epsilon n_inner n_embd n_head n_layer n_positions hidden_size \
                  num_attention_heads scale_attn_by_inverse_layer_idx",
        ),
        (
            "gpt_bigcode",
            "activation_function layer_norm_epsilon n_inner n_embd n_head n_layer n_positions hidden_size \
                         num_attention_heads multi_query",
        ),
        (
            "gptj",
            "activation_function layer_norm_epsilon n_inner n_embd n_head n_layer n_positions hidden_size \
                  num_attention_heads",
        ),
        (
            "codegen",
            "activation_function layer_norm_epsilon n_inner n_embd n_head n_layer n_positions hidden_size \
                     num_attention_heads",
        ),
        (
            "gpt_neo",
            "activation_function layer_norm_epsilon intermediate_size window_size hidden_size num_attention_heads",
        ),
        (
            "opt",
            "activation_function ffn_dim hidden_size num_attention_heads",
        ),
        (
            "bloom",
            "layer_norm_epsilon n_layer n_head hidden_size num_attention_heads seq_length",
        ),
        (
            "mpt",
            "layer_norm_epsilon d_model logit_scale hidden_size num_attention_heads max_seq_len",
        ),
        (
            "falcon",
            "activation layer_norm_epsilon ffn_hidden_size alibi multi_query bias parallel_attn num_kv_heads \
                    rope_theta partial_rotary_factor hidden_size num_attention_heads",
        ),
        (
            "mamba",
            "layer_norm_epsilon hidden_act use_bias hidden_size",
        ),
        (
            "falcon_mamba",
            "layer_norm_epsilon hidden_act use_bias hidden_size",
        ),
        (
            "mamba2",
            "layer_norm_epsilon hidden_act use_bias head_dim hidden_size",
        ),
        (
            "gpt_neox",
            "intermediate_size hidden_act layer_norm_eps attention_bias use_parallel_residual rotary_emb_base \
                      rotary_pct head_dim hidden_size num_attention_heads",
        ),
        (
            "llama",
            "intermediate_size hidden_act rms_norm_eps rope_theta partial_rotary_factor head_dim num_key_value_heads attention_bias mlp_bias \
                   hidden_size num_attention_heads",
        ),
        (
            "qwen2",
            "intermediate_size hidden_act rms_norm_eps rope_theta head_dim num_key_value_heads sliding_window \
                   use_sliding_window hidden_size num_attention_heads",
        ),
        (
            "olmo",
            "intermediate_size hidden_act rope_theta head_dim num_key_value_heads attention_bias clip_qkv hidden_size \
                  num_attention_heads",
        ),
        (
            "phi",
            "intermediate_size hidden_act layer_norm_eps rope_theta head_dim num_key_value_heads partial_rotary_factor \
                 qk_layernorm hidden_size num_attention_heads",
        ),
        (
            "deepseek_v2",
            "intermediate_size hidden_act rms_norm_eps rope_theta num_key_value_heads attention_bias mlp_bias \
                         num_experts_per_tok norm_topk_prob routed_scaling_factor n_group n_routed_experts num_experts \
                         hidden_size num_attention_heads",
        ),
    ] {
        let own: Vec<_> = own.split_whitespace().collect();
        let others = strangers.as_object().unwrap().iter();
        let others = others.filter(|(key, _)| !own.contains(&key.as_str()));
        let others = others.map(|(key, value)| (key.clone(), value.clone()));
        let others = serde_json::Value::Object(others.collect());
        let logits =
            logits_with(name, &others, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let difference = difference(&golden(name).logits, &logits);
        assert!(difference < 1e-5, "{name}: {difference}");
    }
}

/// What transformers' class has where config.json says nothing.
#[test]
fn a_missing_key_means_what_it_does_in_transformers() {
    use serde_json::json;

    for (name, change, key, usual) in [
        (
            "deepseek_v3",
            json!({}),
            "routed_scaling_factor",
            json!(2.5),
        ),
        (
            "deepseek_v3",
            json!({"n_routed_experts": 8}),
            "norm_topk_prob",
            json!(true),
        ),
        (
            "deepseek_v2",
            json!({}),
            "routed_scaling_factor",
            json!(1.0),
        ),
        (
            "mixtral",
            json!({}),
            "rope_parameters",
            json!({"rope_theta": 1_000_000.0}),
        ),
        (
            "phimoe",
            json!({}),
            "rope_parameters",
            json!({"rope_theta": 1_000_000.0}),
        ),
        (
            "llama4_text",
            json!({}),
            "rope_parameters",
            json!({"rope_theta": 500_000.0}),
        ),
        (
            "lfm2",
            json!({}),
            "rope_parameters",
            json!({"rope_theta": 1_000_000.0}),
        ),
        (
            "helium",
            json!({}),
            "rope_parameters",
            json!({"rope_theta": 100_000.0}),
        ),
        (
            "ernie4_5",
            json!({}),
            "rope_parameters",
            json!({"rope_theta": 500_000.0}),
        ),
        (
            "cohere",
            json!({}),
            "rope_parameters",
            json!({"rope_theta": 500_000.0}),
        ),
        (
            "gpt_oss",
            json!({}),
            "rope_parameters",
            json!({
                "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": false,
                "original_max_position_embeddings": 4096, "rope_theta": 150_000.0
            }),
        ),
        (
            "apertus",
            json!({}),
            "rope_parameters",
            json!({
                "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 8192, "rope_theta": 12_000_000.0
            }),
        ),
        ("glm4_moe", json!({}), "routed_scaling_factor", json!(1.0)),
        (
            "qwen2",
            json!({"use_sliding_window": true, "sliding_window": 3}),
            "max_window_layers",
            json!(28),
        ),
        ("gemma2", json!({}), "final_logit_softcapping", json!(30.0)),
        ("cohere", json!({}), "logit_scale", json!(0.0625)),
        ("opt", json!({}), "activation_function", json!("relu")),
        ("persimmon", json!({}), "hidden_act", json!("relu2")),
        ("glm", json!({}), "rms_norm_eps", json!(1.5625e-7)),
        ("stablelm", json!({}), "layer_norm_eps", json!(1e-5)),
    ] {
        let mut with = change.clone();
        with[key] = usual;
        let checkpoint = case_with(name, &with, &[]);
        let said = of(&checkpoint).unwrap();
        let json = fs::read(folder(name).join("config.json")).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&json).unwrap();
        let without: Vec<_> = json.get(key).map(|_| key).into_iter().collect();
        let checkpoint = case_with(name, &change, &without);
        let unsaid = of(&checkpoint).unwrap_or_else(|error| panic!("{name} {key}: {error}"));
        assert!(said == unsaid, "{name} {key}");
    }
    // What no class has a default for is asked for.
    for (name, key) in [
        ("deepseek_v2", "num_experts_per_tok"),
        ("lfm2_moe", "layer_types"),
    ] {
        let error = logits_with(name, &json!({}), &[key])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("{key} is missing")),
            "{name}: {error}"
        );
    }
}

/// The logits of some tokens.
fn of(checkpoint: &Checkpoint) -> Result<Vec<f32>, Error> {
    let architecture = Architecture::of(checkpoint)?;
    let device = cpu(2);
    let tokens: Vec<u32> = (1..20).collect();
    Ok(Forward::new(checkpoint, &architecture, &device)
        .logits(&tokens)
        .unwrap())
}

/// As somebody adds YaRN to a config.json that transformers 5 saved.
#[test]
fn a_scaling_beside_parameters_is_what_counts() {
    use serde_json::json;

    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 8});
    let mut with_base = yarn.clone();
    with_base["rope_theta"] = json!(300.0);
    for name in [
        "llama",
        "qwen2",
        "gpt_neox",
        "phi",
        "deepseek_v3",
        "granite",
        "falcon",
    ] {
        let with = |keys| logits_with(name, &keys, &[]).unwrap();
        let parameters = json!({"rope_type": "default", "rope_theta": 900.0});
        // The base of the parameters goes with them.
        let beside =
            with(json!({"rope_parameters": parameters.clone(), "rope_scaling": yarn.clone()}));
        assert_eq!(
            beside,
            with(json!({"rope_parameters": yarn.clone()})),
            "{name}"
        );
        assert!(
            difference(
                &beside,
                &with(json!({"rope_parameters": parameters.clone()}))
            ) > 1e-4,
            "{name}"
        );
        let own_base =
            with(json!({"rope_parameters": parameters.clone(), "rope_scaling": with_base.clone()}));
        assert_eq!(
            own_base,
            with(json!({"rope_parameters": with_base.clone()})),
            "{name}"
        );
        // An empty one is none.
        let empty = with(json!({"rope_parameters": parameters.clone(), "rope_scaling": {}}));
        assert_eq!(
            empty,
            with(json!({"rope_parameters": parameters.clone()})),
            "{name}"
        );
    }
}

/// A copy of a case with other tensors beside or in place of some of its own, said to be tied or not.
fn with_tensors(
    name: &str,
    tied: bool,
    change: impl Fn(&mut BTreeMap<String, TensorView<'_>>),
) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(folder(name).join("model.safetensors")).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: BTreeMap<String, TensorView<'_>> = stored.tensors().into_iter().collect();
    change(&mut tensors);
    let path = dir.path().join("model.safetensors");
    fs::write(path, safetensors::serialize(tensors, None).unwrap()).unwrap();
    let config = fs::read(folder(name).join("config.json")).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    config["tie_word_embeddings"] = tied.into();
    fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    dir
}

#[test]
fn a_head_that_is_stored_is_the_head_though_they_are_said_to_be_tied() {
    // An untied model in which head and embedding differ.
    for (name, head, embedding) in [
        ("granite", "lm_head.weight", "model.embed_tokens.weight"),
        ("gptj", "lm_head.weight", "transformer.wte.weight"),
        ("mamba2", "lm_head.weight", "backbone.embeddings.weight"),
    ] {
        let logits = |dir: &tempfile::TempDir| of(&open(dir.path())).unwrap();
        let untied = logits(&with_tensors(name, false, |_| {}));
        let tied = logits(&with_tensors(name, true, |_| {}));
        assert_eq!(tied, untied, "{name}");
        // Without it, it is the embedding; and the embedding is the head where only that is stored.
        let without_head = logits(&with_tensors(name, true, |all| drop(all.remove(head))));
        assert!(difference(&untied, &without_head) > 1e-3, "{name}");
        let only_head = logits(&with_tensors(name, true, |all| {
            let stored = all.remove(embedding).unwrap();
            all.insert(head.to_owned(), stored);
        }));
        assert_eq!(only_head, without_head, "{name}");
        let error = Architecture::of(&open(
            with_tensors(name, false, |all| drop(all.remove(embedding))).path(),
        ));
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains(embedding) && error.contains("is missing"),
            "{error}"
        );
    }
}

#[test]
fn a_mistral_that_lists_the_kinds_of_its_layers_slides_in_those_alone() {
    use serde_json::json;

    let logits = |keys: serde_json::Value| logits_with("mistral", &keys, &[]).unwrap();
    let slides_in_all = logits(json!({}));
    let none = json!({"layer_types": ["full_attention", "full_attention"]});
    assert_ne!(logits(none), slides_in_all);
    let all = json!({"layer_types": ["sliding_attention", "sliding_attention"]});
    assert_eq!(logits(all), slides_in_all);
}
