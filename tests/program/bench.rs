//! `bench`: every case is measured, and a record says the same after a journey through JSON.

use std::path::PathBuf;

use swiftprune_wgpu::bench::compare::compare;
use swiftprune_wgpu::bench::{BenchOptions, Record, run};
use swiftprune_wgpu::device::{Device, DeviceChoice, devices};
use swiftprune_wgpu::internals::{MATRICES, passes};

fn record(device: &Device) -> Record {
    let mut options = BenchOptions::new(None::<PathBuf>);
    options.quick = true;
    options.samples = 2;
    run(device, &options, &|_| ()).expect("a device that works")
}

fn check(device: &Device) {
    let record = record(device);
    let expected = MATRICES.len() * passes(1).len();
    assert_eq!(record.cases.len(), expected, "{}", device.info());
    for case in &record.cases {
        let what = format!("{} of {} on {}", case.what, case.of, device.info());
        assert_eq!(case.wall.len(), 2, "{what}");
        assert!(case.seconds().iter().all(|&s| s > 0.0), "{what}");
        let rate = case.rate(case.bytes).expect("a rate");
        assert!(rate.is_finite() && rate > 0.0, "{what}: {rate}");
        assert!(
            record.copy_rate(&case.of).is_some(),
            "{what}: no copy beside it"
        );
    }
    assert!(!record.machine.os.is_empty() && !record.machine.cpu.is_empty());
    assert!(record.date.ends_with('Z'), "{}", record.date);

    let json = serde_json::to_string(&record).unwrap();
    let read: Record = serde_json::from_str(&json).unwrap();
    assert_eq!(serde_json::to_string(&read).unwrap(), json);
    let pairs = compare(&record, &read);
    assert_eq!(pairs.len(), record.cases.len());
    for pair in pairs {
        let [low, speed, high] = pair.speed;
        assert_eq!(speed, 1.0, "{}", pair.first.what);
        assert!(low <= speed && speed <= high, "{low} {high}");
    }
}

#[test]
fn every_case_is_measured_on_the_cpu_and_every_adapter() {
    check(&Device::open(&DeviceChoice::Cpu).unwrap());
    for info in devices() {
        let index = info.index.expect("an adapter has an index");
        check(&Device::open(&DeviceChoice::Index(index)).unwrap());
    }
}

#[test]
fn what_only_one_record_has_is_not_compared() {
    let first = record(&Device::open(&DeviceChoice::Cpu).unwrap());
    let mut second = first.clone();
    second.cases.retain(|case| case.what == "score");
    for case in &mut second.cases {
        case.wall.iter_mut().for_each(|seconds| *seconds /= 2.0);
    }
    let pairs = compare(&first, &second);
    assert_eq!(pairs.len(), MATRICES.len());
    assert!(pairs.iter().all(|pair| pair.speed[1] == 2.0));
}
