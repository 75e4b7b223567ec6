//! What `bench` writes: one record a device, with everything that a reader on another machine must know.

use serde::{Deserialize, Serialize};

use super::statistics::{Summary, summary};
use crate::device::DeviceInfo;

/// The version of the form of a file of records: `docs/bench.schema.json`. It goes up when a field goes or changes its meaning,
/// not when one is added.
pub const BENCH_SCHEMA_VERSION: u32 = 1;

/// What the case of a whole run is called.
pub const WHOLE_RUN: &str = "whole run";

/// How the name of the device's own matrix product begins.
pub const PRODUCT: &str = "product";

/// A file of records.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Records {
    /// [`BENCH_SCHEMA_VERSION`]; the first files did not say.
    #[serde(default = "first_version")]
    pub bench_schema_version: u32,
    /// One a device.
    pub records: Vec<Record>,
}

/// The most records of a file that is read; there is one a device.
const MOST_RECORDS: usize = 64;

/// The most cases of a file that is read, over all records; one has about a hundred.
const MOST_CASES: usize = 8192;

const fn first_version() -> u32 {
    1
}

impl Records {
    /// The records of a file, whose bytes a stranger may have written.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read(file: impl std::io::Read) -> Result<Self, ReadError> {
        let records: Self = serde_json::from_reader(file).map_err(ReadError::NoRecords)?;
        if records.bench_schema_version > BENCH_SCHEMA_VERSION {
            return Err(ReadError::Later(records.bench_schema_version));
        }
        // Tables and comparisons look for each case among all of them.
        let cases = records
            .records
            .iter()
            .map(|record| record.cases.len())
            .sum();
        for (what, found, most) in [
            ("records", records.records.len(), MOST_RECORDS),
            ("cases", cases, MOST_CASES),
        ] {
            if found > most {
                return Err(ReadError::TooMany { what, found, most });
            }
        }
        Ok(records)
    }

    /// These records in today's form.
    #[must_use]
    pub const fn new(records: Vec<Record>) -> Self {
        Self {
            bench_schema_version: BENCH_SCHEMA_VERSION,
            records,
        }
    }
}

/// Why a file of records cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It is something else, or cut short.
    #[error("it contains no bench records, which `bench --json` writes")]
    NoRecords(#[source] serde_json::Error),
    /// A later version of this program wrote it.
    #[error(
        "its records have form {_0}, and this program reads forms up to {BENCH_SCHEMA_VERSION}"
    )]
    Later(u32),
    /// It has more than any device gives.
    #[error("it has {found} {what}, and at most {most} are read")]
    TooMany {
        /// Records or cases.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// How many are read.
        most: usize,
    },
}

/// One device's measurements.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Record {
    /// Version of this program.
    pub version: String,
    /// When, in UTC (RFC 3339).
    pub date: String,
    /// The program was not built for a release.
    #[serde(default, skip_serializing_if = "is_false")]
    pub debug: bool,
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
    /// What: `whole run` and its phases, `copy`, `product ...`, a pass, `fused ...`, `file ...`, `calibration`.
    pub what: String,
    /// Of what: a matrix's shape and dtype, or the model.
    pub of: String,
    /// Bytes of weights gone through, each time that they are; 0 where that means nothing.
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
fn is_false(flag: &bool) -> bool {
    !flag
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
            debug: cfg!(debug_assertions),
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

    /// The device's own matrix product beside the cases of this kind, in operations a second; `None` where it was not measured.
    #[must_use]
    pub fn product_rate(&self, of: &str) -> Option<f64> {
        let product = self
            .cases
            .iter()
            .find(|case| case.what.starts_with(PRODUCT) && case.of == of)?;
        product.rate(product.operations)
    }

    /// How fast a case goes through its bytes, relative to the device's own copy; `None` where that means nothing, as for the
    /// copy itself.
    #[must_use]
    pub fn share_of_copy(&self, case: &Measurement) -> Option<f64> {
        share(case.rate(case.bytes), self.copy_rate(&case.of))
    }

    /// How fast a case computes, relative to the device's own matrix product; `None` where that means nothing, as for the
    /// product itself.
    #[must_use]
    pub fn share_of_product(&self, case: &Measurement) -> Option<f64> {
        share(case.rate(case.operations), self.product_rate(&case.of))
    }

    /// The case of the whole run, if it was measured.
    #[must_use]
    pub fn whole_run(&self) -> Option<&Measurement> {
        self.cases.iter().find(|case| case.what == WHOLE_RUN)
    }
}

/// A rate relative to a yardstick's, which is no share of itself.
fn share(rate: Option<f64>, yardstick: Option<f64>) -> Option<f64> {
    match (rate, yardstick) {
        (Some(rate), Some(yardstick)) if rate != yardstick => Some(rate / yardstick),
        _ => None,
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
