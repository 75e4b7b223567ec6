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
            json!({"rope_theta": 500.0, "rope_scaling": {
                "rope_type": "yarn", "factor": 4.0, "beta_fast": 8.0, "original_max_position_embeddings": 16
            }}),
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
