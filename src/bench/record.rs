//! What `bench` writes: one record a device, with everything that a reader on another machine must know.

use serde::{Deserialize, Serialize};

use super::statistics::{Summary, summary};
use crate::device::DeviceInfo;

/// One device's measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Version of this program.
    pub version: String,
    /// When, in UTC (RFC 3339).
    pub date: String,
    /// The machine.
    pub machine: Machine,
    /// The device, its back end and driver.
    pub device: DeviceInfo,
    /// What was measured.
    pub cases: Vec<Measurement>,
    /// What was not, and why.
    pub left_out: Vec<String>,
}

/// The machine around the device.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Machine {
    /// Operating system and its version.
    pub os: String,
    /// The processor's instruction set.
    pub arch: String,
    /// As the processor calls itself.
    pub cpu: String,
    /// Cores this process may use.
    pub cores: usize,
    /// Bytes of memory.
    pub memory_bytes: u64,
}

/// One thing, measured again and again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Measurement {
    /// What: `copy`, a pass, `fused ...`, `file ...`, `calibration`.
    pub what: String,
    /// Of what: a matrix's shape and dtype, or the model.
    pub of: String,
    /// Bytes of weights gone through, once; 0 where that means nothing.
    pub bytes: u64,
    /// Weights gone through.
    pub weights: u64,
    /// Tokens gone through the forward pass.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tokens: u64,
    /// Floating-point operations of its matrix products.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub operations: u64,
    /// Seconds by the host's clock, each sample a mean over repetitions.
    pub wall: Vec<f64>,
    /// Seconds by the device's clock, where it has one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub device: Vec<f64>,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde's signature
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[cfg(feature = "native")]
impl Machine {
    /// This one.
    #[must_use]
    pub fn here() -> Self {
        use sysinfo::{CpuRefreshKind, MemoryRefreshKind, RefreshKind, System};
        let kinds = RefreshKind::nothing()
            .with_cpu(CpuRefreshKind::nothing())
            .with_memory(MemoryRefreshKind::nothing().with_ram());
        let unknown = || "unknown".to_owned();
        let system = System::new_with_specifics(kinds).ok();
        let cpus = system.as_ref().map_or(&[][..], System::cpus);
        Self {
            os: System::long_os_version().unwrap_or_else(|_| std::env::consts::OS.to_owned()),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: cpus
                .first()
                .map_or_else(unknown, |cpu| cpu.brand().trim().to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory_bytes: system.as_ref().map_or(0, System::total_memory),
        }
    }
}

impl Record {
    /// An empty record of this machine and moment.
    #[cfg(feature = "native")]
    #[must_use]
    pub fn new(device: DeviceInfo) -> Self {
        let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ");
        Self::of(device, Machine::here(), now.to_string())
    }

    /// An empty record of this machine and moment; `date` is RFC 3339 in UTC.
    #[must_use]
    pub fn of(device: DeviceInfo, machine: Machine, date: String) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            date,
            machine,
            device,
            cases: Vec::new(),
            left_out: Vec::new(),
        }
    }

    /// The device's own copy of as many bytes, in bytes a second; `None` where it was not measured.
    #[must_use]
    pub fn copy_rate(&self, of: &str) -> Option<f64> {
        let copy = self
            .cases
            .iter()
            .find(|case| case.what == "copy" && case.of == of)?;
        copy.rate(copy.bytes)
    }
}

impl Measurement {
    /// Seconds: by the device's clock if it has one, else by the host's.
    #[must_use]
    pub fn seconds(&self) -> &[f64] {
        if self.device.is_empty() {
            &self.wall
        } else {
            &self.device
        }
    }

    /// The samples' summary, in seconds.
    #[must_use]
    pub fn summary(&self) -> Option<Summary> {
        summary(self.seconds())
    }

    /// `amount` a second; `None` for an amount of 0.
    #[must_use]
    pub fn rate(&self, amount: u64) -> Option<f64> {
        let seconds = self.summary()?.median;
        (amount > 0 && seconds > 0.0).then(|| amount as f64 / seconds)
    }
}
