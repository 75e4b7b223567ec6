//! The devices of a command: the one that was chosen, and the one that runs the model.

use swiftprune_wgpu::device::{Device, DeviceChoice, DeviceInfo, DeviceKind};

use super::args::DeviceArgs;

/// What `--device` and `--threads` opened.
pub(super) struct Devices {
    /// The chosen one.
    pub(super) chosen: Device,
    /// The CPU, where the chosen one is a software adapter: a forward pass would take hours there.
    instead: Option<Device>,
}

impl Devices {
    pub(super) fn open(args: &DeviceArgs) -> anyhow::Result<Self> {
        let threads = args.threads.map(usize::from);
        let chosen = Device::open(&args.device)?.with_threads(threads);
        let instead = match chosen.info().kind {
            DeviceKind::Software => Some(Device::open(&DeviceChoice::Cpu)?.with_threads(threads)),
            _ => None,
        };
        Ok(Self { chosen, instead })
    }

    /// The one that runs the model.
    pub(super) fn of_model(&self) -> &Device {
        self.instead.as_ref().unwrap_or(&self.chosen)
    }
}

/// A device in a sentence.
pub(super) fn named(info: &DeviceInfo) -> String {
    match info.kind {
        DeviceKind::Cpu => "the CPU".to_owned(),
        _ => super::output::printable(&info.to_string()),
    }
}
