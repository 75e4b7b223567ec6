//! A run that is cut into parts, or stopped and resumed, writes what a single run writes; and parts that do not fit together are
//! refused by name.

#[path = "faults/common.rs"]
#[allow(dead_code, reason = "the tests of faults use the rest")]
mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use common::{names, sharded_example, stderr, tree};

const FIRST: &str = "model-00001-of-00003.safetensors";
const SECOND: &str = "model-00002-of-00003.safetensors";

/// A directory with the example in three shards.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        sharded_example(dir.path());
        Self { dir }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_swiftprune-wgpu"));
        command.current_dir(self.dir.path()).args(words);
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().unwrap()
    }

    fn done(&self, words: &[&str]) -> Output {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        output
    }

    /// That this fails with a code and says all of `says`.
    fn refused(&self, words: &[&str], code: i32, says: &[&str]) {
        let output = self.run(words);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {said}");
        for text in says {
            assert!(said.contains(text), "{text}: {said}");
        }
    }

    fn prune<'a>(&self, out: &'a str, options: &[&'a str]) -> Vec<&'a str> {
        let base = ["prune", "model", "--device", "cpu", "-o", out];
        [&base, options].concat()
    }

    fn part(&self, out: &str, part: &str, options: &[&str]) {
        let words = self.prune(out, options);
        self.done(&[&words[..], &["--part", part]].concat());
    }

    /// Changes the last byte of a file.
    fn edit(&self, file: &str) {
        let path = self.at(file);
        let mut bytes = fs::read(&path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }

    /// Changes a record of a directory of parts.
    fn edit_record(&self, file: &str, edit: impl FnOnce(&mut Value)) {
        let path = self.at(file);
        let mut record: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        edit(&mut record);
        fs::write(path, record.to_string()).unwrap();
    }
}

const NONE: [&str; 2] = ["--calibration", "none"];

#[test]
fn parts_that_run_at_the_same_time_are_merged_to_what_a_single_run_writes() {
    let place = Place::new();
    place.done(&[
        "calibrate",
        "model",
        "-o",
        "norms",
        "--tokens",
        "256",
        "--device",
        "cpu",
    ]);
    let sketch = ["--tokens", "256", "--sketch", "16", "--device", "cpu"];
    place.done(&[&["calibrate", "model", "-o", "sketches"][..], &sketch].concat());
    let cases: [(&[&str], usize); 6] = [
        (&NONE, 2),
        (&["--norms", "norms"], 3),
        (&["--norms", "norms", "--pattern", "2:4"], 1),
        (
            &[
                "--norms",
                "norms",
                "--allocate",
                "owl",
                "--exclude",
                "*v_proj*",
            ],
            2,
        ),
        (
            &[
                "--norms",
                "norms",
                "--allocate",
                "atp",
                "--selection",
                "exact",
            ],
            3,
        ),
        (&["--norms", "sketches", "--compensate", "16"], 3),
    ];
    for (options, parts) in cases {
        place.done(
            &[
                &place.prune("single", options)[..],
                &["--report", "single.json"],
            ]
            .concat(),
        );
        let running: Vec<Child> = (1..=parts)
            .map(|part| {
                let part = format!("{part}/{parts}");
                let words = place.prune("out", options);
                let mut command = place.command(&words);
                command.args(["--part", &part]).stderr(Stdio::null());
                command.spawn().unwrap()
            })
            .collect();
        for mut part in running {
            assert!(part.wait().unwrap().success(), "{options:?}");
        }
        assert!(!place.at("out").exists());
        let merged = place.done(&["merge", "out", "--checksum", "--report", "merged.json"]);
        assert_eq!(
            tree(&place.at("single")),
            tree(&place.at("out")),
            "{options:?}"
        );
        assert!(!place.at("out.parts").exists(), "{}", stderr(&merged));
        same_reports(&place.at("single.json"), &place.at("merged.json"));
        for out in ["single", "out"] {
            fs::remove_dir_all(place.at(out)).unwrap();
        }
        for report in ["single.json", "merged.json"] {
            fs::remove_file(place.at(report)).unwrap();
        }
    }
}

/// That two reports say the same of what was done; paths, times and memory differ.
fn same_reports(single: &Path, merged: &Path) {
    let read = |path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let (single, merged) = (read(single), read(merged));
    for key in [
        "version",
        "device",
        "score",
        "selection",
        "compensation",
        "kinds",
        "blocks",
        "prunable",
        "left_dense",
        "all_weights",
        "tensors",
        "bytes",
        "copied",
        "left_out",
        "warnings",
    ] {
        assert_eq!(single.get(key), merged.get(key), "{key}");
    }
    assert!(merged["prunable"]["squared_error"].as_f64().unwrap() > 0.0);
    assert_eq!(merged["sha256"].as_object().unwrap().len(), 3);
}

#[test]
fn parts_in_separate_directories_are_merged() {
    let place = Place::new();
    place.done(&place.prune("single", &NONE));
    place.part("a", "1/2", &NONE);
    place.part("b", "2/2", &NONE);
    place.done(&["merge", "out", "--from", "a.parts", "b.parts", "--keep"]);
    assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
    assert!(place.at("a.parts").exists() && place.at("b.parts").exists());
    // The model may have moved meanwhile.
    fs::rename(place.at("model"), place.at("moved")).unwrap();
    place.refused(
        &["merge", "again", "--from", "a.parts", "b.parts"],
        1,
        &["model"],
    );
    let moved = ["--model", "moved"];
    place.done(
        &[
            &["merge", "again", "--from", "a.parts", "b.parts"][..],
            &moved,
        ]
        .concat(),
    );
    assert_eq!(tree(&place.at("single")), tree(&place.at("again")));
    assert_eq!(names(place.dir.path()), ["again", "moved", "out", "single"]);
}

#[test]
fn a_set_that_is_not_whole_is_refused_by_name() {
    let place = Place::new();
    place.refused(&["merge", "out"], 1, &["no parts of out"]);
    place.part("out", "1/2", &NONE);
    place.refused(
        &["merge", "out"],
        1,
        &["2 of 3 files of weights are missing", "--resume"],
    );
    place.part("b", "1/2", &NONE);
    place.part("b", "2/2", &NONE);
    let both = ["merge", "c", "--from", "out.parts", "b.parts"];
    place.refused(&both, 1, &["out.parts", "b.parts", "leave one of them out"]);
    // A file without a record is nothing, whatever it holds.
    let missing = names(&place.at("b.parts"));
    let missing = missing
        .iter()
        .find(|name| !place.at("out.parts").join(name).exists());
    let missing = missing.unwrap();
    fs::copy(
        place.at("b.parts").join(missing),
        place.at("out.parts").join(missing),
    )
    .unwrap();
    place.refused(&["merge", "out"], 1, &["missing in out.parts", missing]);
    assert!(!place.at("out").exists() && !place.at("c").exists());
    // Nor is the directory of parts a model, even with all shards in it.
    place.refused(&["prune", "b.parts", "-o", "x"], 1, &["b.parts"]);
}

#[test]
fn parts_of_other_options_norms_versions_or_inputs_are_refused_by_what_differs() {
    let place = Place::new();
    place.part("out", "1/2", &NONE);
    let second = ["--part", "2/2"];
    for (options, says) in [
        (
            &["--sparsity", "0.3"][..],
            "selection.sparsity is 0.5, not 0.3",
        ),
        (&["--pattern", "2:4"], "selection.rule is ewma, not pattern"),
        (&["--score", "magnitude"], "score is ria, not magnitude"),
        (&["--exclude", "*q_proj*"], "exclude is [], not"),
    ] {
        let words = place.prune("out", &NONE);
        place.refused(
            &[&words[..], options, &second].concat(),
            1,
            &["other settings", says],
        );
    }
    for tokens in ["128", "256"] {
        let model = [
            "calibrate",
            "model",
            "--device",
            "cpu",
            "--tokens",
            tokens,
            "-o",
        ];
        place.done(&[&model[..], &[tokens]].concat());
    }
    place.part("n", "1/2", &["--norms", "128"]);
    let words = place.prune("n", &["--norms", "256", "--part", "2/2"]);
    place.refused(&words, 1, &["norms_sha256 is"]);

    // Parts that were copied together.
    place.part(
        "other",
        "2/2",
        &["--calibration", "none", "--sparsity", "0.3"],
    );
    let both = ["merge", "x", "--from", "out.parts", "other.parts"];
    place.refused(
        &both,
        1,
        &["other.parts", "selection.sparsity is 0.3, not 0.5"],
    );

    // Another version of this program.
    place.part("out", "2/2", &NONE);
    let record = format!("out.parts/manifest/{FIRST}.json");
    place.edit_record(&record, |record| {
        record["settings"]["version"] = "0.0.1".into()
    });
    let says = ["manifest", "version is 0.0.1, not"];
    place.refused(&["merge", "out"], 1, &says);
    place.edit_record(&record, |record| {
        record["settings"]["version"] = env!("CARGO_PKG_VERSION").into();
    });

    // A weight of the input that has changed after its part was made.
    place.edit(&format!("model/{FIRST}"));
    place.refused(&["merge", "out"], 1, &[FIRST, "the input's SHA-256 is not"]);
    place.edit(&format!("model/{FIRST}"));
    // A byte of a part.
    place.edit(&format!("out.parts/{SECOND}"));
    place.refused(&["merge", "out"], 1, &[SECOND, "its SHA-256 is not"]);
    place.edit(&format!("out.parts/{SECOND}"));
    // Whose time of change differs, but not their bytes.
    place.done(&["merge", "out"]);
    place.done(&place.prune("single", &NONE));
    assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
}

#[test]
fn what_cannot_be_cut_into_parts_is_refused_with_the_way_on() {
    let place = Place::new();
    let refused = |options: &[&str], says: &[&str]| {
        place.refused(&place.prune("out", options), 2, says);
    };
    refused(
        &["--part", "1/2"],
        &["needs column norms from a file", "calibrate MODEL"],
    );
    refused(
        &["--part", "1/4", "--calibration", "none"],
        &["3 parts at most, not 4"],
    );
    refused(&["--part", "3/2", "--calibration", "none"], &["K/N"]);
    let file = format!("model/{FIRST}");
    let words = ["prune", &file, "--part", "1/1", "--calibration", "none"];
    place.refused(&words, 2, &["single file", "leave --part out"]);
    fs::create_dir(place.at("out.parts")).unwrap();
    fs::write(place.at("out.parts/mine"), "").unwrap();
    let words = place.prune("out", &["--part", "1/2", "--calibration", "none"]);
    place.refused(
        &words,
        1,
        &["out.parts", "is not a directory that holds parts"],
    );
    assert_eq!(names(&place.at("out.parts")), ["mine"]);
}

#[test]
fn a_part_that_is_finished_is_kept_or_refused_as_asked() {
    let place = Place::new();
    place.part("out", "1/2", &NONE);
    let again = |more: &[&'static str]| {
        let words = place.prune("out", &NONE);
        [&words[..], &["--part", "1/2"], more].concat()
    };
    place.refused(&again(&[]), 1, &["is finished already", "--resume"]);
    let before = times(&place.at("out.parts"));
    let kept = place.done(&again(&["--resume"]));
    assert!(
        stderr(&kept).contains("finished before"),
        "{}",
        stderr(&kept)
    );
    assert_eq!(times(&place.at("out.parts")), before);
    place.done(&again(&["--force"]));
    assert_ne!(times(&place.at("out.parts")), before);
}

/// The files of weights of a directory, and when they were written.
fn times(dir: &Path) -> Vec<(String, std::time::SystemTime)> {
    let weights = names(dir).into_iter();
    weights
        .filter(|name| name.ends_with(".safetensors"))
        .map(|name| {
            let time = dir.join(&name).metadata().unwrap().modified().unwrap();
            (name, time)
        })
        .collect()
}

#[test]
fn a_resumed_run_keeps_what_is_right_and_prunes_the_rest() {
    let place = Place::new();
    place.done(&place.prune("single", &NONE));
    place.part("out", "2/2", &NONE);
    let before = times(&place.at("out.parts"));
    assert_eq!(before.len(), 2);
    let resume = [&place.prune("out", &NONE)[..], &["--resume"]].concat();
    // Other options are refused, and nothing is lost.
    let other = [&resume[..], &["--sparsity", "0.3"]].concat();
    place.refused(&other, 1, &["selection.sparsity is 0.5, not 0.3"]);
    // One of the two has been damaged, or its input replaced.
    for damaged in ["out.parts", "model"] {
        let (file, _) = &before[0];
        place.edit(&format!("{damaged}/{file}"));
        let resumed = place.done(&resume);
        let said = stderr(&resumed);
        assert!(said.contains("kept    1 of 3"), "{said}");
        assert!(said.contains("is pruned again: "), "{said}");
        if damaged == "out.parts" {
            assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
        } else {
            assert_ne!(tree(&place.at("single")), tree(&place.at("out")));
            place.edit(&format!("{damaged}/{file}"));
        }
        assert!(!place.at("out.parts").exists());
        fs::remove_dir_all(place.at("out")).unwrap();
        place.part("out", "2/2", &NONE);
    }
}

#[test]
fn a_run_that_is_killed_anywhere_and_resumed_writes_what_a_single_run_writes() {
    // One measures its norms itself: those are kept, too.
    for (options, kills) in [(["--tokens", "64"], 6), (NONE, 12)] {
        survive(&options, kills);
    }
}

/// Kills runs in even steps from their start to their end, and resumes each.
fn survive(options: &[&str], kills: u32) {
    let place = Place::new();
    place.done(&place.prune("single", options));
    let expected = tree(&place.at("single"));
    let words = [&place.prune("out", options)[..], &["--resume"]].concat();
    let start = || {
        let mut command = place.command(&words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let begin = Instant::now();
    assert!(start().wait().unwrap().success());
    let took = begin.elapsed();
    assert_eq!(tree(&place.at("out")), expected);
    let mut seen = std::collections::BTreeMap::new();
    for kill in 0..kills {
        fs::remove_dir_all(place.at("out")).unwrap();
        let mut run = start();
        std::thread::sleep(took * kill / kills);
        run.kill().unwrap();
        if !run.wait().unwrap().success() {
            let manifest = place.at("out.parts/manifest");
            let records = manifest.is_dir().then(|| names(&manifest));
            let records = records.unwrap_or_default().into_iter();
            let finished = records.filter(|name| name.starts_with("model-")).count();
            *seen.entry(finished).or_insert(0) += 1;
            assert!(!place.at("out").exists() || tree(&place.at("out")) == expected);
        }
        if !place.at("out").exists() {
            assert!(start().wait().unwrap().success());
        }
        assert_eq!(tree(&place.at("out")), expected, "after kill {kill}");
        let all = names(place.dir.path());
        let left: Vec<_> = all.iter().filter(|name| name.starts_with(".out")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    println!("{options:?}: killed with so many shards finished: {seen:?}");
}

#[test]
fn a_run_that_is_killed_between_two_shards_keeps_the_first() {
    let place = Place::new();
    place.done(&place.prune("single", &NONE));
    // Slow enough to be killed in between: the same model with one shard much longer.
    let words = [&place.prune("out", &NONE)[..], &["--resume"]].concat();
    let mut kept = 0;
    for _ in 0..50 {
        let mut run = place.command(&words);
        let mut run = run.stderr(Stdio::null()).spawn().unwrap();
        let record = place.at(&format!("out.parts/manifest/{FIRST}.json"));
        let begin = Instant::now();
        while !record.exists() && begin.elapsed() < Duration::from_secs(60) {
            std::hint::spin_loop();
        }
        let _ = run.kill();
        let finished = run.wait().unwrap().success();
        if !finished && record.exists() {
            let time = times(&place.at("out.parts"))[0].1;
            let resumed = place.done(&words);
            assert!(
                stderr(&resumed).contains("kept    "),
                "{}",
                stderr(&resumed)
            );
            assert_eq!(times(&place.at("out"))[0].1, time);
            kept += 1;
        } else if !place.at("out").exists() {
            place.done(&words);
        }
        assert_eq!(tree(&place.at("out")), tree(&place.at("single")));
        assert_eq!(names(place.dir.path()), ["model", "out", "single"]);
        fs::remove_dir_all(place.at("out")).unwrap();
        if kept == 3 {
            return;
        }
    }
    panic!("no run was killed between its shards");
}

/// The script that does without Slurm what the job array does with it.
#[cfg(unix)]
#[test]
fn the_script_of_plain_processes_writes_what_a_single_run_writes() {
    let place = Place::new();
    let norms = place.at("norms");
    let calibrate = [
        "calibrate",
        "model",
        "--tokens",
        "64",
        "--device",
        "cpu",
        "-o",
    ];
    place.done(&[&calibrate[..], &["norms"]].concat());
    place.done(&place.prune("single", &["--norms", "norms", "--pattern", "2:4"]));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/slurm/processes.sh");
    let done = Command::new(script)
        .env("MODEL", place.at("model"))
        .env("OUTPUT", place.at("out"))
        .env("NORMS", norms)
        .env("PARTS", "3")
        .env("OPTIONS", "--pattern 2:4")
        .env("SWIFTPRUNE", env!("CARGO_BIN_EXE_swiftprune-wgpu"))
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(tree(&place.at("single")), tree(&place.at("out")));
    assert!(place.at("out.report.json").exists());
}
