//! `selftest`: runs the list of cases on devices, and says which gave what they must.

use std::io::Write as _;
use std::time::Instant;

use swiftprune_wgpu::bench::Machine;
use swiftprune_wgpu::device::{Device, DeviceChoice, DeviceInfo, devices};
use swiftprune_wgpu::selftest::{Case, DeviceResult, SelftestRecord, cases};
use swiftprune_wgpu::untrusted::{self, escaped};

use super::args::Selftest;
use super::ended::{Ended, FAILED, NOT_MET};
use super::terminal::Terminal;

pub(super) fn run(args: &Selftest, terminal: Terminal) -> anyhow::Result<()> {
    let cases = cases();
    let mut stdout = std::io::stdout().lock();
    if args.sums {
        let device = Device::open_untried(&args.device)?;
        for case in &cases {
            writeln!(stdout, "{}  {case}", case.sum(&device)?)?;
        }
        return Ok(());
    }
    let mut outcomes = Vec::new();
    for (info, device) in opened(&args.device)? {
        let outcome = test(&info, device, &cases);
        terminal.say(line(&outcome, cases.len()));
        outcomes.push(outcome);
    }
    let record = SelftestRecord::new(Machine::here(), cases.len(), outcomes);
    if args.json {
        stdout.write_all(untrusted::json(&record)?.as_bytes())?;
    } else {
        stdout.write_all(record.text().as_bytes())?;
    }
    let outcomes = &record.devices;
    let code = if outcomes.iter().any(|o| !o.differences.is_empty()) {
        NOT_MET
    } else if outcomes.iter().any(|o| o.error.is_some()) {
        FAILED
    } else {
        return Ok(());
    };
    Err(Ended { code, said: None }.into())
}

type Opened = Result<Device, String>;

/// The devices to test: one, or with `all` the CPU with one thread and with all, and every adapter.
fn opened(choice: &DeviceChoice) -> anyhow::Result<Vec<(DeviceInfo, Opened)>> {
    if !matches!(choice, DeviceChoice::Name(name) if name == "all") {
        let device = Device::open_untried(choice)?;
        return Ok(vec![(device.info().clone(), Ok(device))]);
    }
    let cpu = || Device::open_untried(&DeviceChoice::Cpu);
    let mut opened = Vec::new();
    for device in [cpu()?.with_threads(Some(1)), cpu()?] {
        opened.push((device.info().clone(), Ok(device)));
    }
    for info in devices() {
        let device = info
            .index
            .map(|index| Device::open_untried(&DeviceChoice::Index(index)));
        if let Some(device) = device {
            opened.push((info, device.map_err(|error| error.to_string())));
        }
    }
    Ok(opened)
}

fn test(info: &DeviceInfo, device: Opened, cases: &[Case]) -> DeviceResult {
    let start = Instant::now();
    let mut outcome = DeviceResult::new(info.clone());
    let result = device.and_then(|device| {
        let mut cases = cases.iter();
        cases.try_for_each(|case| outcome.book(case, case.sum(&device)))
    });
    outcome.error = result.err();
    outcome.seconds = start.elapsed().as_secs_f64();
    outcome
}

fn line(outcome: &DeviceResult, cases: usize) -> String {
    let word = match (&outcome.error, outcome.differences.len()) {
        (Some(_), _) => "failed",
        (None, 0) => "ok",
        (None, _) => "DIFFERS",
    };
    escaped(&format!(
        "{word:7}  {}: {} of {cases} cases match, {:.1} s",
        outcome.device, outcome.passed, outcome.seconds
    ))
    .to_string()
}
