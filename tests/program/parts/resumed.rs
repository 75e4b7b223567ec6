//! Runs that go on.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{FIRST, NONE};
use crate::place::{Place, names, stderr, tree};

#[test]
fn a_part_that_is_finished_is_kept_or_refused_as_asked() {
    let place = Place::sharded();
    place.part("out", "1/2", &NONE);
    let again = |more: &[&'static str]| {
        let words = place.prune("out", &NONE);
        [&words[..], &["--part", "1/2"], more].concat()
    };
    place.refused_as(&again(&[]), 1, &["is finished already", "--resume"]);
    let before = times(&place.path("out.parts"));
    let kept = place.done(&again(&["--resume"]));
    assert!(
        stderr(&kept).contains("finished before"),
        "{}",
        stderr(&kept)
    );
    assert_eq!(times(&place.path("out.parts")), before);
    place.done(&again(&["--force"]));
    assert_ne!(times(&place.path("out.parts")), before);
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
    let place = Place::sharded();
    place.done(&place.prune("single", &NONE));
    place.part("out", "2/2", &NONE);
    let before = times(&place.path("out.parts"));
    assert_eq!(before.len(), 2);
    let resume = [&place.prune("out", &NONE)[..], &["--resume"]].concat();
    // Other options are refused, and nothing is lost.
    let other = [&resume[..], &["--sparsity", "0.3"]].concat();
    place.refused_as(&other, 1, &["selection.sparsity is 0.5, not 0.3"]);
    // One of the two has been damaged, or its input replaced.
    for damaged in ["out.parts", "model"] {
        let (file, _) = &before[0];
        place.edit(&format!("{damaged}/{file}"));
        let resumed = place.done(&resume);
        let said = stderr(&resumed);
        assert!(said.contains("kept    1 of 3"), "{said}");
        assert!(said.contains("is pruned again: "), "{said}");
        if damaged == "out.parts" {
            assert_eq!(tree(&place.path("single")), tree(&place.path("out")));
        } else {
            assert_ne!(tree(&place.path("single")), tree(&place.path("out")));
            place.edit(&format!("{damaged}/{file}"));
        }
        assert!(!place.path("out.parts").exists());
        fs::remove_dir_all(place.path("out")).unwrap();
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
    let place = Place::sharded();
    place.done(&place.prune("single", options));
    let expected = tree(&place.path("single"));
    let words = [&place.prune("out", options)[..], &["--resume"]].concat();
    let start = || {
        let mut command = place.command(&words);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    };
    let begin = Instant::now();
    assert!(start().wait().unwrap().success());
    let took = begin.elapsed();
    assert_eq!(tree(&place.path("out")), expected);
    let mut seen = std::collections::BTreeMap::new();
    for kill in 0..kills {
        fs::remove_dir_all(place.path("out")).unwrap();
        let mut run = start();
        std::thread::sleep(took * kill / kills);
        run.kill().unwrap();
        if !run.wait().unwrap().success() {
            let manifest = place.path("out.parts/manifest");
            let records = manifest.is_dir().then(|| names(&manifest));
            let records = records.unwrap_or_default().into_iter();
            let finished = records.filter(|name| name.starts_with("model-")).count();
            *seen.entry(finished).or_insert(0) += 1;
            assert!(!place.path("out").exists() || tree(&place.path("out")) == expected);
        }
        if !place.path("out").exists() {
            assert!(start().wait().unwrap().success());
            let all = names(place.dir.path());
            let left: Vec<_> = all.iter().filter(|name| name.starts_with(".out")).collect();
            assert!(left.is_empty(), "{left:?}");
        }
        assert_eq!(tree(&place.path("out")), expected, "after kill {kill}");
    }
    println!("{options:?}: killed with so many shards finished: {seen:?}");
}

#[test]
fn a_run_that_is_killed_between_two_shards_keeps_the_first() {
    let place = Place::sharded();
    place.done(&place.prune("single", &NONE));
    // Slow enough to be killed in between: the same model with one shard much longer.
    let words = [&place.prune("out", &NONE)[..], &["--resume"]].concat();
    let mut kept = 0;
    for _ in 0..50 {
        let mut run = place.command(&words);
        let mut run = run.stderr(Stdio::null()).spawn().unwrap();
        let record = place.path(&format!("out.parts/manifest/{FIRST}.json"));
        let begin = Instant::now();
        while !record.exists() && begin.elapsed() < Duration::from_secs(60) {
            std::hint::spin_loop();
        }
        let _ = run.kill();
        let finished = run.wait().unwrap().success();
        if !finished && record.exists() {
            let time = times(&place.path("out.parts"))[0].1;
            let resumed = place.done(&words);
            assert!(
                stderr(&resumed).contains("kept    "),
                "{}",
                stderr(&resumed)
            );
            assert_eq!(times(&place.path("out"))[0].1, time);
            kept += 1;
        } else if !place.path("out").exists() {
            place.done(&words);
        }
        assert_eq!(tree(&place.path("out")), tree(&place.path("single")));
        assert_eq!(names(place.dir.path()), ["model", "out", "single"]);
        fs::remove_dir_all(place.path("out")).unwrap();
        if kept == 3 {
            return;
        }
    }
    panic!("no run was killed between its shards");
}

#[test]
fn the_state_of_a_run_is_kept_until_its_output_is_verified_and_hashed() {
    use swiftprune_wgpu::device::DeviceChoice;
    use swiftprune_wgpu::plan::{Options, Selection};
    use swiftprune_wgpu::run::{Event, NormsRequest, Phase, Request, run};

    let place = Place::sharded();
    let model = place.path("model").into_os_string().into_string().unwrap();
    let mut request = Request::new(model, Options::new(Selection::Exact { sparsity: 0.5 }));
    request.output = Some(place.path("out"));
    request.norms = NormsRequest::WeightsOnly;
    request.device = DeviceChoice::Cpu;
    (request.resume, request.verify, request.checksum) = (true, true, true);
    let seen = Mutex::new(Vec::new());
    run(request, &|event| {
        if let Event::Started(phase) | Event::Finished { phase, .. } = event {
            let record = place
                .path("out.parts/manifest")
                .join(format!("{FIRST}.json"));
            let is_there = place.path("out.parts").join(FIRST).exists() && record.exists();
            seen.lock().push((phase, is_there));
        }
    })
    .unwrap();
    let seen = seen.into_inner();
    for phase in [Phase::Verify, Phase::Checksum] {
        let there = seen
            .iter()
            .filter(|(of, is_there)| *of == phase && *is_there);
        assert_eq!(there.count(), 2, "{seen:?}");
    }
    assert!(!place.path("out.parts").exists());
}
