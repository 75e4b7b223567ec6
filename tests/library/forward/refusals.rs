//! What cannot be run is refused: a config.json that nobody wrote the code for, or that the tensors contradict.

use super::configurations::{case_with, logits_with};
use super::*;

#[test]
fn what_a_family_may_have_and_this_does_not_run_is_refused() {
    use serde_json::json;

    for (name, keys, says) in [
        (
            "nemotron_h",
            json!({"moe_latent_size": 32}),
            "moe_latent_size",
        ),
        (
            "granitemoehybrid",
            json!({"position_embedding_type": "alibi"}),
            "position_embedding_type alibi",
        ),
        (
            "dbrx",
            json!({"ffn_config": {"ffn_hidden_size": 24, "moe_num_experts": 5, "moe_normalize_expert_weights": 2}}),
            "moe_normalize_expert_weights 2",
        ),
        (
            "jamba",
            json!({"layer_types": null, "hidden_act": "prelu"}),
            "hidden_act prelu",
        ),
        (
            "gemma2",
            json!({"use_bidirectional_attention": true}),
            "use_bidirectional_attention",
        ),
        (
            "granite",
            json!({"rope_parameters": {"rope_type": "proportional"}}),
            "scaled by proportional",
        ),
    ] {
        let error = logits_with(name, &keys, &[]).unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported(what) if what.contains(says)),
            "{error}"
        );
    }
}

#[test]
fn recurrences_that_a_config_cannot_mean_are_refused() {
    use serde_json::json;

    for (name, keys, says) in [
        (
            "jamba",
            json!({"attn_layer_offset": 2}),
            "attn_layer_offset is 2",
        ),
        ("jamba", json!({"mamba_d_state": 13}), "mamba.x_proj.weight"),
        ("bamba", json!({"mamba_n_groups": 3}), "3 groups"),
        (
            "bamba",
            json!({"mamba_d_head": 31}),
            "which is not 128 channels",
        ),
        (
            "bamba",
            json!({"time_step_limit": [1.0, 0.5]}),
            "time_step_limit",
        ),
        ("bamba", json!({"mamba_d_conv": 3}), "conv1d.weight"),
        (
            "falcon_h1",
            json!({"ssm_multipliers": [1.0]}),
            "ssm_multipliers",
        ),
        ("mamba2", json!({"num_heads": 8}), "which is not expand 2"),
        (
            "qwen3_next",
            json!({"linear_num_value_heads": 3}),
            "linear_num_key_heads",
        ),
        ("lfm2", json!({"layer_types": ["conv"]}), "layer_types"),
        (
            "lfm2",
            json!({"block_auto_adjust_ff_dim": true, "block_ffn_dim_multiplier": 1e300}),
            "block_ffn_dim_multiplier",
        ),
        (
            "gpt_neo",
            json!({"attention_types": [[["global"], 3]]}),
            "attention_types",
        ),
        (
            "gpt_neo",
            json!({"attention_types": [[[], u64::MAX]]}),
            "attention_types",
        ),
        ("codegen", json!({"n_head": 2}), "not a multiple of 4"),
        (
            "llama4_text",
            json!({"no_rope_layers": [1]}),
            "no_rope_layers",
        ),
        (
            "llama4_text",
            json!({"attention_chunk_size": null}),
            "attention_chunk_size",
        ),
    ] {
        let error = logits_with(name, &keys, &[]).unwrap_err().to_string();
        assert!(error.contains(says), "{name} {keys}: {error}");
    }
}

#[test]
fn a_sequence_beyond_what_dynamic_scaling_was_trained_for_is_refused() {
    let keys = serde_json::json!({"max_position_embeddings": 20});
    let checkpoint = case_with("seed_oss", &keys, &[]);
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    assert!(forward.logits(&[1; 20]).is_ok());
    let error = forward.logits(&[1; 21]).unwrap_err().to_string();
    assert!(
        error.contains("a window of 21 tokens is too long"),
        "{error}"
    );
}

/// A checkpoint after its config.json was changed.
fn with_changed_config(name: &str, change: impl FnOnce(&mut serde_json::Value)) -> Checkpoint {
    let mut checkpoint = open(&folder(name));
    let mut config =
        serde_json::from_slice(&fs::read(folder(name).join("config.json")).unwrap()).unwrap();
    change(&mut config);
    checkpoint.config = Some(Config::parse(config.to_string().as_bytes()).unwrap());
    checkpoint
}

/// The error of the llama checkpoint after its config.json was changed.
fn with_config(change: impl FnOnce(&mut serde_json::Value)) -> Error {
    Architecture::of(&with_changed_config("llama", change)).unwrap_err()
}

#[test]
fn a_config_that_disagrees_with_the_tensors_is_refused() {
    for (key, value, says) in [
        ("hidden_size", 128_u64, "embed_tokens.weight"),
        ("vocab_size", 81, "embed_tokens.weight"),
        (
            "num_hidden_layers",
            3,
            "model.layers.2.input_layernorm.weight is missing",
        ),
        ("num_hidden_layers", 1, "num_hidden_layers is 1"),
        (
            "num_hidden_layers",
            1 << 24,
            "the checkpoint has only 20 tensors",
        ),
        (
            "num_key_value_heads",
            1,
            "k_proj.weight is [32, 64], by config.json it would be [16, 64]",
        ),
        (
            "num_key_value_heads",
            3,
            "num_attention_heads 4 is not a multiple of num_key_value_heads 3",
        ),
        ("intermediate_size", 95, "mlp.gate_proj.weight"),
        ("num_attention_heads", 0, "num_attention_heads is 0"),
        ("hidden_size", 1_u64 << 40, "hidden_size is 1099511627776"),
    ] {
        let error = with_config(|config| config[key] = value.into()).to_string();
        assert!(error.contains(says), "{key} {value}: {error}");
    }
    let error = with_config(|config| {
        config["num_attention_heads"] = 6.into();
        config.as_object_mut().unwrap().remove("head_dim");
    });
    assert!(
        error
            .to_string()
            .contains("hidden_size 64 is not a multiple"),
        "{error}"
    );
}

#[test]
fn what_is_not_supported_is_told_from_what_is_wrong() {
    for (key, value) in [("model_type", "rwkv"), ("hidden_act", "prelu")] {
        let error = with_config(|config| config[key] = value.into());
        assert!(
            matches!(&error, Error::Unsupported(what) if what.contains(value)),
            "{error}"
        );
        assert!(
            error.to_string().contains("gpt_neox"),
            "the supported ones are named: {error}"
        );
    }
    let mut checkpoint = open(&folder("llama"));
    checkpoint.config = None;
    assert!(matches!(
        Architecture::of(&checkpoint),
        Err(Error::NoConfig(_))
    ));
}

#[test]
fn what_older_families_could_be_but_are_not_here_is_refused() {
    use serde_json::json;

    for (name, key, value) in [
        ("opt", "_remove_final_layer_norm", json!(true)),
        ("opt", "layer_norm_elementwise_affine", json!(false)),
        ("gpt2", "add_cross_attention", json!(true)),
        ("mpt", "no_bias", json!(false)),
        ("mpt", "logit_scale", json!(0.5)),
        ("mpt", "norm_type", json!("rmsnorm")),
        ("mpt", "attn_config.alibi", json!(false)),
        ("mpt", "attn_config.alibi_bias_max", json!(16)),
        ("mpt", "attn_config.qk_ln", json!(true)),
        (
            "mpt",
            "attn_config.attn_type",
            json!("multiquery_attention"),
        ),
        ("falcon-new", "parallel_attn", json!(false)),
        ("falcon", "num_ln_in_parallel_attn", json!(2)),
    ] {
        let checkpoint = with_changed_config(name, |config| match key.split_once('.') {
            Some((part, key)) => config[part][key] = value.clone(),
            None => config[key] = value.clone(),
        });
        let error = Architecture::of(&checkpoint).unwrap_err();
        let key = key.rsplit('.').next().unwrap();
        assert!(
            matches!(&error, Error::Unsupported(what) if what.contains(key)),
            "{name} {key}: {error}"
        );
    }
}

#[test]
fn a_token_beyond_the_embedding_is_refused() {
    let checkpoint = open(&folder("llama"));
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    let error = forward
        .statistics(&[&[1, 80]], &unwatched)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("token 80 is outside the embedding of 80 rows"),
        "{error}"
    );
}

#[test]
fn weights_that_are_not_finite_are_refused_by_name() {
    let nan = |bytes: &mut [u8]| bytes[..2].copy_from_slice(&[0xc0, 0x7f]);
    let dir = tampered("llama", "model.layers.1.mlp.up_proj.weight", nan);
    let checkpoint = open(dir.path());
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    let error = forward
        .statistics(&[&[1, 2, 3]], &unwatched)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.layers.1.mlp.up_proj.weight holds NaN"),
        "{error}"
    );
    assert!(forward.losses(&[&[1, 2, 3]], &unwatched).is_err());
}
