//! A device that fails in the middle of a run, as a user sees it. `src/run/tests.rs` has every fault on every adapter.

use std::fs;

use swiftprune_wgpu::device::devices;

use crate::place::{example, program, prune, stderr};

#[test]
fn a_device_that_is_lost_is_told_of_at_once_and_at_the_end_and_in_the_report() {
    let Some(adapter) = devices().into_iter().next() else {
        eprintln!("not tried: there is no adapter here");
        return;
    };
    if !cfg!(debug_assertions) {
        eprintln!("not tried: a release build has no faults to commit");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = example(dir.path(), |_, _| {});
    let (by_cpu, out) = (dir.path().join("by-cpu"), dir.path().join("out"));
    assert!(
        prune(&model, &by_cpu, &["--calibration", "none"])
            .status
            .success()
    );
    let report = dir.path().join("report.json");
    let done = program()
        .env("SWIFTPRUNE_FAULT", "lose-device:2")
        .arg("prune")
        .arg(&model)
        .arg("-o")
        .arg(&out)
        .arg("--report")
        .arg(&report)
        .args(["--calibration", "none", "--device"])
        .arg(adapter.index.unwrap().to_string())
        .output()
        .unwrap();
    let said = stderr(&done);
    assert_eq!(done.status.code(), Some(0), "{said}");
    let what = "failed: the device was lost. The CPU does the rest of the pruning, and the bytes are the same";
    assert_eq!(said.matches(what).count(), 1, "once: {said}");
    let last = said.lines().last().unwrap_or_default();
    assert!(last.ends_with("and, after it failed, the CPU"), "{said}");
    let weights = |dir: &std::path::Path| fs::read(dir.join("model.safetensors")).unwrap();
    assert!(weights(&out) == weights(&by_cpu), "other bytes");
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let failure = report["device_failures"][0].as_str().unwrap();
    assert!(failure.contains(what), "{failure}");
}
