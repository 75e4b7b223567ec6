//! What a device is called, and what kind it is.

use std::fmt;

/// What kind of device it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DeviceKind {
    /// This program's own CPU code.
    Cpu,
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the machine's memory.
    Integrated,
    /// A GPU behind a hypervisor.
    Virtual,
    /// A driver that runs shaders on the CPU: for tests.
    Software,
    /// The driver does not say.
    Other,
}

impl DeviceKind {
    /// Whether `auto` and `gpu` may take it.
    #[must_use]
    pub const fn is_hardware(self) -> bool {
        matches!(
            self,
            Self::Discrete | Self::Integrated | Self::Virtual | Self::Other
        )
    }
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Discrete => "discrete",
            Self::Integrated => "integrated",
            Self::Virtual => "virtual",
            Self::Software => "software",
            Self::Other => "other",
        })
    }
}

/// What a device is called and what drives it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Its number for `--device`; the CPU has none.
    pub index: Option<usize>,
    /// As the driver names it.
    pub name: String,
    /// `vulkan`, `metal`, `dx12`, `gl`, `webgpu` or `cpu`.
    pub backend: String,
    /// Discrete, integrated, software ...
    pub kind: DeviceKind,
    /// Driver and version.
    pub driver: String,
}

impl DeviceInfo {
    /// All that tells it from other devices, on a line: `name (backend, kind; driver)`. A browser does not tell the driver.
    #[must_use]
    pub fn in_full(&self) -> String {
        let driver = match self.driver.as_str() {
            "" => String::new(),
            driver => format!("; {driver}"),
        };
        format!("{} ({}, {}{driver})", self.name, self.backend, self.kind)
    }
}

impl fmt::Display for DeviceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            DeviceKind::Cpu => write!(f, "{} ({})", self.name, self.driver),
            _ => write!(f, "{} ({})", self.name, self.backend),
        }
    }
}
