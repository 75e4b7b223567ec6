//! A checkpoint larger than memory, and one of very many tensors. Both take a while, so they are ignored unless asked for:
//! `cargo test --release --test program large:: -- --ignored --nocapture`.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::{Map, Value, json};
use swiftprune_wgpu::device::devices;

use crate::place::program;

/// A file of these tensors in bf16, all holes: no disk is used.
fn sparse_file(path: &Path, tensors: &[(String, [usize; 2])]) -> u64 {
    let mut header = Map::new();
    let mut end = 0;
    for (name, [rows, columns]) in tensors {
        let start = end;
        end += 2 * (rows * columns) as u64;
        let entry =
            json!({"dtype": "BF16", "shape": [rows, columns], "data_offsets": [start, end]});
        header.insert(name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = File::create(path).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes())
        .unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let len = 8 + header.len() as u64 + end;
    file.set_len(len).unwrap();
    len
}

/// The program's report of a run that succeeds.
fn run(arguments: &[&str]) -> Value {
    let done = program()
        .args(arguments)
        .args(["--json", "--quiet"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
#[ignore = "reads and writes gigabytes"]
fn forty_gigabytes_are_planned_and_pruned_within_the_memory_of_a_few_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    let (shards, mut total, mut map) = (20, 0, Map::new());
    for shard in 0..shards {
        let name = format!("model-{:05}-of-{shards:05}.safetensors", shard + 1);
        let of_block = |block: usize| {
            let weight = |layer: &str| format!("model.layers.{block}.{layer}.weight");
            [
                (weight("mlp.down_proj"), [8192, 28672]),
                (weight("mlp.up_proj"), [28672, 8192]),
                (weight("self_attn.q_proj"), [8192, 8192]),
            ]
        };
        let tensors: Vec<_> = [2 * shard, 2 * shard + 1]
            .into_iter()
            .flat_map(of_block)
            .collect();
        for (tensor, _) in &tensors {
            map.insert(tensor.clone(), name.clone().into());
        }
        total += sparse_file(&model.join(&name), &tensors);
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": map}).to_string();
    fs::write(model.join("model.safetensors.index.json"), index).unwrap();
    assert!(total > 40_000_000_000);

    let start = Instant::now();
    let plan = run(&[
        "prune",
        model.to_str().unwrap(),
        "--dry-run",
        "--device",
        "cpu",
        "--calibration",
        "none",
        "--score",
        "magnitude",
    ]);
    println!("{total} bytes planned in {:?}", start.elapsed());
    println!("{}", plan["estimate"]);
    for shard in 1..=2 {
        let file = model.join(format!("model-{shard:05}-of-{shards:05}.safetensors"));
        let out = dir.path().join("out.safetensors");
        let report = run(&[
            "prune",
            file.to_str().unwrap(),
            "-o",
            out.to_str().unwrap(),
            "--device",
            "cpu",
            "--calibration",
            "none",
            "--score",
            "magnitude",
        ]);
        let memory = report["peak_memory_bytes"].as_u64();
        println!(
            "shard {shard}: {} s, {memory:?} bytes at most",
            report["seconds"]
        );
        // A chunk a thread and a few that wait; not the 2.1 GB of the shard.
        assert!(memory.is_none_or(|bytes| bytes < 256 << 20), "{memory:?}");
        fs::remove_file(out).unwrap();
    }
}

#[test]
#[ignore = "takes a while on a software adapter"]
fn ten_thousand_small_tensors_take_no_round_trip_each() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.safetensors");
    let name = |index: usize| {
        format!(
            "model.layers.{}.mlp.experts.{index}.up_proj.weight",
            index / 100
        )
    };
    let tensors: Vec<_> = (0..10_000).map(|index| (name(index), [16, 64])).collect();
    sparse_file(&model, &tensors);
    let mut choices = vec!["cpu".to_owned()];
    choices.extend(
        devices()
            .iter()
            .filter_map(|info| Some(info.index?.to_string())),
    );
    for device in choices {
        let out = dir.path().join("out.safetensors");
        let start = Instant::now();
        let report = run(&[
            "prune",
            model.to_str().unwrap(),
            "-o",
            out.to_str().unwrap(),
            "--device",
            &device,
            "--calibration",
            "none",
            "--score",
            "magnitude",
        ]);
        println!(
            "{}: {} s to prune, {:?} in all",
            report["device"]["name"],
            report["seconds"],
            start.elapsed()
        );
        fs::remove_file(out).unwrap();
    }
}
