//! What is wrong with a model or a device reaches the user: by exit code, by name, and never only in a report.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// NaN in bf16.
const NAN: [u8; 2] = 0x7fc0_u16.to_le_bytes();

#[test]
fn a_warning_that_only_the_measured_norms_give_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    // Values of zero: nothing reaches the projection behind the attention, whatever the text.
    let model = example(dir.path(), |name, weights| {
        if name == "model.layers.1.self_attn.v_proj.weight" {
            weights.fill(0);
        }
    });
    let done = prune(&model, &dir.path().join("out"), &[]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let warning = "no calibration token reached model.layers.1.self_attn.o_proj.weight";
    assert!(stderr(&done).contains(warning), "{}", stderr(&done));
}

#[test]
fn a_weight_that_is_not_finite_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), nan_in_up_proj);
    let out = dir.path().join("out");
    let done = prune(&model, &out, &["--calibration", "none"]);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = stderr(&done);
    for part in [
        "model.safetensors: tensor model.layers.2.mlp.up_proj.weight contains NaN or infinity (1 in rows",
        "help: --keep-non-finite",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!out.exists());
}

#[test]
fn a_weight_that_is_not_finite_can_be_kept_and_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), nan_in_up_proj);
    let out = dir.path().join("out");
    let options = ["--calibration", "none", "--keep-non-finite"];
    let done = prune(&model, &out, &options);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(
        said.contains("1 NaN or infinite weights were left unchanged"),
        "{said}"
    );
    let mut kept = false;
    let mut bytes = fs::read(out.join("model.safetensors")).unwrap();
    for_each_tensor(&mut bytes, |name, weights| {
        kept |= name == "model.layers.2.mlp.up_proj.weight" && weights[..2] == NAN;
    });
    assert!(kept);
}

fn nan_in_up_proj(name: &str, weights: &mut [u8]) {
    if name == "model.layers.2.mlp.up_proj.weight" {
        weights[..2].copy_from_slice(&NAN);
    }
}

/// The example model in `dir`, with its weights edited by name.
fn example(dir: &Path, edit: impl FnMut(&str, &mut [u8])) -> PathBuf {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama");
    let model = dir.join("model");
    fs::create_dir(&model).unwrap();
    for name in ["config.json", "tokenizer.json"] {
        fs::copy(from.join(name), model.join(name)).unwrap();
    }
    let mut bytes = fs::read(from.join("model.safetensors")).unwrap();
    for_each_tensor(&mut bytes, edit);
    fs::write(model.join("model.safetensors"), bytes).unwrap();
    model
}

/// Every tensor of a safetensors file: its name and its bytes.
fn for_each_tensor(file: &mut [u8], mut each: impl FnMut(&str, &mut [u8])) {
    let (len, rest) = file.split_at_mut(8);
    let len = usize::try_from(u64::from_le_bytes((*len).try_into().unwrap())).unwrap();
    let (header, data) = rest.split_at_mut(len);
    let header: serde_json::Value = serde_json::from_slice(header).unwrap();
    for (name, entry) in header.as_object().unwrap() {
        if let Some(offsets) = entry["data_offsets"].as_array() {
            let [begin, end] = [0, 1].map(|i| offsets[i].as_u64().unwrap() as usize);
            each(name, &mut data[begin..end]);
        }
    }
}

fn prune(model: &Path, out: &Path, options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_swiftprune-wgpu"))
        .arg("prune")
        .arg(model)
        .arg("-o")
        .arg(out)
        .args(["--device", "cpu"])
        .args(options)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
