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

/// How often the built-in text is repeated, so that a signal finds the calibration under way.
#[cfg(unix)]
const LONG_TEXT: usize = 2;

#[test]
fn force_does_not_replace_a_directory_with_anything_of_the_users_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let out = dir.path().join("out");
    fs::create_dir_all(out.join("src")).unwrap();
    fs::write(out.join("config.json"), "{}").unwrap();
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let done = prune(&model, &out, &["--calibration", "none", "--force"]);
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    let said = stderr(&done);
    assert!(said.contains("holds notes.txt, which is no part"), "{said}");
    assert_eq!(fs::read(out.join("notes.txt")).unwrap(), b"mine");
    assert!(out.join("src").exists());
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
fn a_model_in_a_cache_is_pruned_into_the_working_directory() {
    let dir = tempfile::tempdir().unwrap();
    let repository = dir.path().join("hub/models--org--name");
    fs::create_dir_all(repository.join("snapshots")).unwrap();
    fs::create_dir(repository.join("blobs")).unwrap();
    let model = example(dir.path(), |_, _| {});
    let snapshot = repository.join("snapshots/abc");
    fs::rename(model, &snapshot).unwrap();
    let inside = prune(&snapshot, &repository.join("x"), &["--calibration", "none"]);
    assert_eq!(inside.status.code(), Some(1), "{}", stderr(&inside));
    let done = Command::new(env!("CARGO_BIN_EXE_swiftprune-wgpu"))
        .current_dir(dir.path())
        .arg("prune")
        .arg(&snapshot)
        .args(["--device", "cpu", "--calibration", "none"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    assert!(dir.path().join("name-pruned/model.safetensors").exists());
    assert_eq!(names(&repository.join("snapshots")), ["abc"]);
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

#[cfg(unix)]
#[test]
fn a_signal_stops_the_run_and_leaves_nothing() {
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        if is_ignored(number) {
            // A job in the background of a shell ignores SIGINT, and so do its children.
            eprintln!("SIG{signal} is ignored here: not tried");
            continue;
        }
        let code = 128 + number;
        let dir = tempfile::tempdir().unwrap();
        let run = under_way(dir.path());
        kill(&run, signal);
        let done = run.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(code), "{}", stderr(&done));
        let said = stderr(&done);
        let last = said.lines().last().unwrap_or_default();
        assert_eq!(
            last, "stopped while calibrating; nothing was written",
            "{said}"
        );
        assert_eq!(names(dir.path()), ["model", "text.txt"], "SIG{signal}");
    }
}

#[cfg(unix)]
#[test]
fn what_a_killed_run_has_staged_is_removed_by_the_next_and_what_a_living_one_has_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let killed = under_way(dir.path());
    kill(&killed, "KILL");
    killed.wait_with_output().unwrap();
    assert_eq!(staged(dir.path()).len(), 1);
    let living = start(dir.path());
    // The orphan goes, and what the living run stages comes.
    let orphan = staged(dir.path())[0].clone();
    wait_until(|| matches!(&staged(dir.path())[..], [only] if *only != orphan));
    let of_living = staged(dir.path());
    let third = prune(
        &dir.path().join("model"),
        &dir.path().join("out"),
        &["--calibration", "none"],
    );
    assert_eq!(third.status.code(), Some(0), "{}", stderr(&third));
    assert_eq!(staged(dir.path()), of_living);
    kill(&living, "TERM");
    living.wait_with_output().unwrap();
    assert_eq!(names(dir.path()), ["model", "out", "text.txt"]);
}

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_a_file_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    // 512 or 1,024 bytes a block: less than the 3.9 MB of the output in any shell.
    let done = Command::new("sh")
        .args(["-c", "ulimit -f 1000; exec \"$@\"", "sh"])
        .arg(env!("CARGO_BIN_EXE_swiftprune-wgpu"))
        .arg("prune")
        .arg(&model)
        .args(["--device", "cpu", "--calibration", "none", "-o"])
        .arg(dir.path().join("out"))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    assert!(
        stderr(&done).contains("not enough space"),
        "{}",
        stderr(&done)
    );
    assert_eq!(names(dir.path()), ["model"]);
}

/// Whether this process, and so what it starts, ignores a signal.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

/// A run in `dir` whose output is staged.
#[cfg(unix)]
fn under_way(dir: &Path) -> std::process::Child {
    example(dir, |_, _| {});
    let text = fs::read_to_string("src/text/builtin.txt").unwrap();
    fs::write(dir.join("text.txt"), text.repeat(LONG_TEXT)).unwrap();
    let run = start(dir);
    wait_until(|| !staged(dir).is_empty());
    run
}

/// A run from `model` to `out` that calibrates for long.
#[cfg(unix)]
fn start(dir: &Path) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_swiftprune-wgpu"))
        .arg("prune")
        .arg(dir.join("model"))
        .arg("-o")
        .arg(dir.join("out"))
        .arg("--calibration")
        .arg(dir.join("text.txt"))
        .args(["--tokens", "12000", "--device", "cpu"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
}

#[cfg(unix)]
fn kill(run: &std::process::Child, signal: &str) {
    let id = run.id().to_string();
    let status = Command::new("kill").args(["-s", signal, &id]).status();
    assert!(status.unwrap().success());
}

#[cfg(unix)]
fn wait_until(done: impl Fn() -> bool) {
    let start = std::time::Instant::now();
    while !done() {
        assert!(start.elapsed().as_secs() < 120, "nothing happened");
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

/// What is staged in a directory.
#[cfg(unix)]
fn staged(dir: &Path) -> Vec<String> {
    let mut names = names(dir);
    names.retain(|name| name.starts_with(".out."));
    names
}

/// All names in a directory, hidden ones too.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
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
