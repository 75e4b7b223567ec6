//! `verify` finds what is wrong with an output, by exit code and by name, and nothing where all is right.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

/// The example, pruned to half by its weights alone; and the place of the original.
struct Pruned {
    dir: tempfile::TempDir,
}

impl Pruned {
    fn new(options: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/tiny-llama");
        let model = dir.path().join("model");
        fs::create_dir(&model).unwrap();
        for name in ["config.json", "tokenizer.json", "model.safetensors"] {
            fs::copy(from.join(name), model.join(name)).unwrap();
        }
        let pruned = Self { dir };
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
        Command::new(env!("CARGO_BIN_EXE_swiftprune-wgpu"))
            .args(arguments)
            .output()
            .unwrap()
    }

    fn verify(&self, options: &[&str]) -> Output {
        let mut arguments = vec!["verify", "MODEL", "OUT"];
        arguments.extend(options);
        self.run(&arguments)
    }

    /// Edits the bf16 weights of one tensor, `[192, 512]`.
    fn edit(&self, edit: impl FnOnce(&mut [u16])) {
        let path = self.out("model.safetensors");
        let mut file = fs::read(&path).unwrap();
        let header = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let json: serde_json::Value = serde_json::from_slice(&file[8..8 + header]).unwrap();
        let offset = |i: usize| json[DOWN]["data_offsets"][i].as_u64().unwrap() as usize;
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

    /// That `verify --sparsity 0.5` gives exit code 3 and says this.
    fn is_refused(&self, says: &str) {
        let done = self.verify(&["--sparsity", "0.5"]);
        assert_eq!(done.status.code(), Some(3), "{}", said(&done));
        assert!(said(&done).contains(says), "{says}: {}", said(&done));
    }
}

fn said(output: &Output) -> String {
    [&output.stderr, &output.stdout]
        .map(|bytes| String::from_utf8_lossy(bytes).into_owned())
        .concat()
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
    let json: serde_json::Value = serde_json::from_slice(&original[8..8 + header]).unwrap();
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
    // Without a number to hold it against, the output is as it may be, and that is said: a report.json that the model came
    // with says nothing of pruning.
    fs::write(pruned.out("report.json"), "{}").unwrap();
    let by_nothing = pruned.verify(&[]);
    assert_eq!(by_nothing.status.code(), Some(0), "{}", said(&by_nothing));
    assert!(said(&by_nothing).contains("not checked: how many weights of a row are zero"));
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
    pruned.is_refused("config.json is missing, or differs");
    fs::remove_file(pruned.out("config.json")).unwrap();
    pruned.is_refused("config.json is missing, or differs");
}
