//! Devices that fail in the middle of a run: the CPU goes on, the bytes are the same, and it is said.

use std::path::Path;

use parking_lot::Mutex;

use super::{DevicePair, Event, NormsRequest, Phase, Prepared, Request, Stop, prepare};
use crate::calibration::Calibration;
use crate::calibration::unwatched;
use crate::checkpoint::Checkpoint;
use crate::checksum;
use crate::compensation::Compensation;
use crate::device::adapter::{adapters, faults::Fault};
use crate::device::{Device, DeviceChoice};
use crate::plan::Options;
use crate::report::Report;
use crate::selection::{Pattern, Selection};
use crate::text::Text;

/// Early enough to be in the middle of so small a model.
const FAULTS: [Fault; 3] = [
    Fault::DropSubmission(3),
    Fault::LoseDevice(3),
    Fault::RefuseBuffer(4),
];

/// A run that is ready, on the CPU; few tokens, as the adapters here are slow.
fn ready(out: &Path, norms: NormsRequest) -> Prepared {
    let options = Options::new(Selection::Exact { sparsity: 0.5 });
    ready_with(options, out, norms)
}

fn ready_with(options: Options, out: &Path, norms: NormsRequest) -> Prepared {
    let mut request = Request::new("examples/tiny-llama", options);
    request.output = Some(out.join("out"));
    request.norms = norms;
    request.tokens = 96;
    request.context = Some(48);
    request.device = DeviceChoice::Cpu;
    prepare(request).unwrap()
}

/// The SHA-256 of the output, the report, and the phases in which the device is said to have failed.
fn run(norms: NormsRequest, devices: Option<DevicePair>) -> (String, Report, Vec<Phase>) {
    let options = Options::new(Selection::Exact { sparsity: 0.5 });
    run_with(options, norms, devices)
}

fn run_with(
    options: Options,
    norms: NormsRequest,
    devices: Option<DevicePair>,
) -> (String, Report, Vec<Phase>) {
    let dir = tempfile::tempdir().unwrap();
    let mut prepared = ready_with(options, dir.path(), norms);
    if let Some(devices) = devices {
        prepared.devices = devices;
    }
    let failed = Mutex::new(Vec::new());
    let report = prepared.run(&|event| {
        if let Event::DeviceFailed { phase, what } = event {
            assert!(what.contains("The CPU"), "{what}");
            failed.lock().push(phase);
        }
    });
    let sum = checksum::of_file(&dir.path().join("out/model.safetensors"), &Stop::new());
    let sum = sum.unwrap().unwrap();
    (sum, report.unwrap(), failed.into_inner())
}

/// Every adapter here, each with every fault, and once with none.
fn for_each_fault(check: impl Fn(&str, Option<Fault>, Device)) {
    let count = adapters(true).len();
    for index in 0..count {
        for fault in FAULTS.map(Some).into_iter().chain([None]) {
            let adapter = adapters(true).swap_remove(index);
            let what = format!("{fault:?} on {}", adapter.info);
            check(&what, fault, Device::with_fault(adapter, fault).unwrap());
        }
    }
}

#[test]
fn a_device_that_fails_while_pruning_costs_no_byte() {
    let (expected, on_cpu, _) = run(NormsRequest::WeightsOnly, None);
    assert!(on_cpu.device_failures.is_empty());
    for_each_fault(|what, fault, device| {
        let devices = DevicePair::of(device);
        let (sum, report, failed) = run(NormsRequest::WeightsOnly, Some(devices));
        assert_eq!(sum, expected, "{what}");
        assert_eq!(report.prunable.zeros, on_cpu.prunable.zeros, "{what}");
        let phases: &[Phase] = if fault.is_some() {
            &[Phase::Prune]
        } else {
            &[]
        };
        assert_eq!(failed, phases, "{what}");
        assert_eq!(report.device_failures.len(), phases.len(), "{what}");
        assert!(report.warnings.ends_with(&report.device_failures), "{what}");
    });
}

/// A file of norms and sketches of the example.
fn sketches(place: &Path) -> NormsRequest {
    let path = place.join("norms.safetensors");
    let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
    let calibration = Calibration::new(&checkpoint, Text::calibration(), 96, Some(48));
    let calibration = calibration.unwrap().with_sketch(Some(32));
    let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
    let norms = calibration.run(&checkpoint, &cpu, &unwatched).unwrap();
    norms.write(&path).unwrap();
    NormsRequest::Read(path)
}

#[test]
fn a_device_that_fails_while_compensating_leaves_a_whole_result() {
    let dir = tempfile::tempdir().unwrap();
    let selection = Selection::Pattern(Pattern::new(2, 4).unwrap());
    let mut options = Options::new(selection);
    let compensation = Compensation {
        rank: 32,
        ..Compensation::new(&selection)
    };
    options.compensation = Some(compensation);
    let (_, on_cpu, _) = run_with(options.clone(), sketches(dir.path()), None);
    for_each_fault(|what, fault, device| {
        let norms = NormsRequest::Read(dir.path().join("norms.safetensors"));
        let devices = Some(DevicePair::of(device));
        let (_, report, failed) = run_with(options.clone(), norms, devices);
        assert_eq!(failed.len(), usize::from(fault.is_some()), "{what}");
        assert_eq!(report.prunable.zeros, on_cpu.prunable.zeros, "{what}");
        assert_eq!(report.prunable.rows_not_compensated, 0, "{what}");
        let left = |report: &Report| report.prunable.output_error_left.unwrap();
        let ratio = left(&report) / left(&on_cpu);
        assert!((0.99..1.01).contains(&ratio), "{what}: {ratio}");
    });
}

#[test]
fn a_device_that_fails_while_calibrating_gives_the_cpus_norms_and_is_not_asked_again() {
    let (expected, _, _) = run(NormsRequest::Automatic, None);
    for_each_fault(|what, fault, device| {
        let devices = DevicePair::of(device);
        let (sum, report, failed) = run(NormsRequest::Automatic, Some(devices));
        if fault.is_none() {
            assert!(failed.is_empty(), "{what}");
            return;
        }
        assert_eq!(sum, expected, "{what}");
        assert_eq!(failed, [Phase::Calibrate], "{what}");
        let norms = report.norms.unwrap();
        assert!(norms.metadata["device"].starts_with("CPU"), "{norms:?}");
        assert_eq!(report.device.backend, "cpu", "{what}");
    });
}

#[test]
fn a_stop_while_the_output_is_verified_or_hashed_leaves_it_whole_and_says_so() {
    for phase in [Phase::Verify, Phase::Checksum] {
        let dir = tempfile::tempdir().unwrap();
        let mut prepared = ready(dir.path(), NormsRequest::WeightsOnly);
        prepared.request.verify = true;
        prepared.request.checksum = true;
        let stop = prepared.request.stop.clone();
        let stopped = prepared.run(&|event| {
            if matches!(event, Event::Started(started) if started == phase) {
                stop.request();
            }
        });
        let error = stopped.unwrap_err();
        assert!(error.is_stop(), "{error}");
        assert!(error.to_string().ends_with("out is whole"), "{error}");
        assert!(dir.path().join("out/model.safetensors").exists());
    }
}
