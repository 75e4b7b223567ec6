//! The forward pass against transformers: every architecture, logits and column norms, on the CPU and on every adapter.
//!
//! `tests/forward/goldens.py` made the checkpoints and computed what is expected.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use swiftprune_wgpu::calibration::Calibration;
use swiftprune_wgpu::calibration::ModelError as Error;
use swiftprune_wgpu::calibration::Text;
use swiftprune_wgpu::calibration::unwatched;
use swiftprune_wgpu::checkpoint::{Checkpoint, Config};
use swiftprune_wgpu::device::{Device, DeviceChoice, devices};
use swiftprune_wgpu::evaluation::Windows;
use swiftprune_wgpu::internals::{Architecture, Forward};
use swiftprune_wgpu::norms::{Lookup, Norms, Provenance};
use swiftprune_wgpu::plan::{DenseReason, Options, Plan, SCORES, Selection};
use swiftprune_wgpu::run::{NormsRequest, Request, run};

mod configurations;
mod pruning;
mod recurrences;
mod refusals;
mod sketches;
mod texts;

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
    let _turn = TURN.lock();
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
    for of_site in forward.statistics(sequences, &unwatched).unwrap() {
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
            ("apertus", "model.layers.1.mlp.act_fn.alpha_n", flip[0]),
            ("lfm2", "model.layers.0.conv.conv.bias", flip[0]),
            ("mamba", "backbone.layers.0.mixer.A_log", flip[0]),
            ("jamba", "model.layers.0.mamba.b_layernorm.weight", flip[0]),
            ("bamba", "model.layers.0.mamba.dt_bias", flip[0]),
            ("falcon_h1", "model.layers.1.mamba.D", flip[0]),
            (
                "qwen3_next",
                "model.layers.0.linear_attn.conv1d.weight",
                flip[0],
            ),
            ("dbrx", "transformer.blocks.1.ffn.experts.mlp.w2", flip[0]),
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
                .losses(&[&golden.tokens, &golden.tokens[..1]], &unwatched)
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
    let ends = ["opt", "gpt2", "gpt_bigcode", "gpt_neo"];
    let family = name.split('-').next().unwrap_or(name);
    // Beyond its trained length nobody knows how the heads of a Phi 3.5 MoE turn.
    !ends.contains(&family) && name != "phimoe"
}

#[test]
fn a_sequence_longer_than_the_table_of_positions_is_refused() {
    let checkpoint = open(&folder("opt"));
    let architecture = Architecture::of(&checkpoint).unwrap();
    let device = cpu(1);
    let forward = Forward::new(&checkpoint, &architecture, &device);
    assert!(forward.losses(&[&[1; 64]], &unwatched).is_ok());
    let error = forward.losses(&[&[1; 65]], &unwatched).unwrap_err();
    let says = "a window of 65 tokens is longer than the 64 positions";
    assert!(error.to_string().contains(says), "{error}");
}

/// Sequences for a case: longer than a tile of any kernel, and no multiple of one.
fn long_sequences(name: &str) -> [Vec<u32>; 3] {
    // Learned positions end.
    let longest = if runs_beyond_its_context(name) {
        150
    } else {
        64
    };
    [longest, 33, 1].map(|len| (0..len).map(|i| (i * i * 7 + 3) % 80).collect())
}

#[test]
fn an_adapter_measures_what_the_cpu_does_on_sequences_longer_than_a_tile() {
    let measure = |name: &str, device: &Device| {
        let checkpoint = open(&folder(name));
        let architecture = Architecture::of(&checkpoint).unwrap();
        let forward = Forward::new(&checkpoint, &architecture, device);
        let texts = long_sequences(name);
        let sequences: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let losses = forward.losses(&sequences, &unwatched).unwrap();
        (column_norms(&forward, &sequences), losses.concat())
    };
    let expected: Vec<_> = (cases().into_iter())
        .map(|name| (measure(&name, &cpu(2)), name))
        .collect();
    // A device is opened once for all cases.
    on_every_device(|device| {
        for ((norms, losses), name) in &expected {
            let (got, got_losses) = measure(name, device);
            let on = device.info();
            assert_eq!(got.len(), norms.len());
            for (weight, expected) in norms {
                let difference = difference(expected, &got[weight]);
                assert!(difference < 1e-4, "{weight} on {on}: {difference}");
            }
            let difference = difference(losses, &got_losses);
            assert!(difference < 1e-4, "{name} on {on}: {difference}");
        }
    });
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

#[test]
fn the_mean_of_one_token_is_the_root_of_its_norm_and_that_of_a_text_is_the_mean_of_its_pieces() {
    for name in ["llama", "gpt2", "mixtral"] {
        let checkpoint = open(&folder(name));
        let architecture = Architecture::of(&checkpoint).unwrap();
        let tokens = &golden(name).tokens[..6];
        on_every_device(|device| {
            let forward = Forward::new(&checkpoint, &architecture, device).with_means(true);
            let statistics =
                |sequences: &[&[u32]]| forward.statistics(sequences, &unwatched).unwrap();
            let (mut sums, mut counts) = (BTreeMap::new(), BTreeMap::new());
            for token in tokens {
                for of_site in statistics(&[std::slice::from_ref(token)]) {
                    let means = of_site.means.unwrap();
                    let squares: Vec<f32> = means.iter().map(|mean| mean * mean).collect();
                    assert!(difference(&of_site.column_norms, &squares) < 1e-6);
                    let site = (of_site.site.readers[0].clone(), of_site.site.expert);
                    let sum: &mut Vec<f32> = sums.entry(site.clone()).or_default();
                    sum.resize(means.len(), 0.0);
                    sum.iter_mut()
                        .zip(&means)
                        .for_each(|(sum, mean)| *sum += mean * of_site.tokens as f32);
                    *counts.entry(site).or_insert(0) += of_site.tokens;
                }
            }
            let alone: Vec<&[u32]> = tokens.chunks(1).collect();
            for of_site in statistics(&alone) {
                let site = (of_site.site.readers[0].clone(), of_site.site.expert);
                assert_eq!(of_site.tokens, counts[&site]);
                let mean = |sum: &f32| sum / of_site.tokens.max(1) as f32;
                let expected: Vec<f32> = sums[&site].iter().map(mean).collect();
                let found = difference(&expected, &of_site.means.unwrap());
                assert!(found < 1e-5, "{site:?} on {}: {found}", device.info());
            }
            // Not asked for, they are not there.
            let without = Forward::new(&checkpoint, &architecture, device);
            let without = without.statistics(&[tokens], &unwatched).unwrap();
            assert!(without.iter().all(|of_site| of_site.means.is_none()));
        });
    }
}
