//! Devices that fail in the middle of a run: the CPU goes on, the bytes are the same, and it is said.

use std::path::Path;
use std::sync::Mutex;

use super::{DevicePair, Event, NormsRequest, Phase, Prepared, Request, Stop, prepare};
use crate::checksum;
use crate::device::adapter::{adapters, faults::Fault};
use crate::device::{Device, DeviceChoice};
use crate::plan::Options;
use crate::report::Report;
use crate::selection::Selection;

/// Early enough to be in the middle of so small a model.
const FAULTS: [Fault; 3] = [
    Fault::DropSubmission(3),
    Fault::LoseDevice(3),
    Fault::RefuseBuffer(4),
];

/// A run that is ready, on the CPU; few tokens, as the adapters here are slow.
fn ready(out: &Path, norms: NormsRequest) -> Prepared {
    let options = Options::new(Selection::Exact { sparsity: 0.5 });
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
    let dir = tempfile::tempdir().unwrap();
    let mut prepared = ready(dir.path(), norms);
    if let Some(devices) = devices {
        prepared.devices = devices;
    }
    let failed = Mutex::new(Vec::new());
    let report = prepared.run(&|event| {
        if let Event::DeviceFailed { phase, what } = event {
            assert!(what.contains("The CPU"), "{what}");
            failed.lock().unwrap().push(phase);
        }
    });
    let sum = checksum::of_file(&dir.path().join("out/model.safetensors"), &Stop::new());
    let sum = sum.unwrap().unwrap();
    (sum, report.unwrap(), failed.into_inner().unwrap())
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
