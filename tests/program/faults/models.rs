//! What is wrong with a model: its weights, its configuration, its tokenizer, its norms.

use std::fs;
use std::path::{Path, PathBuf};

use crate::place::{example, for_each_tensor, prune, stderr};

/// The example with other tensors: each may be dropped, or left without elements in a shape.
fn with_tensors(dir: &Path, keep: impl Fn(&str) -> Option<Option<Vec<usize>>>) -> PathBuf {
    let model = example(dir, |_, _| {});
    let path = model.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept = tensors.iter().filter_map(|(name, tensor)| {
        let tensor = match keep(name)? {
            Some(shape) => {
                safetensors::tensor::TensorView::new(tensor.dtype(), shape, &[]).unwrap()
            }
            None => tensor,
        };
        Some((name, tensor))
    });
    let written = safetensors::serialize(kept.collect::<Vec<_>>(), None).unwrap();
    fs::write(path, written).unwrap();
    model
}

/// Without a calibration nothing runs the model, and it is held against its architecture all the same.
#[test]
fn a_model_that_lacks_weights_is_refused_without_a_calibration_too() {
    const Q: &str = "model.layers.2.self_attn.q_proj.weight";
    let lacks = |what: &'static str| move |name: &str| (!name.contains(what)).then_some(None);
    let empty =
        |shape: &'static [usize]| move |name: &str| Some((name == Q).then(|| shape.to_vec()));
    type Keep = Box<dyn Fn(&str) -> Option<Option<Vec<usize>>>>;
    let cases: [(Keep, &str, &str); 6] = [
        (
            Box::new(lacks("layers.3.")),
            "llama",
            "tensor model.layers.3.input_layernorm.weight is missing",
        ),
        (
            Box::new(lacks("layers.1.")),
            "llama",
            "tensor model.layers.1.input_layernorm.weight is missing",
        ),
        (
            Box::new(lacks("layers.2.mlp.up")),
            "llama",
            "tensor model.layers.2.mlp.up_proj.weight is missing",
        ),
        (
            Box::new(lacks("layers.1.")),
            "another",
            "the weights of block model.layers.1 are missing",
        ),
        (Box::new(empty(&[0])), "llama", Q),
        (
            Box::new(empty(&[0, 192])),
            "another",
            "has the shape [0, 192], so its weights are missing",
        ),
    ];
    for (keep, model_type, says) in cases {
        let dir = tempfile::tempdir().unwrap();
        let model = with_tensors(dir.path(), keep);
        let config = fs::read_to_string(model.join("config.json")).unwrap();
        let config = config.replace("\"llama\"", &format!("\"{model_type}\""));
        fs::write(model.join("config.json"), config).unwrap();
        let out = dir.path().join("out");
        let done = prune(&model, &out, &["--calibration", "none"]);
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{says}: {said}");
        assert!(said.contains(says), "{says}: {said}");
        assert!(!out.exists());
    }
    // What the architecture of nobody here can tell is said.
    let dir = tempfile::tempdir().unwrap();
    let model = with_tensors(dir.path(), lacks("layers.3."));
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    fs::write(
        model.join("config.json"),
        config.replace("\"llama\"", "\"another\""),
    )
    .unwrap();
    let done = prune(&model, &dir.path().join("out"), &["--calibration", "none"]);
    let said = stderr(&done);
    assert!(
        said.contains("config.json describes 4 blocks, but there are weights of 3"),
        "{said}"
    );
}

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

#[test]
fn what_is_no_part_of_a_model_is_left_out_and_shown() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    for name in ["optimizer.bin", "adapter_config.json", "LICENSE"] {
        fs::write(model.join(name), "x").unwrap();
    }
    let out = dir.path().join("out");
    let done = prune(&model, &out, &["--calibration", "none"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let said = stderr(&done);
    for part in [
        "not copied: adapter_config.json (of an adapter",
        "not copied: optimizer.bin (the state of a training run)",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(out.join("LICENSE").exists() && !out.join("optimizer.bin").exists());
}

#[test]
fn a_quantised_model_is_refused_by_its_method_whatever_is_included() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    edit_config(&model, |config| {
        config.replacen(
            '{',
            r#"{"quantization_config":{"quant_method":"mxfp4"},"#,
            1,
        )
    });
    let out = dir.path().join("out");
    for options in [&[][..], &["--include", "*down_proj*"]] {
        let done = prune(&model, &out, options);
        assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
        let said = stderr(&done);
        assert!(
            said.contains("is quantised (mxfp4); prune the model"),
            "{said}"
        );
    }
    assert!(!out.exists());
}

#[test]
fn a_config_with_the_floats_that_python_writes_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    edit_config(&model, |config| {
        config.replacen('{', r#"{"time_step_limit":[0.0, Infinity],"x":NaN,"#, 1)
    });
    let done = prune(&model, &dir.path().join("out"), &["--tokens", "64"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
}

#[test]
fn a_tokenizer_that_its_library_panics_on_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let path = model.join("tokenizer.json");
    let tokenizer = fs::read_to_string(&path).unwrap();
    fs::write(
        &path,
        tokenizer.replacen("\"decoder\":", "\"decoder\":{],\"old\":", 1),
    )
    .unwrap();
    let done = prune(&model, &dir.path().join("out"), &[]);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(said.contains("tokenizer.json: it cannot be used"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn norms_that_fit_in_part_are_listed_with_what_leaves_the_rest_out() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let norms = dir.path().join("imatrix.dat");
    let with_norms = |lacking: &str, blocks: usize| {
        fs::write(&norms, importance_matrix(lacking, blocks)).unwrap();
        let options = ["--norms", norms.to_str().unwrap()];
        prune(&model, &dir.path().join("out"), &options)
    };
    let done = with_norms("blk.1.ffn_down.weight", 4);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(
        said.contains("--exclude 'model.layers.1.mlp.down_proj.*'"),
        "{said}"
    );
    let done = with_norms("", 5);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(
        said.contains("norms of 5 blocks, but the model has 4"),
        "{said}"
    );
    let done = with_norms("", 4);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
}

fn edit_config(model: &Path, edit: impl FnOnce(&str) -> String) {
    let path = model.join("config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(path, edit(&config)).unwrap();
}

/// An importance matrix for the example, in the older form, of so many blocks and without one name.
fn importance_matrix(lacking: &str, blocks: usize) -> Vec<u8> {
    let int = |value: usize| i32::try_from(value).unwrap().to_le_bytes();
    let mut names = Vec::new();
    for block in 0..blocks {
        for (name, in_features) in [
            ("ffn_down", 512),
            ("ffn_up", 192),
            ("attn_q", 192),
            ("attn_output", 192),
        ] {
            names.push((format!("blk.{block}.{name}.weight"), in_features));
        }
    }
    names.retain(|(name, _)| name != lacking);
    let mut file = int(names.len()).to_vec();
    for (name, in_features) in names {
        file.extend(int(name.len()));
        file.extend(name.as_bytes());
        file.extend(int(1));
        file.extend(int(in_features));
        file.extend(1.0_f32.to_le_bytes().repeat(in_features));
    }
    file
}
