//! Parts that are merged, and those that are not.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{FIRST, NONE, SECOND};
use crate::place::{PROGRAM, Place, names, stderr, tree};

#[test]
fn parts_that_run_at_the_same_time_are_merged_to_what_a_single_run_writes() {
    let place = Place::sharded();
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
        assert!(!place.path("out").exists());
        let merged = place.done(&["merge", "out", "--checksum", "--report", "merged.json"]);
        assert_eq!(
            tree(&place.path("single")),
            tree(&place.path("out")),
            "{options:?}"
        );
        assert!(!place.path("out.parts").exists(), "{}", stderr(&merged));
        same_reports(&place.path("single.json"), &place.path("merged.json"));
        for out in ["single", "out"] {
            fs::remove_dir_all(place.path(out)).unwrap();
        }
        for report in ["single.json", "merged.json"] {
            fs::remove_file(place.path(report)).unwrap();
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
    let place = Place::sharded();
    place.done(&place.prune("single", &NONE));
    place.part("a", "1/2", &NONE);
    place.part("b", "2/2", &NONE);
    place.done(&["merge", "out", "--from", "a.parts", "b.parts", "--keep"]);
    assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
    assert!(place.path("a.parts").exists() && place.path("b.parts").exists());
    // The model may have moved meanwhile.
    fs::rename(place.path("model"), place.path("moved")).unwrap();
    place.refused_as(
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
    assert_eq!(tree(&place.path("single")), tree(&place.path("again")));
    assert_eq!(names(place.dir.path()), ["again", "moved", "out", "single"]);
}

#[test]
fn a_set_that_is_not_whole_is_refused_by_name() {
    let place = Place::sharded();
    place.refused_as(&["merge", "out"], 1, &["no parts of out"]);
    place.part("out", "1/2", &NONE);
    place.refused_as(
        &["merge", "out"],
        1,
        &["2 of 3 files of weights are missing", "--resume"],
    );
    place.part("b", "1/2", &NONE);
    place.part("b", "2/2", &NONE);
    let both = ["merge", "c", "--from", "out.parts", "b.parts"];
    place.refused_as(&both, 1, &["out.parts", "b.parts", "leave one of them out"]);
    // A file without a record is nothing, whatever it holds.
    let missing = names(&place.path("b.parts"));
    let missing = missing
        .iter()
        .find(|name| !place.path("out.parts").join(name).exists());
    let missing = missing.unwrap();
    fs::copy(
        place.path("b.parts").join(missing),
        place.path("out.parts").join(missing),
    )
    .unwrap();
    place.refused_as(&["merge", "out"], 1, &["missing in out.parts", missing]);
    assert!(!place.path("out").exists() && !place.path("c").exists());
    // Nor is the directory of parts a model, even with all shards in it.
    place.refused_as(&["prune", "b.parts", "-o", "x"], 1, &["b.parts"]);
}

#[test]
fn parts_of_other_options_norms_versions_or_inputs_are_refused_by_what_differs() {
    let place = Place::sharded();
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
        place.refused_as(
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
    place.refused_as(&words, 1, &["norms_sha256 is"]);

    // Parts that were copied together.
    place.part(
        "other",
        "2/2",
        &["--calibration", "none", "--sparsity", "0.3"],
    );
    let both = ["merge", "x", "--from", "out.parts", "other.parts"];
    place.refused_as(
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
    place.refused_as(&["merge", "out"], 1, &says);
    place.edit_record(&record, |record| {
        record["settings"]["version"] = env!("CARGO_PKG_VERSION").into();
    });

    // A weight of the input that has changed after its part was made.
    place.edit(&format!("model/{FIRST}"));
    place.refused_as(&["merge", "out"], 1, &[FIRST, "the input's SHA-256 is not"]);
    place.edit(&format!("model/{FIRST}"));
    // A byte of a part.
    place.edit(&format!("out.parts/{SECOND}"));
    place.refused_as(&["merge", "out"], 1, &[SECOND, "its SHA-256 is not"]);
    place.edit(&format!("out.parts/{SECOND}"));
    // Whose mtime differs, but not their bytes.
    place.done(&["merge", "out"]);
    place.done(&place.prune("single", &NONE));
    assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
}

#[test]
fn what_cannot_be_cut_into_parts_is_refused_with_the_way_on() {
    let place = Place::sharded();
    let refused = |options: &[&str], says: &[&str]| {
        place.refused_as(&place.prune("out", options), 2, says);
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
    place.refused_as(&words, 2, &["single file", "leave --part out"]);
    fs::create_dir(place.path("out.parts")).unwrap();
    fs::write(place.path("out.parts/mine"), "").unwrap();
    let words = place.prune("out", &["--part", "1/2", "--calibration", "none"]);
    place.refused_as(
        &words,
        1,
        &["out.parts", "is not a directory that holds parts"],
    );
    assert_eq!(names(&place.path("out.parts")), ["mine"]);
}

/// The script that does without Slurm what the job array does with it.
#[cfg(unix)]
#[test]
fn the_script_of_plain_processes_writes_what_a_single_run_writes() {
    let place = Place::sharded();
    let norms = place.path("norms");
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
        .env("MODEL", place.path("model"))
        .env("OUTPUT", place.path("out"))
        .env("NORMS", norms)
        .env("PARTS", "3")
        .env("OPTIONS", "--pattern 2:4")
        .env("SWIFTPRUNE", PROGRAM)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
    assert!(place.path("out.report.json").exists());
}

/// Parts whose output is in place, as a merge leaves them that is killed when it has removed the first.
fn killed_while_removing(place: &Place) {
    place.part("out", "1/1", &NONE);
    place.done(&["merge", "out", "--keep"]);
    let manifest = place.path("out.parts/manifest");
    fs::rename(manifest.join("run.json"), manifest.join("merged.json")).unwrap();
    fs::remove_file(manifest.join(format!("{FIRST}.json"))).unwrap();
    fs::remove_file(place.path("out.parts").join(FIRST)).unwrap();
}

#[test]
fn what_a_merge_that_was_killed_has_left_is_explained_and_removed() {
    let place = Place::sharded();
    let whole = "is whole: an earlier run has put it together";
    killed_while_removing(&place);
    let before = tree(&place.path("out"));
    let again = place.done(&["merge", "out"]);
    assert!(stderr(&again).contains(whole), "{}", stderr(&again));
    assert_eq!(names(place.dir.path()), ["model", "out"]);
    assert_eq!(tree(&place.path("out")), before);

    // By other commands, too.
    for more in [&[][..], &["--resume"], &["--part", "1/2"]] {
        fs::remove_dir_all(place.path("out")).unwrap();
        killed_while_removing(&place);
        let words = [&place.prune("out", &NONE)[..], more].concat();
        place.refused_as(&words, 1, &[whole, "out exists"]);
        assert_eq!(names(place.dir.path()), ["model", "out"], "{more:?}");
    }
    // The two directories are the last to go.
    fs::create_dir_all(place.path("out.parts/manifest")).unwrap();
    place.done(&["merge", "out"]);
    assert_eq!(names(place.dir.path()), ["model", "out"]);

    // Should the output be gone, what is left of the parts is kept.
    fs::remove_dir_all(place.path("out")).unwrap();
    killed_while_removing(&place);
    fs::remove_dir_all(place.path("out")).unwrap();
    place.refused_as(
        &["merge", "out"],
        1,
        &["1 of 3 files of weights are missing"],
    );
    place.done(&[&place.prune("out", &NONE)[..], &["--resume"]].concat());
    assert_eq!(tree(&place.path("out")), before);
}

#[test]
fn a_file_of_ones_own_among_the_parts_is_left() {
    let place = Place::sharded();
    place.part("out", "1/1", &NONE);
    fs::write(place.path("out.parts/mine"), "mine").unwrap();
    // A record that leads elsewhere is not followed.
    place.done(&["merge", "out", "--keep"]);
    fs::write(place.path("precious"), "mine").unwrap();
    let manifest = place.path("out.parts/manifest");
    fs::rename(manifest.join("run.json"), manifest.join("merged.json")).unwrap();
    place.edit_record("out.parts/manifest/merged.json", |record| {
        record["input"][0]["file"] = "../precious".into();
    });
    place.done(&["merge", "out"]);
    assert!(place.path("out.parts/mine").exists() && place.path("precious").exists());
}

#[test]
fn an_output_that_is_there_with_its_parts_is_said_to_be() {
    let place = Place::sharded();
    place.part("out", "1/1", &NONE);
    place.done(&["merge", "out", "--keep"]);
    let says = ["out exists, and out.parts holds finished files", "--force"];
    place.refused_as(&["merge", "out"], 1, &says);
    let resume = [&place.prune("out", &NONE)[..], &["--resume"]].concat();
    place.refused_as(&resume, 1, &says);
    let done = place.done(&[&resume[..], &["--force", "--verify"]].concat());
    assert!(
        stderr(&done).contains("kept    3 of 3"),
        "{}",
        stderr(&done)
    );
    assert_eq!(names(place.dir.path()), ["model", "out"]);
}

/// Merges that are killed at any moment, and the next command.
#[test]
fn a_merge_that_is_killed_anywhere_leaves_the_output_or_the_parts() {
    use std::time::Instant;

    let place = Place::sharded();
    place.done(&place.prune("single", &NONE));
    let expected = tree(&place.path("single"));
    let start = || {
        place
            .command(&["merge", "out"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    place.part("out", "1/1", &NONE);
    let begin = Instant::now();
    assert!(start().wait().unwrap().success());
    let took = begin.elapsed();
    let (mut killed, mut in_cleanup) = (0, 0);
    const KILLS: u32 = 24;
    for kill in 0..KILLS {
        fs::remove_dir_all(place.path("out")).unwrap();
        place.part("out", "1/1", &NONE);
        let mut merge = start();
        // Rather late: what is removed is removed at the end.
        std::thread::sleep(took / 2 + took * kill / KILLS / 2);
        merge.kill().unwrap();
        killed += u32::from(!merge.wait().unwrap().success());
        let is_there = place.path("out").exists();
        assert!(!is_there || tree(&place.path("out")) == expected, "{kill}");
        let merged = place.path("out.parts/manifest/merged.json").exists();
        in_cleanup += u32::from(merged);
        if place.path("out.parts").exists() {
            let mut words = vec!["merge", "out"];
            if is_there && !merged && place.path("out.parts/manifest/run.json").exists() {
                words.push("--force");
            }
            place.done(&words);
        }
        assert_eq!(tree(&place.path("out")), expected, "{kill}");
        assert_eq!(
            names(place.dir.path()),
            ["model", "out", "single"],
            "{kill}"
        );
    }
    println!("killed {killed} of {KILLS}, {in_cleanup} of them while they removed the parts");
}
