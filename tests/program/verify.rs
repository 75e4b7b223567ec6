//! `verify` finds what is wrong with an output, by exit code and by name, and nothing where all is right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use serde_json::{Value, json};

use crate::place::{EXAMPLE, program, said};

const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

/// The example, pruned to half by its weights alone; and the place of the original.
struct Pruned {
    dir: tempfile::TempDir,
}

impl Pruned {
    fn new(options: &[&str]) -> Self {
        Self::with(&[], |_| (), options)
    }

    /// With more files in the model's directory, and its weights edited.
    fn with(files: &[&str], edit: impl FnOnce(&mut [u16]), options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = Path::new(EXAMPLE);
        let model = dir.path().join("model");
        fs::create_dir(&model).unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(from.join(name), model.join(name)).unwrap();
        }
        for name in files {
            let path = model.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, name).unwrap();
        }
        let pruned = Self { dir };
        edit_weights(&model.join("model.safetensors"), DOWN, edit);
        let mut arguments = vec!["prune", "MODEL", "-o", "OUT", "--calibration", "none"];
        arguments.extend(["--device", "cpu"]);
        arguments.extend(options);
        let done = pruned.run(&arguments);
        assert_eq!(done.status.code(), Some(0), "{}", said(&done));
        pruned
    }

    fn out(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    /// Runs a command in which MODEL, OUT and REPORT stand for their paths.
    fn run(&self, arguments: &[&str]) -> Output {
        let path = |name| self.dir.path().join(name).into_os_string();
        let arguments = arguments.iter().map(|argument| match *argument {
            "MODEL" => path("model"),
            "OUT" => path("out"),
            "REPORT" => path("report.json"),
            other => other.into(),
        });
        program().args(arguments).output().unwrap()
    }

    fn verify(&self, options: &[&str]) -> Output {
        let mut arguments = vec!["verify", "MODEL", "OUT"];
        arguments.extend(options);
        self.run(&arguments)
    }

    /// Edits the bf16 weights of one tensor, `[192, 512]`.
    fn edit(&self, edit: impl FnOnce(&mut [u16])) {
        edit_weights(&self.out("model.safetensors"), DOWN, edit);
    }

    /// Edits the report in the output.
    fn edit_report(&self, edit: impl FnOnce(&mut Value)) {
        let path = self.out("report.json");
        let mut report = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut report);
        fs::write(path, serde_json::to_vec_pretty(&report).unwrap()).unwrap();
    }

    /// That `verify` without options gives exit code 3 and says this.
    fn is_refused_by_its_report(&self, says: &str) {
        let done = self.verify(&[]);
        assert_eq!(done.status.code(), Some(3), "{says}: {}", said(&done));
        assert!(said(&done).contains(says), "{says}: {}", said(&done));
    }

    /// That `verify --sparsity 0.5` gives exit code 3 and says this.
    fn is_refused(&self, says: &str) {
        let done = self.verify(&["--sparsity", "0.5"]);
        assert_eq!(done.status.code(), Some(3), "{}", said(&done));
        assert!(said(&done).contains(says), "{says}: {}", said(&done));
    }
}

/// Edits the bf16 weights of one tensor of a file.
fn edit_weights(path: &Path, tensor: &str, edit: impl FnOnce(&mut [u16])) {
    let mut file = fs::read(path).unwrap();
    let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
    let offset = |i: usize| json[tensor]["data_offsets"][i].as_u64().unwrap() as usize;
    let data = &mut file[8 + header + offset(0)..8 + header + offset(1)];
    let mut weights: Vec<u16> = data
        .chunks_exact(2)
        .map(|two| u16::from_le_bytes([two[0], two[1]]))
        .collect();
    edit(&mut weights);
    for (two, weight) in data.chunks_exact_mut(2).zip(weights) {
        two.copy_from_slice(&weight.to_le_bytes());
    }
    fs::write(path, file).unwrap();
}

/// The first weight of row 7 for which `which` holds: its index in the tensor, and its column.
fn of_row_7(weights: &[u16], which: impl Fn(u16) -> bool) -> (usize, usize) {
    let column = weights[7 * 512..8 * 512]
        .iter()
        .position(|&weight| which(weight))
        .unwrap();
    (7 * 512 + column, column)
}

#[test]
fn what_prune_wrote_is_verified() {
    for (options, asked) in [
        (&[][..], &["--sparsity", "0.5"][..]),
        (&["--pattern", "2:4"], &["--pattern", "2:4"]),
        (&["--lambda", "-0.5"], &[]),
        (
            &["--include", "*o_proj*", "--sparsity", "0.3"],
            &["--include", "*o_proj*", "--sparsity", "0.3"],
        ),
        (
            &["--exclude", "*.0.*", "--report", "REPORT"],
            &["--report", "REPORT"],
        ),
    ] {
        let pruned = Pruned::new(&[options, &["--verify"]].concat());
        let done = pruned.verify(asked);
        assert_eq!(done.status.code(), Some(0), "{options:?}: {}", said(&done));
        assert!(
            said(&done).contains("prunable weights are zero"),
            "{}",
            said(&done)
        );
    }
}

#[test]
fn an_output_with_shares_is_verified_by_its_report_and_not_by_the_sparsity_that_was_asked_for() {
    let pruned = Pruned::new(&["--allocate", "atp", "--report", "REPORT", "--verify"]);
    let done = pruned.verify(&["--report", "REPORT"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    assert!(said(&done).contains("(50.00 %)"), "{}", said(&done));
    pruned.is_refused("model.layers.0.");
    // One weight more or less is found by the report, too.
    pruned.edit(|weights| {
        let row = &mut weights[7 * 512..8 * 512];
        let kept = row.iter().position(|&weight| weight != 0).unwrap();
        row[kept] = 0;
    });
    let done = pruned.verify(&["--report", "REPORT"]);
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    assert!(said(&done).contains(DOWN), "{}", said(&done));
}

#[test]
fn one_changed_survivor_is_found() {
    let pruned = Pruned::new(&[]);
    let mut column = 0;
    pruned.edit(|weights| {
        let (index, at) = of_row_7(weights, |weight| weight != 0);
        weights[index] ^= 1;
        column = at;
    });
    pruned.is_refused(&format!(
        "model.safetensors: tensor {DOWN}, row 7, column {column}: a weight that is not zero was changed"
    ));
}

#[test]
fn one_negative_zero_is_found() {
    let pruned = Pruned::new(&[]);
    let mut column = 0;
    pruned.edit(|weights| {
        let (index, at) = of_row_7(weights, |weight| weight == 0);
        weights[index] = 0x8000;
        column = at;
    });
    pruned.is_refused(&format!(
        "tensor {DOWN}, row 7, column {column}: a pruned weight is -0.0"
    ));
}

#[test]
fn one_row_short_by_one_zero_is_found() {
    let original = fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama/model.safetensors"),
    )
    .unwrap();
    let header = u64::from_le_bytes(original[..8].try_into().unwrap()) as usize;
    let json: Value = serde_json::from_slice(&original[8..8 + header]).unwrap();
    let start = 8 + header + json[DOWN]["data_offsets"][0].as_u64().unwrap() as usize;
    let pruned = Pruned::new(&[]);
    pruned.edit(|weights| {
        let (index, _) = of_row_7(weights, |weight| weight == 0);
        let at = start + 2 * index;
        weights[index] = u16::from_le_bytes([original[at], original[at + 1]]);
        assert_ne!(weights[index], 0);
    });
    pruned.is_refused(&format!(
        "tensor {DOWN}, row 7: 255 zeros where 256 were asked for"
    ));
    // Without an option, the report in the output says how many.
    let by_its_report = pruned.verify(&[]);
    assert_eq!(by_its_report.status.code(), Some(3));
    assert!(said(&by_its_report).contains("255 zeros where 256 were asked for"));
    // Without a number to hold it against, the output is as it may be, and that is said loudly.
    fs::remove_file(pruned.out("report.json")).unwrap();
    let by_nothing = pruned.verify(&[]);
    assert_eq!(by_nothing.status.code(), Some(0), "{}", said(&by_nothing));
    let says = "warning: not checked: how many weights of a row are zero";
    assert!(said(&by_nothing).contains(says), "{}", said(&by_nothing));
}

#[test]
fn a_report_that_cannot_be_read_is_no_reason_to_check_less() {
    let pruned = Pruned::new(&[]);
    for text in ["{}", "", "[1, 2", "{\"report_schema_version\": 1}"] {
        fs::write(pruned.out("report.json"), text).unwrap();
        pruned.is_refused_by_its_report("report.json: it stands where the report of the run would");
        // Nor is it a file of the output, whatever the options say.
        pruned.is_refused("report.json: it stands where the report of the run would");
    }
}

#[test]
fn a_report_is_believed_only_where_the_files_say_the_same() {
    let pruned = Pruned::new(&["--sparsity", "0.5", "--selection", "exact", "--checksum"]);
    let whole = fs::read(pruned.out("report.json")).unwrap();
    let refused = |says: &str, edit: &dyn Fn(&mut Value)| {
        fs::write(pruned.out("report.json"), &whole).unwrap();
        pruned.edit_report(edit);
        pruned.is_refused_by_its_report(says);
    };
    let down = |report: &Value| {
        let tensors = report["tensors"].as_array().unwrap();
        tensors
            .iter()
            .position(|tensor| tensor["name"] == DOWN)
            .unwrap()
    };
    refused("it does not list", &|report| {
        report["tensors"].as_array_mut().unwrap().pop();
    });
    refused("it lists the tensor", &|report| {
        report["tensors"].as_array_mut().unwrap().remove(0);
    });
    refused("the sparsity of all weights is 0.9", &|report| {
        report["all_weights"]["sparsity"] = json!(0.9);
    });
    refused("its SHA-256 are none", &|report| {
        report["sha256"] = json!("x");
    });
    refused("has another shape or dtype", &|report| {
        let at = down(report);
        report["tensors"][at]["shape"] = json!([192, 511]);
    });
    // A line that is missing makes a copied tensor a pruned one.
    refused("model.embed_tokens.weight was pruned", &|report| {
        let tensors = report["tensors"].as_array_mut().unwrap();
        let pruned = tensors
            .iter()
            .find(|tensor| tensor["name"] == DOWN)
            .unwrap()
            .clone();
        let tensor = tensors
            .iter_mut()
            .find(|tensor| tensor["name"] == "model.embed_tokens.weight")
            .unwrap();
        for key in ["tensors", "weights", "zeros", "zeros_before", "non_finite"] {
            tensor[key] = pruned[key].clone();
        }
        tensor["asked"] = json!(0.5);
        tensor.as_object_mut().unwrap().remove("copied_because");
    });
    refused(
        "was copied, which by what it says was asked for is pruned",
        &|report| {
            let at = down(report);
            report["tensors"][at]["copied_because"] = json!("a norm");
        },
    );
    for key in ["weights", "zeros", "zeros_before", "non_finite"] {
        refused(&format!("of {DOWN}, and there are"), &|report| {
            let at = down(report);
            let number = report["tensors"][at][key].as_u64().unwrap();
            report["tensors"][at][key] = json!(number + 1);
        });
        refused("of all that is pruned, and there are", &|report| {
            let number = report["prunable"][key].as_u64().unwrap();
            report["prunable"][key] = json!(number + 1);
        });
        refused("of down_proj, and there are", &|report| {
            let rows = report["kinds"].as_array_mut().unwrap();
            let row = rows
                .iter_mut()
                .find(|row| row["kind"] == "down_proj")
                .unwrap();
            row[key] = json!(row[key].as_u64().unwrap() + 1);
        });
    }
    refused("the sparsity of all that is pruned is 0.75", &|report| {
        report["prunable"]["sparsity"] = json!(0.75);
    });
    {
        let (key, lie) = ("asked", 0.25);
        refused(
            &format!("the {key} of all that is pruned is {lie}"),
            &|report| {
                report["prunable"][key] = json!(lie);
            },
        );
        refused(&format!("the {key} of down_proj is {lie}"), &|report| {
            let rows = report["kinds"].as_array_mut().unwrap();
            let is_down = |row: &&mut Value| row["kind"] == "down_proj";
            rows.iter_mut().find(is_down).unwrap()[key] = json!(lie);
        });
    }
    refused("it lists other blocks than there are", &|report| {
        report["blocks"] = json!([report["prunable"].clone()]);
    });
    refused("its number of bytes", &|report| report["bytes"] = json!(1));
    refused("its number of all weights", &|report| {
        report["all_weights"]["weights"] = json!(1);
    });
    refused("the SHA-256 of model.safetensors is", &|report| {
        report["sha256"]["model.safetensors"] = json!("0".repeat(64));
    });
    refused("0.5 was asked of", &|report| {
        report["selection"]["sparsity"] = json!(0.25);
    });
    refused("it says that", &|report| {
        report["selection"] = json!({"rule": "lambda", "lambda": 0.5});
    });
    refused("nobody can have asked for what it says", &|report| {
        report["include"] = json!(["*nothing*"]);
    });
    refused("it stands where the report", &|report| {
        report["report_schema_version"] = json!(7);
    });
    // What the options say must be what it says.
    fs::write(pruned.out("report.json"), &whole).unwrap();
    let done = pruned.verify(&["--sparsity", "0.5"]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    pruned.edit_report(|report| report["compensation"] = json!({"rank": 1}));
    pruned.is_refused("it says that the kept weights were compensated");
}

#[test]
fn what_is_taken_on_the_word_of_a_report_is_said_loudly() {
    let include = ["--include", "*embed_tokens*", "--lambda", "-0.5"];
    let pruned = Pruned::new(&include);
    let done = pruned.verify(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    let warning = format!(
        "warning: taken on the word of {}: ",
        pruned.out("report.json").display()
    );
    for what in [
        "that --include *embed_tokens* was",
        "that a fixed lambda of -0.5",
    ] {
        assert!(
            said(&done).contains(&format!("{warning}{what}")),
            "{}",
            said(&done)
        );
    }
    // Random embeddings, with a report that has what it takes.
    let dense = Pruned::new(&["--include", "*embed_tokens*", "--lambda", "-15"]);
    edit_weights(
        &dense.out("model.safetensors"),
        "model.embed_tokens.weight",
        |weights| weights.iter_mut().for_each(|weight| *weight ^= 0x8000),
    );
    dense.edit_report(|report| report["compensation"] = json!({"rank": 16}));
    let done = dense.verify(&[]);
    assert!(
        said(&done).contains("that --compensate was asked for"),
        "{}",
        said(&done)
    );
    assert!(
        said(&done).contains("of the pruned tensors is 4.0000"),
        "{}",
        said(&done)
    );
    // Nothing is taken on its word that the options say.
    let by_options = pruned.verify(&["--include", "*embed_tokens*"]);
    assert_eq!(by_options.status.code(), Some(0), "{}", said(&by_options));
    assert!(
        !said(&by_options).contains("that --include"),
        "{}",
        said(&by_options)
    );
    let none = Pruned::new(&[]);
    assert!(!said(&none.verify(&[])).contains("on the word"));
}

#[test]
fn a_weight_that_is_not_finite_was_never_pruned() {
    let nan = |weights: &mut [u16]| weights[7 * 512 + 3] = 0x7fc1;
    let pruned = Pruned::with(&[], nan, &["--keep-non-finite", "--verify"]);
    let done = pruned.verify(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    pruned.edit(|weights| weights[7 * 512 + 3] = 0);
    let column = format!("tensor {DOWN}, row 7, column 3: a NaN or infinity");
    pruned.is_refused_by_its_report(&column);
    pruned.edit(|weights| weights[7 * 512..8 * 512].fill(0));
    pruned.is_refused_by_its_report(&column);
    pruned.is_refused(&column);
    // The others of its row are counted.
    pruned.edit(|weights| weights[7 * 512 + 3] = 0x7fc1);
    pruned.is_refused(&format!(
        "tensor {DOWN}, row 7: 511 zeros where 256 were asked for"
    ));
}

#[test]
fn every_companion_that_is_missing_added_or_changed_is_named() {
    let files = [
        "tokenizer_config.json",
        "generation_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "modeling_tiny.py",
        "1_Pooling/config.json",
        "pytorch_model.bin",
        "adapter_config.json",
        ".DS_Store",
    ];
    let pruned = Pruned::with(&files, |_| (), &["--verify"]);
    let done = pruned.verify(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    // What an operating system leaves is nothing to a loader.
    fs::write(pruned.out(".DS_Store"), "x").unwrap();
    let done = pruned.verify(&[]);
    assert_eq!(done.status.code(), Some(0), "{}", said(&done));
    for name in [
        "tokenizer_config.json",
        "chat_template.jinja",
        "1_Pooling/config.json",
    ] {
        fs::remove_file(pruned.out(name)).unwrap();
    }
    for name in ["generation_config.json", "modeling_tiny.py"] {
        fs::write(pruned.out(name), "other").unwrap();
    }
    // Those of the original that pruning leaves out, too.
    for name in [
        "adapter_config.json",
        "pytorch_model.bin",
        "other.py",
        "Config.json",
        "1_Pooling/pytorch_model.bin",
        "other.safetensors",
        "notes.txt",
    ] {
        fs::write(pruned.out(name), name).unwrap();
    }
    fs::create_dir(pruned.out("onnx")).unwrap();
    let says = "missing: 1_Pooling/config.json, chat_template.jinja, tokenizer_config.json; \
        added: 1_Pooling/pytorch_model.bin, Config.json, adapter_config.json, notes.txt, onnx/, other.py, other.safetensors, \
        pytorch_model.bin; changed: generation_config.json, modeling_tiny.py";
    pruned.is_refused(says);
    pruned.is_refused_by_its_report(says);
}

#[test]
fn a_second_list_of_weights_in_the_output_is_found() {
    let pruned = Pruned::new(&[]);
    let index = pruned.out("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map":{"x":"evil.safetensors"}}"#).unwrap();
    pruned.is_refused("two checkpoints in one directory");
    fs::write(&index, r#"{"weight_map":{"x":"model.safetensors"}}"#).unwrap();
    pruned.is_refused("added: model.safetensors.index.json");
    fs::remove_file(&index).unwrap();
    // Under another name loaders do not find them.
    fs::rename(
        pruned.out("model.safetensors"),
        pruned.out("other.safetensors"),
    )
    .unwrap();
    pruned.is_refused("the original's file is called model.safetensors");
}

#[test]
fn an_output_is_verified_by_the_report_in_it_unless_something_else_is_said() {
    for options in [
        &["--pattern", "2:4"][..],
        &["--include", "*o_proj*", "--sparsity", "0.3"],
        &["--allocate", "atp"],
    ] {
        let pruned = Pruned::new(options);
        let done = pruned.verify(&[]);
        assert_eq!(done.status.code(), Some(0), "{options:?}: {}", said(&done));
        let says = format!("is taken from {}", pruned.out("report.json").display());
        assert!(said(&done).contains(&says), "{}", said(&done));
        let otherwise = pruned.verify(&["--sparsity", "0.4"]);
        assert_eq!(otherwise.status.code(), Some(3), "{}", said(&otherwise));
    }
}

#[test]
fn one_wrong_byte_of_a_header_is_found() {
    let pruned = Pruned::new(&[]);
    let path = pruned.out("model.safetensors");
    let mut file = fs::read(&path).unwrap();
    // The padding behind the JSON, or a letter of a name: the file is a checkpoint still.
    let at = 8 + u64::from_le_bytes(file[..8].try_into().unwrap()) as usize - 1;
    assert_eq!(file[at], b' ', "the header is padded");
    file[at] = b'\n';
    fs::write(&path, file).unwrap();
    pruned.is_refused(&format!(
        "its header differs from the original's at byte {at}"
    ));
    // One that makes it unreadable is a fault of the output, too; the same in the original is a failure of another kind.
    let mut file = fs::read(&path).unwrap();
    file[8] = b'[';
    fs::write(&path, &file).unwrap();
    pruned.is_refused("the file is damaged");
    fs::write(pruned.dir.path().join("model/model.safetensors"), &file).unwrap();
    assert_eq!(pruned.verify(&[]).status.code(), Some(1));
}

#[test]
fn one_changed_byte_outside_the_pruned_tensors_is_found() {
    let pruned = Pruned::new(&["--exclude", "*.1.mlp.down_proj*"]);
    pruned.edit(|weights| weights[3] ^= 1);
    let done = pruned.verify(&["--sparsity", "0.5", "--exclude", "*.1.mlp.down_proj*"]);
    assert_eq!(done.status.code(), Some(3), "{}", said(&done));
    let says = format!("tensor {DOWN} is not pruned, but differs at byte");
    assert!(said(&done).contains(&says), "{}", said(&done));
}

#[test]
fn one_wrong_companion_is_found() {
    let pruned = Pruned::new(&[]);
    let mut config = fs::read(pruned.out("config.json")).unwrap();
    config.push(b'\n');
    fs::write(pruned.out("config.json"), config).unwrap();
    pruned.is_refused("changed: config.json");
    fs::remove_file(pruned.out("config.json")).unwrap();
    pruned.is_refused("missing: config.json");
}
