//! What is wrong with the place of an output: it holds what is the user's, it is full, read-only, gone.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::place::{LONG_TEXT, PROGRAM, example, names, program, prune, stderr, tree, wait_until};

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
    let done = program()
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

#[cfg(unix)]
#[test]
fn a_limit_on_the_size_of_a_file_is_an_error_that_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    // 512 or 1,024 bytes a block: less than the 3.9 MB of the output in any shell.
    let done = Command::new("sh")
        .args(["-c", "ulimit -f 1000; exec \"$@\"", "sh"])
        .arg(PROGRAM)
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

/// A file system of so many kilobytes at a directory, until it is dropped; `None`, and a word on it, where mounting is not
/// allowed.
#[cfg(target_os = "linux")]
struct SmallDisk(std::path::PathBuf);

#[cfg(target_os = "linux")]
impl SmallDisk {
    fn at(dir: &Path, kilobytes: usize, option: &str) -> Option<Self> {
        fs::create_dir_all(dir).unwrap();
        let options = format!("size={kilobytes}k{option}");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir)
            .output();
        if mounted.is_ok_and(|mounted| mounted.status.success()) {
            return Some(Self(dir.to_path_buf()));
        }
        eprintln!("not tried: no file system can be mounted here");
        None
    }
}

#[cfg(target_os = "linux")]
impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(&self.0).status();
        assert!(unmounted.unwrap().success());
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error_at_every_stage_and_nothing_half_written_stays() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let weights = fs::metadata(model.join("model.safetensors")).unwrap().len() as usize;
    let place = dir.path().join("disk");
    // Room for less than the weights: found when it is reserved, before the work. Room for the weights, and not for what
    // comes with them: found at the end.
    for room in [weights / 2048, weights / 1024 + 40] {
        let Some(disk) = SmallDisk::at(&place, room, "") else {
            return;
        };
        let done = prune(&model, &place.join("out"), &["--calibration", "none"]);
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{room}: {said}");
        assert!(said.contains("not enough space"), "{room}: {said}");
        assert_eq!(names(&place), Vec::<String>::new(), "{room}");
        drop(disk);
    }
    // Room for the output, and none for the report: the output is whole, and the exit code says that something failed.
    let Some(_disk) = SmallDisk::at(&place, 4, "") else {
        return;
    };
    let report = place.join("report.json");
    let options = [
        "--calibration",
        "none",
        "--report",
        report.to_str().unwrap(),
    ];
    let out = dir.path().join("out");
    let done = prune(&model, &out, &options);
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot write the report"), "{said}");
    assert!(!report.exists() && out.join("model.safetensors").exists());
    // Norms of their own.
    let done = program()
        .arg("calibrate")
        .arg(&model)
        .args(["--tokens", "32", "--device", "cpu", "-o"])
        .arg(place.join("norms.safetensors"))
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", stderr(&done));
    assert_eq!(names(&place), Vec::<String>::new());
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_is_read_only_is_found_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let place = dir.path().join("disk");
    let Some(_disk) = SmallDisk::at(&place, 10_000, ",ro") else {
        return;
    };
    let done = prune(&model, &place.join("out"), &[]);
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("Read-only file system"), "{said}");
    assert!(!said.contains("calibrated"), "{said}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_mount_point_is_refused_as_an_output_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let place = dir.path().join("out");
    let Some(disk) = SmallDisk::at(&place, 10_000, "") else {
        return;
    };
    for options in [&[][..], &["--force"]] {
        let done = prune(&model, &place, options);
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains("is a mount point"), "{said}");
        assert!(!said.contains("calibrated"), "{said}");
    }
    drop(disk);
    assert_eq!(names(dir.path()), ["model", "out"]);
    let done = prune(&model, &place, &["--force", "--calibration", "none"]);
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
}

#[cfg(unix)]
#[test]
fn an_output_directory_that_goes_while_a_run_is_under_way_is_an_error_that_names_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let text = fs::read_to_string("src/text/builtin.txt").unwrap();
    fs::write(dir.path().join("text.txt"), text.repeat(LONG_TEXT)).unwrap();
    let place = dir.path().join("place");
    fs::create_dir(&place).unwrap();
    let run = program()
        .arg("prune")
        .arg(&model)
        .arg("-o")
        .arg(place.join("out"))
        .arg("--calibration")
        .arg(dir.path().join("text.txt"))
        .args(["--tokens", "12000", "--device", "cpu"])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_until(|| !names(&place).is_empty());
    // The run may put a file there between the emptying and the removal.
    wait_until(|| fs::remove_dir_all(&place).is_ok());
    let done = run.wait_with_output().unwrap();
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("place"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    assert_eq!(names(dir.path()), ["model", "text.txt"]);
}

#[cfg(unix)]
#[test]
fn a_closed_stderr_changes_nothing_and_a_closed_stdout_is_no_failure() {
    use std::process::Stdio;
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let out = dir.path().join("out");
    let run = |arguments: &[&str]| {
        let mut run = program();
        run.args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut run = run.spawn().unwrap();
        // Nobody reads either.
        drop((run.stdout.take(), run.stderr.take()));
        run.wait().unwrap().code()
    };
    let (model, to) = (model.to_str().unwrap(), out.to_str().unwrap());
    let prune = [
        "prune", model, "-o", to, "--device", "cpu", "--tokens", "32", "--json",
    ];
    assert_eq!(run(&prune), Some(0));
    assert!(out.join("model.safetensors").exists());
    assert_eq!(run(&prune), Some(1), "an error that nobody reads stays one");
    assert_eq!(run(&["verify", model, to]), Some(0));
    assert_eq!(
        run(&["eval", model, "--device", "cpu", "--tokens", "64"]),
        Some(0)
    );
    assert_eq!(run(&["devices"]), Some(0));
    assert_eq!(
        run(&["prune", model, "--dry-run", "--calibration", "none"]),
        Some(0)
    );
}

#[cfg(target_os = "linux")]
#[test]
fn paths_that_are_not_unicode_are_read_written_verified_and_reported() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join(OsStr::from_bytes(b"m\xff"));
    fs::create_dir(&inner).unwrap();
    example(&inner, |_, _| {});
    let out = inner.join(OsStr::from_bytes(b"o\xfe"));
    let done = program()
        .current_dir(&inner)
        .args(["prune", "model", "-o"])
        .arg(&out)
        .args(["--device", "cpu", "--tokens", "32", "--verify", "--eval"])
        .args(["--checksum", "--report", "run.json"])
        .output()
        .unwrap();
    assert_eq!(done.status.code(), Some(0), "{}", stderr(&done));
    let report: serde_json::Value =
        serde_json::from_slice(&fs::read(inner.join("run.json")).unwrap()).unwrap();
    assert!(report["output"].as_str().unwrap().ends_with("o\u{fffd}"));
    assert!(report["verified"]["bytes"].as_u64().unwrap() > 3_000_000);
}

/// A place with the example, norms of it and a text, and what a command says that is refused there.
struct Crowded {
    dir: tempfile::TempDir,
}

impl Crowded {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        example(dir.path(), |_, _| {});
        let text = fs::read_to_string("src/text/builtin.txt").unwrap();
        fs::write(dir.path().join("text.json"), text).unwrap();
        let place = Self { dir };
        let norms = "calibrate model -o norms.safetensors --tokens 64 --device cpu";
        assert_eq!(place.run(norms).0, Some(0));
        fs::copy(place.at("norms.safetensors"), place.at("norms.json")).unwrap();
        place
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, words: &str) -> (Option<i32>, String) {
        let done = program()
            .current_dir(self.dir.path())
            .args(words.split_whitespace())
            .output()
            .unwrap();
        (done.status.code(), stderr(&done))
    }

    /// That a command fails, says something, and changes nothing.
    #[track_caller]
    fn refuses(&self, words: &str, says: &str) {
        let before = tree(self.dir.path());
        let (code, said) = self.run(words);
        assert!(matches!(code, Some(1 | 2)), "{words}: {code:?} {said}");
        assert!(said.contains(says), "{words}: {said}");
        assert!(!said.contains("calibrating"), "{words}: after work: {said}");
        assert!(tree(self.dir.path()) == before, "{words}");
    }
}

#[test]
fn what_is_written_replaces_nothing_that_the_same_command_reads_or_writes() {
    let place = Crowded::new();
    let prune = "prune model -o out --device cpu --force";
    for (more, says) in [
        ("--report out/run.json", "it is inside the output, out"),
        ("--report out/deep/run.html", "it is inside the output, out"),
        ("--norms norms.json --report norms.json", "it is the norms"),
        (
            "--calibration text.json --report text.json",
            "it is the calibration text",
        ),
        ("--report model/config.json", "it is a file of the model"),
        ("--report a.json --report ./a.json", "it is another report"),
        (
            "--resume --report out.parts/run.json",
            "it is inside the parts",
        ),
    ] {
        place.refuses(&format!("{prune} {more}"), says);
    }
    // Whole outputs: a file in the place of norms, and a directory with norms in it.
    let file = "prune model/model.safetensors --device cpu --force";
    place.refuses(
        &format!("{file} --norms norms.safetensors -o norms.safetensors"),
        "it is the norms",
    );
    let (code, said) = place.run("prune model -o out --calibration none --device cpu");
    assert_eq!(code, Some(0), "{said}");
    fs::rename(
        place.at("norms.safetensors"),
        place.at("out/norms.safetensors"),
    )
    .unwrap();
    place.refuses(
        &format!("{prune} --norms out/norms.safetensors"),
        "it holds the norms",
    );
    place.refuses(
        &format!("{prune} --report out/run.json"),
        "it is inside the output",
    );
    fs::rename(
        place.at("out/norms.safetensors"),
        place.at("norms.safetensors"),
    )
    .unwrap();

    let calibrate = "calibrate model --device cpu --force";
    for (more, says) in [
        ("--text text.json -o text.json", "it is the text"),
        ("-o model/model.safetensors", "it is a file of the model"),
        ("-o model/tokenizer.json", "it is a file of the model"),
    ] {
        place.refuses(&format!("{calibrate} {more}"), says);
    }
    let sweep = "sweep model --sparsity 0.5 --eval-tokens 512 --device cpu";
    for (more, says) in [
        (
            "--norms norms.json -o norms.json --force",
            "it is the norms",
        ),
        ("--norms norms.json --state norms.json", "it is the norms"),
        (
            "--calibration text.json -o text.json --force",
            "it is the calibration text",
        ),
        (
            "--eval-text text.json -o text.json --force",
            "it is the text",
        ),
        ("--eval-text text.json --state text.json", "it is the text"),
        ("-o model/config.json --force", "it is a file of the model"),
        ("--state model/config.json", "it is a file of the model"),
        ("-o a.json --state a.json --force", "it is the state file"),
        ("-o a.json -o ./a.json --force", "it is another output"),
    ] {
        place.refuses(&format!("{sweep} {more}"), says);
    }
    fs::copy(place.at("out/report.json"), place.at("run.json")).unwrap();
    place.refuses(
        "report run.json -o run.json --force",
        "it is a report that is read",
    );

    // Parts.
    let part = "prune model -o x --norms norms.json --device cpu --part 1/1";
    assert_eq!(place.run(part).0, Some(0));
    for (more, says) in [
        ("--report x/run.json", "it is inside the output"),
        ("--report x.parts/run.json", "it is inside the parts"),
        ("--report norms.json", "it is the norms"),
        ("--report model/config.json", "it is a file of the model"),
    ] {
        place.refuses(&format!("merge x --force {more}"), says);
    }
    place.refuses(
        "merge x.parts/x --from x.parts --force",
        "it is inside the parts",
    );
}

#[test]
fn a_report_is_replaced_by_force_alone_and_refused_before_the_work() {
    let place = Crowded::new();
    let prune = "prune model -o out --calibration none --device cpu";
    fs::write(place.at("run.json"), "mine").unwrap();
    place.refuses(&format!("{prune} --report run.json"), "run.json exists");
    place.refuses(&format!("{prune} --report none/run.json"), "none");
    fs::create_dir(place.at("dir.json")).unwrap();
    place.refuses(
        &format!("{prune} --force --report dir.json"),
        "is a directory",
    );
    // A run that fails leaves the old one.
    place.refuses(
        &format!("{prune} --force --report run.json --exclude *"),
        "",
    );
    for _ in 0..2 {
        let (code, said) = place.run(&format!(
            "{prune} --force --report run.json --report run.html"
        ));
        assert_eq!(code, Some(0), "{said}");
        let report = fs::read_to_string(place.at("run.json")).unwrap();
        assert!(
            report.starts_with("{\n  \"report_schema_version\""),
            "{report}"
        );
        assert!(place.at("run.html").exists());
    }
    let part = "prune model -o x --calibration none --device cpu --part 1/1";
    assert_eq!(place.run(part).0, Some(0));
    place.refuses("merge x --report run.json", "run.json exists");
    let (code, said) = place.run("merge x --report run.json --force");
    assert_eq!(code, Some(0), "{said}");
    assert!(
        names(place.dir.path())
            .iter()
            .all(|name| !name.starts_with('.'))
    );
}
