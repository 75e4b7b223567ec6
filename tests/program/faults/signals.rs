//! A run that is stopped or killed.

use crate::place::{is_ignored, kill, names, prune, staged, start, stderr, under_way, wait_until};

#[test]
fn a_signal_stops_the_run_and_leaves_nothing() {
    for (signal, number) in [("INT", 2), ("TERM", 15), ("HUP", 1)] {
        if is_ignored(number) {
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
