//! What a self-test found, as data and as text to paste into a report: the same for the command line and for a browser.

use serde::Serialize;

use super::cases::Case;
use super::error::Error;
use crate::bench::Machine;
use crate::device::DeviceInfo;
use crate::untrusted::escaped;

/// A self-test of some devices of one machine.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct SelftestRecord {
    /// Version of this program.
    pub version: &'static str,
    /// The machine.
    pub machine: Machine,
    /// How many cases there are.
    pub cases: usize,
    /// What each device gave.
    pub devices: Vec<DeviceResult>,
}

/// What one device gave.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct DeviceResult {
    /// The device.
    pub device: DeviceInfo,
    /// Cases that gave what they must.
    pub passed: usize,
    /// Those that did not.
    pub differences: Vec<Mismatch>,
    /// Why it stopped, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// How long it took, by the host's clock.
    pub seconds: f64,
}

/// A case that did not give what it must.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Mismatch {
    /// The case's name.
    pub case: String,
    /// The SHA-256 that it must have.
    pub expected: Option<&'static str>,
    /// The one that it has.
    pub got: String,
}

impl DeviceResult {
    /// Of a device of which nothing is known yet.
    #[must_use]
    pub const fn new(device: DeviceInfo) -> Self {
        Self {
            device,
            passed: 0,
            differences: Vec::new(),
            error: None,
            seconds: 0.0,
        }
    }

    /// Books what a case gave; an error is the end of the device's test.
    ///
    /// # Errors
    /// The message of the one that the case gave.
    pub fn book(&mut self, case: &Case, sum: Result<String, Error>) -> Result<(), String> {
        let got = sum.map_err(|error| format!("{case}: {error}"))?;
        let expected = case.expected();
        if expected == Some(got.as_str()) {
            self.passed += 1;
        } else {
            self.differences.push(Mismatch {
                case: case.to_string(),
                expected,
                got,
            });
        }
        Ok(())
    }
}

impl SelftestRecord {
    /// What these devices of a machine gave.
    #[must_use]
    pub const fn new(machine: Machine, cases: usize, devices: Vec<DeviceResult>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION"),
            machine,
            cases,
            devices,
        }
    }

    /// What to paste into a report: everything that somebody elsewhere must know. Lines of text that nothing in can steer a
    /// terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let (machine, cases) = (&self.machine, self.cases);
        let mut text = format!(
            "swiftprune-wgpu {} selftest, {} {}, {}\n",
            self.version, machine.os, machine.arch, machine.cpu
        );
        for outcome in &self.devices {
            text += &format!("{}/{cases}  {}\n", outcome.passed, outcome.device.in_full());
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::DeviceKind;

    #[test]
    fn the_text_names_each_device_with_its_driver_if_it_is_known() {
        let machine = Machine {
            os: "Linux".to_owned(),
            arch: "x86_64".to_owned(),
            cpu: "a processor".to_owned(),
            cores: 2,
            memory_bytes: 0,
        };
        let device = |driver: &str| {
            DeviceResult::new(DeviceInfo {
                index: Some(0),
                name: "a card".to_owned(),
                backend: "vulkan".to_owned(),
                kind: DeviceKind::Discrete,
                driver: driver.to_owned(),
            })
        };
        let record = SelftestRecord::new(machine, 9, vec![device("5.2"), device("")]);
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            record.text(),
            format!(
                "swiftprune-wgpu {version} selftest, Linux x86_64, a processor\n\
                 0/9  a card (vulkan, discrete; 5.2)\n\
                 0/9  a card (vulkan, discrete)\n"
            )
        );
    }
}
