//! `selftest`: runs the list of cases on devices, and says which gave what they must.

use std::io::Write as _;
use std::time::Instant;

use serde::Serialize;
use swiftprune_wgpu::bench::Machine;
use swiftprune_wgpu::device::{Device, DeviceChoice, DeviceInfo, devices};
use swiftprune_wgpu::selftest::{Case, cases};
use swiftprune_wgpu::untrusted::escaped;

use super::args::Selftest;
use super::terminal::Terminal;

/// What one device gave.
#[derive(Serialize)]
struct DeviceResult {
    device: DeviceInfo,
    /// Cases that gave what they must.
    passed: usize,
    /// Those that did not.
    differences: Vec<Mismatch>,
    /// Why it stopped, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    seconds: f64,
}

#[derive(Serialize)]
struct Mismatch {
    case: String,
    expected: Option<&'static str>,
    got: String,
}

#[derive(Serialize)]
struct SelftestRecord<'a> {
    version: &'static str,
    machine: Machine,
    cases: usize,
    devices: &'a [DeviceResult],
}

/// What the exit code says.
pub(super) enum Verdict {
    AllAlike,
    Different,
    Failed,
}

pub(super) fn run(args: &Selftest, terminal: Terminal) -> anyhow::Result<Verdict> {
    let cases = cases();
    let mut stdout = std::io::stdout().lock();
    if args.sums {
        let device = Device::open_untried(&args.device)?;
        for case in &cases {
            writeln!(stdout, "{}  {case}", case.sum(&device)?)?;
        }
        return Ok(Verdict::AllAlike);
    }
    let mut outcomes = Vec::new();
    for (info, device) in opened(&args.device)? {
        let outcome = test(&info, device, &cases);
        terminal.say(line(&outcome, cases.len()));
        outcomes.push(outcome);
    }
    if args.json {
        let record = SelftestRecord {
            version: env!("CARGO_PKG_VERSION"),
            machine: Machine::here(),
            cases: cases.len(),
            devices: &outcomes,
        };
        serde_json::to_writer_pretty(&mut stdout, &record)?;
        writeln!(stdout)?;
    } else {
        stdout.write_all(block(&outcomes, cases.len()).as_bytes())?;
    }
    Ok(if outcomes.iter().any(|o| !o.differences.is_empty()) {
        Verdict::Different
    } else if outcomes.iter().any(|o| o.error.is_some()) {
        Verdict::Failed
    } else {
        Verdict::AllAlike
    })
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
    let mut outcome = DeviceResult {
        device: info.clone(),
        passed: 0,
        differences: Vec::new(),
        error: None,
        seconds: 0.0,
    };
    let result = device.and_then(|device| {
        for case in cases {
            let got = case
                .sum(&device)
                .map_err(|error| format!("{case}: {error}"))?;
            let expected = case.expected();
            if expected == Some(got.as_str()) {
                outcome.passed += 1;
            } else {
                outcome.differences.push(Mismatch {
                    case: case.to_string(),
                    expected,
                    got,
                });
            }
        }
        Ok(())
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

/// What to paste into a report: everything that somebody elsewhere must know.
fn block(outcomes: &[DeviceResult], cases: usize) -> String {
    let machine = Machine::here();
    let mut text = format!(
        "swiftprune-wgpu {} selftest, {} {}, {}\n",
        env!("CARGO_PKG_VERSION"),
        machine.os,
        machine.arch,
        machine.cpu
    );
    for outcome in outcomes {
        let device = &outcome.device;
        text += &format!(
            "{}/{cases}  {} ({}, {}; {})\n",
            outcome.passed, device.name, device.backend, device.kind, device.driver
        );
        for difference in &outcome.differences {
            let expected = difference.expected.unwrap_or("no sum");
            text += &format!(
                "  {}: got {}, expected {expected}\n",
                difference.case, difference.got
            );
        }
        if let Some(error) = &outcome.error {
            text += &format!("  {error}\n");
        }
    }
    text.lines()
        .map(|line| escaped(line).to_string() + "\n")
        .collect()
}
