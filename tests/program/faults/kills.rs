//! SIGKILL at any moment: the output is there and whole, or it is not there.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::place::{example, names, program, sharded_example, tree};

/// How many runs are killed; 200 of them take some minutes.
const VARIABLE: &str = "SWIFTPRUNE_KILLS";
const KILLS: u32 = 16;

#[test]
fn a_killed_run_leaves_the_old_output_or_the_new_one_or_none_and_the_next_run_removes_the_rest() {
    let kills = std::env::var(VARIABLE).map_or(KILLS, |count| count.parse().unwrap());
    let mut seen = Seen::default();
    for is_sharded in [false, true] {
        for over_an_old_one in [false, true] {
            survive(kills / 4, is_sharded, over_an_old_one, &mut seen);
        }
    }
    println!("{seen:?}");
    assert_eq!(seen.killed + seen.finished_before, kills / 4 * 4);
    // Else the kills came too late to show anything.
    assert!(seen.killed * 2 >= seen.finished_before, "{seen:?}");
}

#[derive(Debug, Default)]
struct Seen {
    killed: u32,
    finished_before: u32,
    /// What was left of the killed runs.
    without_output: u32,
    with_the_old_one: u32,
    with_the_new_one: u32,
    with_something_staged: u32,
}

fn survive(kills: u32, is_sharded: bool, over_an_old_one: bool, seen: &mut Seen) {
    let dir = tempfile::tempdir().unwrap();
    let model = if is_sharded {
        sharded_example(dir.path())
    } else {
        example(dir.path(), |_, _| {})
    };
    let input = tree(&model);
    let out = dir.path().join("out");
    // Once to the end: how long it takes, and what it gives.
    let begin = Instant::now();
    assert!(start(dir.path(), "0.5").wait().unwrap().success());
    let took = begin.elapsed();
    let new = tree(&out);
    fs::remove_dir_all(&out).unwrap();
    assert!(start(dir.path(), "0.25").wait().unwrap().success());
    let old = tree(&out);
    assert_ne!(old, new);
    for kill in 0..kills {
        if out.exists() {
            fs::remove_dir_all(&out).unwrap();
        }
        if over_an_old_one {
            assert!(start(dir.path(), "0.25").wait().unwrap().success());
        }
        let mut run = start(dir.path(), "0.5");
        // From its start to its end, in even steps.
        std::thread::sleep(took * kill / kills + Duration::from_millis(1));
        run.kill().unwrap();
        if run.wait().unwrap().success() {
            seen.finished_before += 1;
            continue;
        }
        seen.killed += 1;
        let all = names(dir.path());
        seen.with_something_staged += u32::from(all.iter().any(|name| name.starts_with(".out.")));
        if !out.exists() {
            assert!(!over_an_old_one, "neither the old output nor the new one");
            seen.without_output += 1;
            continue;
        }
        let left = tree(&out);
        assert!(
            left == new || over_an_old_one && left == old,
            "a damaged output"
        );
        if left == new {
            seen.with_the_new_one += 1
        } else {
            seen.with_the_old_one += 1
        }
    }
    assert!(start(dir.path(), "0.5").wait().unwrap().success());
    assert_eq!(tree(&out), new);
    assert_eq!(names(dir.path()), ["model", "out"]);
    assert_eq!(tree(&model), input, "the input was changed");
}

fn start(dir: &Path, sparsity: &str) -> Child {
    program()
        .arg("prune")
        .arg(dir.join("model"))
        .arg("-o")
        .arg(dir.join("out"))
        .args(["--calibration", "none", "--device", "cpu", "--force"])
        .args(["--sparsity", sparsity])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
