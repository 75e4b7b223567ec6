//! `inspect` counts what a simple count gives, and opens what `prune` refuses.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Output;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};

use crate::place::{example, program, prune, stderr};

fn run(model: &Path, options: &[&str]) -> Output {
    program()
        .arg("inspect")
        .arg(model)
        .args(options)
        .output()
        .unwrap()
}

fn inspect(model: &Path, options: &[&str]) -> Value {
    let output = run(model, &[&["--json"], options].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn tensor<'a>(inspection: &'a Value, name: &str) -> &'a Value {
    let tensors = inspection["tensors"].as_array().unwrap();
    tensors
        .iter()
        .find(|tensor| tensor["name"] == name)
        .unwrap()
}

/// A file of weights.
fn write(path: &Path, tensors: &[(&str, Dtype, Vec<usize>, Vec<u8>)]) {
    let views: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| {
            (
                *name,
                TensorView::new(*dtype, shape.clone(), bytes).unwrap(),
            )
        })
        .collect();
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The statistics of a bf16 matrix, weight by weight in f64.
fn simple(bytes: &[u8], width: usize) -> (u64, u64, f64, f64, f64, Vec<String>) {
    let weights: Vec<f64> = bytes
        .chunks_exact(2)
        .map(|two| {
            f64::from(f32::from_bits(
                u32::from(u16::from_le_bytes([two[0], two[1]])) << 16,
            ))
        })
        .collect();
    let finite: Vec<f64> = weights
        .iter()
        .map(|w| w.abs())
        .filter(|w| w.is_finite())
        .collect();
    let non_finite = (weights.len() - finite.len()) as u64;
    let zeros = weights.iter().filter(|&&w| w == 0.0).count() as u64;
    let least = finite.iter().copied().fold(f64::INFINITY, f64::min);
    let largest = finite.iter().copied().fold(0.0, f64::max);
    let mean = finite.iter().sum::<f64>() / finite.len() as f64;
    let mut patterns = Vec::new();
    for m in [2, 4, 8, 16, 32] {
        let rows = weights.chunks(width);
        let groups = rows.flat_map(|row| row.chunks(m));
        let live = groups.map(|group| group.iter().filter(|&&w| w != 0.0).count());
        let n = live.max().unwrap();
        if n >= 1 && n < m {
            patterns.push(format!("{n}:{m}"));
        }
    }
    (zeros, non_finite, least, mean, largest, patterns)
}

#[test]
fn every_number_is_that_of_a_simple_count() {
    let dir = tempfile::tempdir().unwrap();
    // Some weights of the last tensor are not finite.
    let model = example(dir.path(), |name, bytes| {
        if name == "model.norm.weight" {
            bytes[..2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
            bytes[4..6].copy_from_slice(&0xff80_u16.to_le_bytes());
        }
    });
    let out = dir.path().join("out");
    let options = [
        "--calibration",
        "none",
        "--pattern",
        "2:4",
        "--exclude",
        "*.1.*",
    ];
    let done = prune(&model, &out, &options);
    assert!(done.status.success(), "{}", stderr(&done));
    for model in [&model, &out] {
        let found = inspect(model, &["--threads", "2"]);
        let bytes = fs::read(model.join("model.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(found["tensors"].as_array().unwrap().len(), tensors.len());
        let (mut zeros, mut patterns) = (0, 0);
        for (name, view) in tensors.iter() {
            let width = *view.shape().last().unwrap();
            let mut expected = simple(view.data(), width);
            let row = tensor(&found, name);
            if view.shape().len() == 1 {
                expected.5.clear();
            }
            let all = &row["statistics"];
            assert_eq!(all["zeros"], expected.0, "{name}");
            assert_eq!(all["non_finite"], expected.1, "{name}");
            assert_eq!(all["min"], expected.2, "{name}");
            let mean = all["mean"].as_f64().unwrap();
            assert!(
                (mean / expected.3 - 1.0).abs() < 1e-6,
                "{name}: {mean} {}",
                expected.3
            );
            assert_eq!(all["max"], expected.4, "{name}");
            assert_eq!(all["patterns"], json!(expected.5), "{name}");
            assert_eq!(row["shape"], json!(view.shape()), "{name}");
            zeros += expected.0;
            patterns += usize::from(all["patterns"][0] == "2:4");
        }
        assert_eq!(found["all"]["zeros"], zeros);
        assert_eq!(found["all"]["non_finite"], 2);
        assert_eq!(patterns, if model == &out { 21 } else { 0 });
        assert_eq!(found["prunable"]["tensors"], 28);
        assert_eq!(found["refused"], Value::Null);
        assert_eq!(found["calibrates"]["can"], true);
        assert_eq!(found["evaluates"]["can"], true);
    }
}

#[test]
fn a_pattern_of_a_matrix_stored_by_columns_is_found() {
    let dir = tempfile::tempdir().unwrap();
    // GPT-2 stores its matrices by columns.
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forward/gpt2");
    let out = dir.path().join("out");
    let done = prune(&model, &out, &["--calibration", "none", "--pattern", "2:4"]);
    assert!(done.status.success(), "{}", stderr(&done));
    for (model, holds) in [(&model, false), (&out, true)] {
        let found = inspect(model, &[]);
        let tensors = found["tensors"].as_array().unwrap();
        let pruned = || tensors.iter().filter(|tensor| tensor["action"] == "prune");
        assert!(pruned().count() >= 4, "{tensors:?}");
        for tensor in pruned() {
            let patterns = tensor["statistics"]["patterns"].as_array().unwrap();
            assert_eq!(patterns.contains(&"2:4".into()), holds, "{tensor}");
        }
    }
}

#[test]
fn what_prune_refuses_is_opened_and_the_reason_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    // Quantised, as config.json says.
    let path = model.join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config["quantization_config"] = json!({"quant_method": "gptq", "bits": 4});
    fs::write(&path, config.to_string()).unwrap();
    let found = inspect(&model, &[]);
    assert!(
        found["refused"].as_str().unwrap().contains("gptq"),
        "{}",
        found["refused"]
    );
    assert_eq!(found["tensors"].as_array().unwrap().len(), 38);
    let refused = prune(&model, &dir.path().join("out"), &["--calibration", "none"]);
    assert!(!refused.status.success() && stderr(&refused).contains("gptq"));

    // A dtype that cannot be pruned, and one that is not counted.
    let file = dir.path().join("odd.safetensors");
    let name = "model.layers.0.self_attn.q_proj.weight";
    write(
        &file,
        &[
            (
                name,
                Dtype::F8_E4M3,
                vec![2, 4],
                vec![0x38, 0, 0xb8, 0x40, 0, 0, 0x7f, 0],
            ),
            ("mask", Dtype::BOOL, vec![3], vec![1, 0, 1]),
        ],
    );
    let found = inspect(&file, &[]);
    let row = tensor(&found, name);
    assert_eq!(row["action"], "refuse");
    assert!(
        row["because"].as_str().unwrap().contains("F8_E4M3"),
        "{row}"
    );
    let all = &row["statistics"];
    assert_eq!((&all["zeros"], &all["non_finite"]), (&json!(4), &json!(1)));
    assert_eq!((&all["min"], &all["max"]), (&json!(0.0), &json!(2.0)));
    assert!(found["refused"].as_str().unwrap().contains("F8_E4M3"));
    assert_eq!(tensor(&found, "mask")["statistics"], Value::Null);
    assert_eq!(found["calibrates"]["can"], false);
}

#[test]
fn globs_choose_tensors_and_one_that_matches_nothing_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let found = inspect(&model, &["--include", "*down_proj*", "--exclude", "*.2.*"]);
    let tensors = found["tensors"].as_array().unwrap();
    let mut names: HashMap<&str, &Value> = HashMap::new();
    for tensor in tensors {
        names.insert(tensor["name"].as_str().unwrap(), tensor);
    }
    assert_eq!(names.len(), 3);
    assert!(names.contains_key("model.layers.0.mlp.down_proj.weight"));
    assert_eq!(found["all"]["tensors"], 3);
    let refused = run(&model, &["--include", "*nothing*"]);
    assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
    assert!(stderr(&refused).contains("`*nothing*`"));
}

#[test]
fn the_table_fits_80_columns() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let output = run(&model, &["--include", "*layers.0.*", "--include", "*norm*"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.lines();
    // The place of the model is as long as it is.
    assert!(lines.next().unwrap().starts_with("model"));
    for line in lines {
        assert!(line.chars().count() <= 80, "{line}");
    }
    assert!(
        text.contains("model.layers.0.mlp.down_proj.weight\n  prune  BF16   192x512"),
        "{text}"
    );
}

/// The example with an index that names more tensors than there are, and what a command says of it.
struct Indexed {
    dir: tempfile::TempDir,
}

impl Indexed {
    fn new(absent: &[&str], config: impl FnOnce(&mut Value)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama");
        for name in ["tokenizer.json", "model.safetensors"] {
            fs::copy(from.join(name), dir.path().join(name)).unwrap();
        }
        let json = fs::read(from.join("config.json")).unwrap();
        let mut json: Value = serde_json::from_slice(&json).unwrap();
        config(&mut json);
        fs::write(dir.path().join("config.json"), json.to_string()).unwrap();
        let model = fs::read(dir.path().join("model.safetensors")).unwrap();
        let there = safetensors::SafeTensors::deserialize(&model).unwrap();
        let names = there.names().into_iter().chain(absent.iter().copied());
        let map: HashMap<&str, &str> = names.map(|name| (name, "model.safetensors")).collect();
        let index = json!({"metadata": {"total_size": 7}, "weight_map": map});
        let path = dir.path().join("model.safetensors.index.json");
        fs::write(path, index.to_string()).unwrap();
        Self { dir }
    }

    fn run(&self, command: &str) -> Output {
        let place = self.dir.path().to_str().unwrap();
        let words = command.split(' ').map(|word| word.replace("MODEL", place));
        program().args(words).output().unwrap()
    }
}

const PRUNE: &str = "prune MODEL -o MODEL-out --calibration none --device cpu --verify";
const EVAL: &str = "eval MODEL --device cpu --tokens 32 --context 16";

#[test]
fn a_tensor_that_is_only_in_the_index_is_told_where_nothing_needs_it() {
    let idle = [
        "mtp.layers.0.mlp.up_proj.weight",
        "mtp.norm.weight",
        "lm_head.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq",
        "visual.patch_embed.proj.weight",
    ];
    for name in idle {
        let model = Indexed::new(&[name], |_| ());
        for command in [PRUNE, "verify MODEL MODEL-out", EVAL] {
            let done = model.run(command);
            assert_eq!(done.status.code(), Some(0), "{name}: {}", stderr(&done));
            assert!(stderr(&done).contains(name), "{name}: {}", stderr(&done));
        }
        let inspection = inspect(model.dir.path(), &[]);
        let warning = inspection["warnings"][0].as_str().unwrap();
        assert!(warning.contains(name), "{warning}");
        assert_eq!(inspection["refused"], Value::Null);
        fs::remove_dir_all(format!("{}-out", model.dir.path().display())).unwrap();
    }
}

#[test]
fn a_tensor_that_is_only_in_the_index_is_an_error_where_the_decoder_needs_it() {
    let untied = |config: &mut Value| config["tie_word_embeddings"] = json!(false);
    let unknown = |config: &mut Value| config["model_type"] = json!("nobody-knows");
    let same = |_: &mut Value| ();
    let refused = |name: &str, config: &dyn Fn(&mut Value)| {
        let model = Indexed::new(&[name], config);
        for command in [PRUNE, EVAL] {
            let done = model.run(command);
            assert_eq!(done.status.code(), Some(1), "{name} {command}");
            if command == PRUNE {
                let says = format!("tensor `{name}` is in no shard");
                assert!(stderr(&done).contains(&says), "{}", stderr(&done));
            }
        }
        // It is shown all the same.
        let inspection = inspect(model.dir.path(), &[]);
        assert!(inspection["refused"].as_str().unwrap().contains(name));
    };
    refused("lm_head.weight", &untied);
    refused("model.layers.1.mlp.up_proj.bias", &unknown);
    refused("model.layers.1.self_attn.more.weight", &unknown);
    // What a model of its kind may have, and this one has not.
    let model = Indexed::new(&["model.layers.1.self_attn.more.weight"], same);
    assert_eq!(model.run(EVAL).status.code(), Some(0));
}
