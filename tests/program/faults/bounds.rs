//! What a stranger's model, or a small allowance of the system's, must not make of a run: more open files than there may be, a full
//! disk, a terminal that is steered, a report that others can read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::place::{PROGRAM, example, names, prune, stderr, tree};

/// A run of the program within what a shell's `limit` sets.
fn within(limit: &str, dir: &Path, words: &[&str]) -> Output {
    Command::new("sh")
        .current_dir(dir)
        .args(["-c", &format!("{limit}; exec \"$@\""), "sh"])
        .arg(PROGRAM)
        .args(words)
        .output()
        .unwrap()
}

/// The example model in so many shards: one for each tensor, and then for tensors of one number.
fn many_shards(dir: &Path, shards: usize) -> PathBuf {
    let model = example(dir, |_, _| {});
    let bytes = fs::read(model.join("model.safetensors")).unwrap();
    fs::remove_file(model.join("model.safetensors")).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut all: Vec<_> = tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), view))
        .collect();
    let number = [0; 4];
    while all.len() < shards {
        let one = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![1], &number);
        all.push((format!("extra.{}", all.len()), one.unwrap()));
    }
    let mut map = serde_json::Map::new();
    for (at, (name, tensor)) in all.into_iter().enumerate() {
        let file = format!("model-{:05}-of-{shards:05}.safetensors", at + 1);
        map.insert(name.clone(), file.clone().into());
        let shard = safetensors::serialize([(name, tensor)], None).unwrap();
        fs::write(model.join(file), shard).unwrap();
    }
    let index = serde_json::json!({ "metadata": {}, "weight_map": map });
    let path = model.join("model.safetensors.index.json");
    fs::write(path, index.to_string()).unwrap();
    model
}

#[test]
fn a_checkpoint_of_a_hundred_files_takes_no_more_open_files_than_one_of_a_few() {
    let dir = tempfile::tempdir().unwrap();
    many_shards(dir.path(), 100);
    let run = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let done = within("ulimit -n 64", dir.path(), &words);
        assert_eq!(done.status.code(), Some(0), "{words:?}: {}", stderr(&done));
    };
    let options = "--device cpu --calibration none";
    run(&format!(
        "prune model -o whole {options} --allocate atp --verify"
    ));
    run("verify model whole");
    run("inspect whole");
    run("eval whole --device cpu --tokens 16");
    run(&format!(
        "prune model -o resumed {options} --allocate atp --resume"
    ));
    assert!(tree(&dir.path().join("whole")) == tree(&dir.path().join("resumed")));
    run(&format!("prune model -o parts {options} --part 1/2"));
    run(&format!("prune model -o parts {options} --part 2/2"));
    run("merge parts");
}

#[test]
fn a_companion_of_a_terabyte_of_holes_is_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let holes = File::create(model.join("tokenizer.model")).unwrap();
    // A file system that has no such files has no such fault.
    if holes.set_len(1 << 40).is_err() {
        return;
    }
    for options in [
        &["--calibration", "none"][..],
        &["--resume", "--calibration", "none"],
    ] {
        let done = prune(&model, &dir.path().join("out"), options);
        assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
        let said = stderr(&done);
        assert!(
            said.contains("tokenizer.model has 1099511627776 bytes"),
            "{said}"
        );
        assert_eq!(names(dir.path()), ["model"]);
    }
}

#[test]
fn what_is_written_is_for_those_whom_the_umask_lets_read_it() {
    use std::os::unix::fs::PermissionsExt as _;
    for (umask, mode) in [
        ("077", 0o600),
        ("027", 0o640),
        ("022", 0o644),
        ("002", 0o664),
    ] {
        let dir = tempfile::tempdir().unwrap();
        example(dir.path(), |_, _| {});
        let run = |words: &str| {
            let words: Vec<&str> = words.split(' ').collect();
            let done = within(&format!("umask {umask}"), dir.path(), &words);
            assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
        };
        // As a downloaded model has them.
        for name in names(&dir.path().join("model")) {
            let path = dir.path().join("model").join(name);
            fs::set_permissions(path, fs::Permissions::from_mode(0o666)).unwrap();
        }
        run("prune model -o out --device cpu --calibration none --report run.json");
        run("report run.json -o page.html");
        run("report run.json -o page.html --force");
        run("calibrate model -o norms.safetensors --device cpu --tokens 16");
        run(
            "sweep model --device cpu --score magnitude --sparsity 0.5 --eval-tokens 16 --output sweep.json --state state",
        );
        let files = [
            "run.json",
            "page.html",
            "norms.safetensors",
            "sweep.json",
            "state",
        ];
        let files = files.into_iter().map(|name| dir.path().join(name));
        let output = dir.path().join("out");
        for path in files.chain(names(&output).iter().map(|name| output.join(name))) {
            let is = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            assert_eq!(is, mode, "{} under {umask}: {is:o}", path.display());
        }
    }
}

/// Characters that steer a terminal, turn the direction of a text, or are not seen.
const HOSTILE: &str = "x\u{1b}[2J\u{7f}\u{9b}31m\u{a0}\u{ad}\u{200b}\u{200d}\u{202e}\u{2066}\u{3164}\u{fe0f}\u{feff}\u{e0041}\u{e0101}y";

#[test]
fn a_name_of_a_strangers_steers_no_terminal_as_text_or_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    // The hostile name is that of a tensor, of an architecture, of a file and of a device.
    let path = model.join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let numbers = vec![0; 64 * 64 * 4];
    let one = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![64, 64], &numbers);
    let mut all: Vec<_> = tensors
        .iter()
        .map(|(name, view)| (name.to_owned(), view))
        .collect();
    all.push((format!("model.layers.0.{HOSTILE}.weight"), one.unwrap()));
    let with_hostile = safetensors::serialize(all, None).unwrap();
    fs::write(&path, with_hostile).unwrap();
    fs::write(model.join(format!("{HOSTILE}.bin")), "x").unwrap();
    fs::write(model.join(format!("README_{HOSTILE}")), "x").unwrap();
    let record = fs::read_to_string("benches/results/epyc-2-cores.json").unwrap();
    let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
    record["records"][0]["machine"]["cpu"] = HOSTILE.into();
    record["records"][0]["device"]["name"] = HOSTILE.into();
    record["records"][0]["cases"][0]["what"] = HOSTILE.into();
    fs::write(dir.path().join("record.json"), record.to_string()).unwrap();
    fs::write(
        dir.path().join("broken.json"),
        format!(
            "{{\"records\":\"{}\"}}",
            HOSTILE.replace('\u{1b}', "\\u001b")
        ),
    )
    .unwrap();
    fs::write(
        dir.path().join("sweep.json"),
        format!(
            "{{\"sweep_schema_version\":1,\"model\":{}}}",
            serde_json::json!([HOSTILE])
        ),
    )
    .unwrap();
    for (words, code) in [
        ("inspect model --json", 0),
        ("inspect model", 0),
        (
            "prune model --dry-run --json --calibration none --device cpu --include *layers*",
            0,
        ),
        (
            "prune model --dry-run --calibration none --device cpu --include *layers*",
            0,
        ),
        (
            "prune model -o out --json --calibration none --device cpu --include *layers* --checksum",
            0,
        ),
        (
            "prune model -o again --calibration none --device cpu --include *layers* --checksum -v",
            0,
        ),
        ("verify model out", 0),
        ("bench --read record.json", 0),
        ("bench --read record.json --json", 0),
        ("bench --read record.json --markdown", 0),
        ("bench --read record.json --submit-text", 0),
        ("bench --read broken.json", 1),
        ("bench --compare record.json record.json", 0),
        ("report broken.json -o page.html", 1),
        ("report sweep.json -o page.html", 1),
        ("report out/report.json -o page.html", 0),
    ] {
        let words: Vec<&str> = words.split(' ').collect();
        let done = within("true", dir.path(), &words);
        assert_eq!(
            done.status.code(),
            Some(code),
            "{words:?}: {}",
            stderr(&done)
        );
        for said in [&done.stdout, &done.stderr] {
            harmless(&words.join(" "), &String::from_utf8_lossy(said));
        }
    }
    for file in ["out/report.json", "out/README.md", "page.html"] {
        harmless(file, &fs::read_to_string(dir.path().join(file)).unwrap());
    }
}

fn harmless(what: &str, said: &str) {
    let raw = said
        .chars()
        .find(|&c| c != 'x' && c != 'y' && HOSTILE.contains(c) && !c.is_ascii_graphic());
    assert_eq!(raw, None, "{what}: {said:?}");
}
