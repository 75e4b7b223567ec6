//! The forward pass against transformers: every architecture, logits and column norms, on the CPU and on every adapter.
//!
//! `tests/forward/goldens.py` made the checkpoints and computed what is expected.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use swiftprune_wgpu::calibration::Calibration;
use swiftprune_wgpu::calibration::ModelError as Error;
use swiftprune_wgpu::calibration::Text;
use swiftprune_wgpu::checkpoint::{Checkpoint, Config};
use swiftprune_wgpu::device::{Device, DeviceChoice, devices};
use swiftprune_wgpu::evaluation::Windows;
use swiftprune_wgpu::internals::{Architecture, Forward};
use swiftprune_wgpu::norms::{Norms, Provenance};
use swiftprune_wgpu::plan::{Options, Plan, SCORES, Selection};
use swiftprune_wgpu::run::{NormsRequest, Request, run};

/// What transformers computed.
struct Golden {
    tokens: Vec<u32>,
    logits: Vec<f32>,
    /// By the weight's name; of one that holds several experts, theirs one after the other.
    norms: BTreeMap<String, Vec<f32>>,
    /// Of the weights of experts, the tokens that each saw.
    counts: BTreeMap<String, Vec<f32>>,
}

/// The folders that `goldens.py` made.
fn cases() -> Vec<String> {
    let entries = fs::read_dir(folder("")).unwrap().map(Result::unwrap);
    let folders = entries.filter(|entry| entry.path().join("golden.safetensors").is_file());
    let mut names: Vec<String> = folders
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 5, "{names:?}");
    names
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/forward")
        .join(name)
}

fn open(dir: &Path) -> Checkpoint {
    Checkpoint::open(dir.to_str().unwrap()).unwrap()
}

fn cpu(threads: usize) -> Device {
    let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
    cpu.with_threads(Some(threads))
}

/// Calls `check` with the CPU and with every adapter, one after the other: that there are some is for `tests/devices.rs`
/// to require. Software adapters are as good here as hardware, as the models are tiny.
fn on_every_device(check: impl Fn(&Device)) {
    static TURN: Mutex<()> = Mutex::new(());
    check(&cpu(2));
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for info in devices() {
        let index = info.index.expect("an adapter has an index");
        let device = Device::open(&DeviceChoice::Index(index));
        check(&device.unwrap_or_else(|error| panic!("{info}: {error}")));
    }
}

fn golden(name: &str) -> Golden {
    let bytes = fs::read(folder(name).join("golden.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str| -> Vec<f32> {
        bytemuck::pod_collect_to_vec(tensors.tensor(name).unwrap().data())
    };
    let of_weights = |prefix: &str| {
        let named = tensors.names().into_iter();
        let named =
            named.filter_map(|name| Some((name.strip_prefix(prefix)?.to_owned(), values(name))));
        named.collect()
    };
    Golden {
        tokens: values("tokens").into_iter().map(f32::to_bits).collect(),
        logits: values("logits"),
        norms: of_weights("norms."),
        counts: of_weights("counts."),
    }
}

/// The largest difference, in parts of the largest value.
fn difference(expected: &[f32], got: &[f32]) -> f32 {
    assert_eq!(expected.len(), got.len());
    let largest = expected.iter().fold(0.0_f32, |a, b| a.max(b.abs()));
    let differences = expected.iter().zip(got).map(|(a, b)| (a - b).abs());
    let most = differences.fold(0.0, f32::max);
    // An expert that saw nothing has zeros.
    if most == 0.0 { 0.0 } else { most / largest }
}

/// The column norms that a device measures on some sequences, by the weight's name.
fn column_norms(forward: &Forward<'_>, sequences: &[&[u32]]) -> BTreeMap<String, Vec<f32>> {
    measured(forward, sequences).0
}

/// The same, and the tokens that each expert's weights saw.
fn measured(
    forward: &Forward<'_>,
    sequences: &[&[u32]],
) -> (BTreeMap<String, Vec<f32>>, BTreeMap<String, Vec<f32>>) {
    let all: u64 = sequences.iter().map(|sequence| sequence.len() as u64).sum();
    let (mut norms, mut counts) = (BTreeMap::new(), BTreeMap::new());
    for of_site in forward.statistics(sequences, &|_| {}).unwrap() {
        assert_eq!(of_site.column_norms.len(), of_site.site.in_features);
        for weight in of_site.site.readers {
            let of_weight: &mut Vec<f32> = norms.entry(weight.clone()).or_default();
            of_weight.extend(&of_site.column_norms);
            if of_site.site.expert.is_some() {
                let counts: &mut Vec<f32> = counts.entry(weight).or_default();
                counts.push(of_site.tokens as f32);
            } else {
                assert_eq!(of_site.tokens, all);
            }
        }
    }
    (norms, counts)
}

/// Logits' difference, and the worst of the norms'.
fn differences(checkpoint: &Checkpoint, golden: &Golden, device: &Device) -> (f32, f32) {
    let architecture = Architecture::of(checkpoint).unwrap();
    let forward = Forward::new(checkpoint, &architecture, device);
    let logits = forward.logits(&golden.tokens).unwrap();
    let (norms, counts) = measured(&forward, &[&golden.tokens]);
    let known = golden.norms.keys();
    assert!(known.eq(norms.keys()), "all that read, and no others");
    if golden.counts != counts {
        return (f32::INFINITY, f32::INFINITY);
    }
    let worst = golden.norms.iter().map(|(weight, expected)| {
        let got = norms.get(weight);
        difference(
            expected,
            got.unwrap_or_else(|| panic!("no norms for {weight}")),
        )
    });
    (
        difference(&golden.logits, &logits),
        worst.fold(0.0, f32::max),
    )
}

#[test]
fn logits_and_column_norms_are_those_of_transformers() {
    on_every_device(|device| {
        let mut wrong = Vec::new();
        for name in &cases() {
            let golden = golden(name);
            let (logits, norms) = differences(&open(&folder(name)), &golden, device);
            let on = device.info();
            println!("{name} on {on}: logits {logits:.1e}, norms {norms:.1e}");
            if logits >= 1e-3 || norms >= 1e-4 {
                wrong.push(format!("{name} on {on}: logits {logits}, norms {norms}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    });
}

/// A copy of a checkpoint whose tensor `name` was changed by `change`.
fn tampered(from: &str, name: &str, change: fn(&mut [u8])) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        folder(from).join("config.json"),
        dir.path().join("config.json"),
    )
    .unwrap();
    let mut bytes = fs::read(folder(from).join("model.safetensors")).unwrap();
    let range = {
        let (start, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let (begin, end) = metadata.info(name).unwrap().data_offsets;
        start + 8 + begin..start + 8 + end
    };
    change(&mut bytes[range]);
    fs::write(dir.path().join("model.safetensors"), bytes).unwrap();
    dir
}

#[test]
fn one_weight_that_was_tampered_with_is_noticed() {
    // The sign of a single weight, of two bytes or of four.
    let flip: [fn(&mut [u8]); 2] = [|bytes| bytes[1] ^= 0x80, |bytes| bytes[3] ^= 0x80];
    on_every_device(|device| {
        for (architecture, tensor, flip) in [
            ("llama", "model.layers.0.self_attn.k_proj.weight", flip[0]),
            ("mistral", "model.layers.1.mlp.down_proj.weight", flip[0]),
            ("qwen2", "model.layers.1.self_attn.q_proj.bias", flip[0]),
            ("qwen3", "model.layers.0.self_attn.k_norm.weight", flip[0]),
            (
                "mixtral",
                "model.layers.1.block_sparse_moe.experts.2.w3.weight",
                flip[0],
            ),
            (
                "deepseek_v3",
                "model.layers.0.self_attn.kv_a_proj_with_mqa.weight",
                flip[0],
            ),
            (
                "granitemoe",
                "model.layers.1.block_sparse_moe.output_linear.weight",
                flip[0],
            ),
            ("gpt_oss", "model.layers.0.self_attn.sinks", flip[0]),
            (
                "gpt_oss",
                "model.layers.1.mlp.experts.gate_up_proj_bias",
                flip[0],
            ),
            (
                "gpt_neox",
                "gpt_neox.layers.0.attention.query_key_value.weight",
                flip[1],
            ),
            ("gpt2", "transformer.h.0.attn.c_attn.bias", flip[0]),
            (
                "bloom",
                "transformer.word_embeddings_layernorm.bias",
                flip[0],
            ),
            ("phi", "lm_head.bias", flip[0]),
        ] {
            let dir = tampered(architecture, tensor, flip);
            let (logits, norms) = differences(&open(dir.path()), &golden(architecture), device);
            let on = device.info();
            assert!(
                logits > 1e-3 || norms > 1e-4,
                "{architecture} {tensor} on {on}: {logits}, {norms}"
            );
        }
    });
}

#[test]
fn losses_are_those_of_the_logits() {
    on_every_device(|device| {
        for name in &cases() {
            let golden = golden(name);
            let checkpoint = open(&folder(name));
            let architecture = Architecture::of(&checkpoint).unwrap();
            let forward = Forward::new(&checkpoint, &architecture, device);
            let losses = forward
                .losses(&[&golden.tokens, &golden.tokens[..1]], &|_| {})
                .unwrap();
            let rows = golden.logits.chunks(architecture.vocab_size);
            let expected: Vec<f32> = rows
                .zip(&golden.tokens[1..])
                .map(|(row, &next)| {
                    let sum: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                    (sum.ln() - f64::from(row[next as usize])) as f32
                })
                .collect();
            let difference = difference(&expected, &losses[0]);
            assert!(
                difference < 1e-4,
                "{name} on {}: {difference}",
                device.info()
            );
            assert!(losses[1].is_empty(), "the first token has no loss");
        }
    });
}

/// The llama checkpoint with its weights in f16, which holds these bf16 values exactly.
fn in_f16() -> tempfile::TempDir {
    let dir = tampered("llama", "model.norm.weight", |_| {});
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let halves: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, tensor)| {
            let values: Vec<half::bf16> = bytemuck::pod_collect_to_vec(tensor.data());
            let halves: Vec<half::f16> = values
                .iter()
                .map(|value| half::f16::from_f32(value.to_f32()))
                .collect();
            let bytes = bytemuck::pod_collect_to_vec(&halves);
            (name.to_owned(), tensor.shape().to_vec(), bytes)
        })
        .collect();
    let views = halves.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(safetensors::Dtype::F16, shape.clone(), bytes);
        (name, view.unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    dir
}

#[test]
fn weights_in_f16_give_what_those_in_bf16_do() {
    let (dir, golden) = (in_f16(), golden("llama"));
    on_every_device(|device| {
        let (logits, norms) = differences(&open(dir.path()), &golden, device);
        // Values below 2^-24 are lost.
        assert!(logits < 1e-5 && norms < 1e-5, "{logits}, {norms}");
    });
}

/// Whether a model runs on more tokens than it was made for, as those do that have no table of positions.
fn runs_beyond_its_context(name: &str) -> bool {
    !(name == "opt" || name.starts_with("gpt2") || name.starts_with("gpt_bigcode"))
}

#[test]
fn a_sequence_longer_than_the_table_of_positions_is_refused() {
    let checkpoint = open(&folder("opt"));
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    assert!(forward.losses(&[&[1; 64]], &|_| {}).is_ok());
    let error = forward.losses(&[&[1; 65]], &|_| {}).unwrap_err();
    let says = "a sequence of 65 tokens is longer than the 64 positions";
    assert!(error.to_string().contains(says), "{error}");
}

/// Longer than a tile of any kernel, and no multiple of one.
#[test]
fn an_adapter_measures_what_the_cpu_does_on_sequences_longer_than_a_tile() {
    for name in &cases() {
        let checkpoint = open(&folder(name));
        let architecture = Architecture::of(&checkpoint).unwrap();
        // Learned positions end.
        let longest = if runs_beyond_its_context(name) {
            150
        } else {
            64
        };
        let texts = [longest, 33, 1];
        let texts =
            texts.map(|len| -> Vec<u32> { (0..len).map(|i| (i * i * 7 + 3) % 80).collect() });
        let sequences: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let reference = cpu(2);
        let expected = Forward::new(&checkpoint, &architecture, &reference);
        let norms = column_norms(&expected, &sequences);
        let losses = expected.losses(&sequences, &|_| {}).unwrap();
        on_every_device(|device| {
            let forward = Forward::new(&checkpoint, &architecture, device);
            let got = column_norms(&forward, &sequences);
            assert_eq!(got.len(), norms.len());
            for (weight, expected) in &norms {
                let difference = difference(expected, &got[weight]);
                let on = device.info();
                assert!(difference < 1e-4, "{weight} on {on}: {difference}");
            }
            let got = forward.losses(&sequences, &|_| {}).unwrap();
            let difference = difference(&losses.concat(), &got.concat());
            assert!(
                difference < 1e-4,
                "{name} on {}: {difference}",
                device.info()
            );
        });
    }
}

#[test]
fn column_norms_of_a_text_are_the_sum_of_those_of_its_pieces() {
    let checkpoint = open(&folder("llama"));
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(2);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    let tokens = golden("llama").tokens;
    let pieces: Vec<&[u32]> = tokens.chunks(10).collect();
    let whole = column_norms(&forward, &pieces);
    for weight in [
        "model.layers.1.mlp.down_proj.weight",
        "model.layers.0.self_attn.o_proj.weight",
    ] {
        let mut sum = vec![0.0; whole[weight].len()];
        for piece in &pieces {
            let norms = column_norms(&forward, &[piece]);
            sum.iter_mut()
                .zip(&norms[weight])
                .for_each(|(sum, norm)| *sum += norm);
        }
        assert!(difference(&sum, &whole[weight]) < 1e-6);
    }
}

/// A case with these keys in its config.json, without those.
fn case_with(name: &str, keys: &serde_json::Value, without: &[&str]) -> Checkpoint {
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
fn logits_with(name: &str, keys: &serde_json::Value, without: &[&str]) -> Result<Vec<f32>, Error> {
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
        ("gemma2", json!({}), &["layer_types"][..]),
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

/// That the goldens show what is special about a family: without it they are another model's.
#[test]
fn what_is_special_about_a_family_matters() {
    use serde_json::json;

    for (name, keys) in [
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
fn what_a_family_may_have_and_this_does_not_run_is_refused() {
    use serde_json::json;

    for (name, keys, says) in [
        ("stablelm", json!({"qk_layernorm": true}), "qk_layernorm"),
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
fn a_sequence_beyond_what_dynamic_scaling_was_trained_for_is_refused() {
    let keys = serde_json::json!({"max_position_embeddings": 20});
    let checkpoint = case_with("seed_oss", &keys, &[]);
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    assert!(forward.logits(&[1; 20]).is_ok());
    let error = forward.logits(&[1; 21]).unwrap_err().to_string();
    assert!(
        error.contains("a sequence of 21 tokens is too long"),
        "{error}"
    );
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
    for (key, value) in [("model_type", "mamba"), ("hidden_act", "prelu")] {
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
        ("opt", "do_layer_norm_before", json!(false)),
        ("opt", "_remove_final_layer_norm", json!(true)),
        ("opt", "layer_norm_elementwise_affine", json!(false)),
        ("opt", "word_embed_proj_dim", json!(32)),
        ("gpt2", "add_cross_attention", json!(true)),
        (
            "bloom",
            "apply_residual_connection_post_layernorm",
            json!(true),
        ),
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

#[test]
fn a_token_beyond_the_embedding_is_refused() {
    let checkpoint = open(&folder("llama"));
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    let error = forward
        .statistics(&[&[1, 80]], &|_| {})
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
        .statistics(&[&[1, 2, 3]], &|_| {})
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.layers.1.mlp.down_proj.weight"),
        "{error}"
    );
    assert!(forward.losses(&[&[1, 2, 3]], &|_| {}).is_err());
}

/// A tensor's shape and values.
fn values(file: &Path, name: &str) -> (Vec<usize>, Vec<f32>) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = tensors.tensor(name).unwrap();
    let halves = || -> Vec<u16> { bytemuck::pod_collect_to_vec(tensor.data()) };
    let values = match tensor.dtype() {
        safetensors::Dtype::F32 => bytemuck::pod_collect_to_vec(tensor.data()),
        safetensors::Dtype::F16 => {
            let of = |bits| half::f16::from_bits(bits).to_f32();
            halves().into_iter().map(of).collect()
        }
        _ => {
            let of = |bits| half::bf16::from_bits(bits).to_f32();
            halves().into_iter().map(of).collect()
        }
    };
    (tensor.shape().to_vec(), values)
}

/// What is measured of a model is what is pruned of it, and by the axis that the norms are of.
#[test]
fn every_output_neuron_of_every_layer_loses_its_weakest_inputs() {
    let wanda = SCORES.iter().find(|score| score.name == "wanda").unwrap();
    for name in &cases() {
        let golden = golden(name);
        let dir = tempfile::tempdir().unwrap();
        let norms = dir.path().join("norms.safetensors");
        let views = golden.norms.iter().map(|(weight, norms)| {
            let (stored, _) = values(&folder(name).join("model.safetensors"), weight);
            // A row for each expert of a tensor that holds several.
            let shape = match stored[..] {
                [experts, _, _] => vec![experts, norms.len() / experts],
                _ => vec![norms.len()],
            };
            let bytes = bytemuck::cast_slice(norms);
            let view = TensorView::new(safetensors::Dtype::F32, shape, bytes);
            (weight, view.unwrap())
        });
        fs::write(&norms, safetensors::serialize(views, None).unwrap()).unwrap();
        let mut options = Options::new(Selection::Exact { sparsity: 0.5 });
        options.score = Some(wanda);
        let mut request = Request::new(folder(name).to_str().unwrap(), options);
        request.norms = NormsRequest::Read(norms);
        request.output = Some(dir.path().join("pruned"));
        request.device = DeviceChoice::Cpu;
        let report = run(request, &|_| ()).unwrap();
        let mut weights = 0;
        for (weight, norms) in &golden.norms {
            let (shape, before) = values(&folder(name).join("model.safetensors"), weight);
            let (_, after) = values(&report.output.join("model.safetensors"), weight);
            weights += after.len();
            let in_out = name == "gpt2" || (name == "gpt_oss" && shape.len() == 3);
            let (experts, rows, columns) = match shape[..] {
                [experts, rows, columns] => (experts, rows, columns),
                _ => (1, shape[0], shape[1]),
            };
            let (neurons, inputs) = match in_out {
                true => (columns, rows),
                false => (rows, columns),
            };
            assert_eq!(experts * inputs, norms.len(), "{name} {weight}");
            for neuron in 0..experts * neurons {
                let (expert, of_expert) = (neuron / neurons, neuron % neurons);
                let (mut zeros, mut largest, mut smallest) = (0, 0.0_f32, f32::INFINITY);
                for (input, norm) in norms[expert * inputs..][..inputs].iter().enumerate() {
                    let at = expert * rows * columns
                        + match in_out {
                            true => input * columns + of_expert,
                            false => of_expert * columns + input,
                        };
                    let score = before[at].abs() * norm.sqrt();
                    if after[at] == 0.0 {
                        zeros += 1;
                        largest = largest.max(score);
                    } else {
                        smallest = smallest.min(score);
                    }
                }
                assert_eq!(zeros, inputs / 2, "{name} {weight}, neuron {neuron}");
                assert!(
                    largest <= smallest * 1.0001,
                    "{name} {weight}, neuron {neuron}"
                );
            }
        }
        assert_eq!(report.prunable.weights, weights as u64, "{name}");
    }
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama")
}

fn text(content: &'static str) -> Text {
    Text::new("a text", content)
}

#[test]
fn a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused() {
    let dir = tampered("llama", "model.norm.weight", |_| {});
    let tokenizer = example().join("tokenizer.json");
    fs::copy(tokenizer, dir.path().join("tokenizer.json")).unwrap();
    let checkpoint = open(dir.path());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 100, None).unwrap();
    let error = calibration.run(&checkpoint, &cpu(1), &|_| {}).unwrap_err();
    let says = "tokenizer.json belongs to another model than the weights";
    assert!(error.to_string().contains(says), "{error}");
}

#[test]
fn norms_say_what_they_were_measured_on() {
    let checkpoint = open(&example());
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 700, Some(300)).unwrap();
    let norms = calibration.run(&checkpoint, &cpu(2), &|_| {}).unwrap();
    let path = tempfile::tempdir().unwrap();
    let path = path.path().join("norms.safetensors");
    norms.write(&path).unwrap();
    let read = Norms::read(&path).unwrap();
    assert_eq!(read.source.tokens, Some(700));
    assert_eq!(read.source.metadata["context"], "300");
    assert_eq!(read.source.metadata["text"], "built-in calibration text");
    assert_eq!(
        read.source.metadata["text_sha256"],
        Text::calibration().sha256()
    );
    assert_eq!(
        read.len(),
        4 * 7,
        "a vector for every linear weight of the blocks"
    );
}

#[test]
fn a_text_longer_than_the_context_goes_in_windows_and_a_shorter_one_is_one() {
    let checkpoint = open(&example());
    let run = |text: &Text, context, tokens| {
        Windows::new(&checkpoint, text, context, tokens)?.run(&checkpoint, &cpu(2), &|_| {})
    };
    let long = run(&Text::held_out(), Some(64), Some(200)).unwrap();
    assert_eq!((long.losses.len(), long.tokens()), (3, 3 * 63));
    let short = run(&text("In the beginning was the Word"), None, None).unwrap();
    assert_eq!((short.context, short.losses.len()), (512, 1));
    assert!(short.tokens() < 20);
    let error = run(&text("a"), None, None).unwrap_err().to_string();
    assert!(error.contains("a text has 1 tokens"), "{error}");
}

#[test]
fn threads_do_not_change_what_a_model_is_surprised_by() {
    let checkpoint = open(&example());
    let run = |threads| {
        let text = Text::held_out();
        let windows = Windows::new(&checkpoint, &text, Some(128), Some(512)).unwrap();
        windows.run(&checkpoint, &cpu(threads), &|_| {}).unwrap()
    };
    let difference = run(1).difference(&run(3)).unwrap();
    assert!(difference.mean.abs() < 1e-5, "{difference:?}");
}

#[test]
fn the_example_is_as_surprised_by_its_held_out_text_as_when_it_was_made() {
    let checkpoint = open(&example());
    let text = Text::read(&example().join("heldout.txt")).unwrap();
    let windows = Windows::new(&checkpoint, &text, Some(256), None).unwrap();
    let evaluation = windows.run(&checkpoint, &cpu(2), &|_| {}).unwrap();
    // Its README says 33.8, measured in Python when it was trained.
    assert!(
        (evaluation.perplexity() - 33.8).abs() < 0.1,
        "{}",
        evaluation.perplexity()
    );
    assert_eq!(evaluation.losses.len(), 47);
}

#[test]
fn what_is_pruned_is_what_is_measured() {
    for name in &cases() {
        let checkpoint = open(&folder(name));
        let architecture = Architecture::of(&checkpoint).unwrap();
        let device = cpu(2);
        let forward = Forward::new(&checkpoint, &architecture, &device);
        let mut norms = Norms::new(Provenance::measured(folder(name), None));
        let (values, counts) = measured(&forward, &[&golden(name).tokens]);
        for (weight, values) in &values {
            match counts.get(weight) {
                None => norms.insert(weight, values.clone()).unwrap(),
                Some(counts) => {
                    let tokens = counts.iter().map(|&count| count as u64).collect();
                    norms
                        .insert_experts(weight, values.clone(), tokens)
                        .unwrap();
                }
            }
        }
        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        let plan = Plan::new(open(&folder(name)), options, Some(norms)).unwrap();
        let mut pruned: Vec<&str> = plan.pruned().map(|(t, _)| t.name.as_str()).collect();
        pruned.sort_unstable();
        assert!(values.keys().eq(pruned), "{name}");
        // 32 tokens, of which hardly an expert sees all.
        let few = plan.warnings().iter().any(|warning| {
            warning.contains("experts saw fewer than 32 tokens: their layer's mean was used")
        });
        assert_eq!(few, !counts.is_empty(), "{name}: {:?}", plan.warnings());
    }
}

/// The qwen3_moe checkpoint with its experts as transformers 5 has them in memory: two tensors a block.
fn with_joined_experts() -> tempfile::TempDir {
    let dir = tampered("qwen3_moe", "model.norm.weight", |_| {});
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let data = |name: &str| tensors.tensor(name).unwrap().data().to_vec();
    let mut all: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .filter(|(name, _)| !name.contains(".experts."))
        .map(|(name, tensor)| (name.to_owned(), tensor.shape().to_vec(), data(name)))
        .collect();
    for block in 0..2 {
        let of = |layers: &[&str]| -> Vec<u8> {
            let experts = (0..6).flat_map(|expert| layers.iter().map(move |l| (expert, l)));
            let module = format!("model.layers.{block}.mlp.experts");
            let parts = experts.map(|(expert, l)| data(&format!("{module}.{expert}.{l}.weight")));
            parts.flatten().collect()
        };
        let name = |layer| format!("model.layers.{block}.mlp.experts.{layer}");
        let gate_up = of(&["gate_proj", "up_proj"]);
        all.push((name("gate_up_proj"), vec![6, 32, 64], gate_up));
        all.push((name("down_proj"), vec![6, 64, 16], of(&["down_proj"])));
    }
    let views = all.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(safetensors::Dtype::BF16, shape.clone(), bytes);
        (name, view.unwrap())
    });
    fs::write(&path, safetensors::serialize(views, None).unwrap()).unwrap();
    dir
}

#[test]
fn experts_in_one_tensor_are_those_with_one_each() {
    let dir = with_joined_experts();
    let checkpoint = open(dir.path());
    let architecture = Architecture::of(&checkpoint).unwrap();
    let golden = golden("qwen3_moe");
    let device = cpu(2);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    let logits = forward.logits(&golden.tokens).unwrap();
    assert!(difference(&golden.logits, &logits) < 1e-3);
    let (norms, counts) = measured(&forward, &[&golden.tokens]);
    for (joined, layer, features) in [
        ("gate_up_proj", "up_proj", 64),
        ("down_proj", "down_proj", 16),
    ] {
        let name = format!("model.layers.1.mlp.experts.{joined}");
        let rows = norms[&name].chunks_exact(features).zip(&counts[&name]);
        assert_eq!(rows.len(), 6);
        for (expert, (row, &count)) in rows.enumerate() {
            let single = format!("model.layers.1.mlp.experts.{expert}.{layer}.weight");
            assert!(difference(&golden.norms[&single], row) < 1e-4);
            assert_eq!(golden.counts[&single], [count]);
        }
    }
}
