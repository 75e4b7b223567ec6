//! Adapters: what wgpu finds on this machine, and how one is opened. All that knows wgpu's instance, adapters and devices is
//! here; the module has an adapter's name, as one called `wgpu` would hide the crate.

pub(crate) mod context;
pub(crate) mod faults;
pub(crate) mod pace;
pub(crate) mod submissions;

use context::Context;
use faults::Faults;

use super::error::Error;
use super::info::{DeviceInfo, DeviceKind};
use super::probe;

/// An adapter that is not opened yet.
pub(crate) struct Adapter {
    pub(crate) info: DeviceInfo,
    adapter: wgpu::Adapter,
}

/// Every adapter: those of the native back ends first, then, if wanted, those of GL.
///
/// Looking for GL is left out where it can be: its libraries print to stderr on a machine without a display.
pub(crate) fn adapters(with_gl: bool) -> Vec<Adapter> {
    let native = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    let gl = with_gl.then_some(wgpu::Backends::GL);
    std::iter::once(native)
        .chain(gl)
        .flat_map(|backends| {
            let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
            descriptor.backends = backends;
            pollster::block_on(wgpu::Instance::new(descriptor).enumerate_adapters(backends))
        })
        .enumerate()
        .map(|(index, adapter)| Adapter {
            info: describe(index, &adapter.get_info()),
            adapter,
        })
        .collect()
}

fn describe(index: usize, info: &wgpu::AdapterInfo) -> DeviceInfo {
    let driver = [info.driver.trim(), info.driver_info.trim()];
    DeviceInfo {
        index: Some(index),
        name: info.name.clone(),
        backend: match info.backend {
            wgpu::Backend::Vulkan => "vulkan",
            wgpu::Backend::Metal => "metal",
            wgpu::Backend::Dx12 => "dx12",
            wgpu::Backend::Gl => "gl",
            _ => "other",
        }
        .to_owned(),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
            wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
            wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
            wgpu::DeviceType::Cpu => DeviceKind::Software,
            wgpu::DeviceType::Other if info.name.to_lowercase().contains("llvmpipe") => {
                DeviceKind::Software
            }
            wgpu::DeviceType::Other => DeviceKind::Other,
        },
        driver: driver
            .iter()
            .filter(|part| !part.is_empty())
            .copied()
            .collect::<Vec<_>>()
            .join(" "),
    }
}

impl Adapter {
    /// Opens it with all that it has, if that is enough; `faults` are for tests.
    pub(crate) fn open(self, faults: Faults) -> Result<Context, Error> {
        let Self { info, adapter } = self;
        let limits = adapter.limits();
        probe::limits(&limits).map_err(|reason| Error::Unfit {
            device: info.to_string(),
            reason,
        })?;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("swiftprune"),
            // For `bench` alone.
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
            required_limits: limits.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        }))
        .map_err(|error| Error::Unfit {
            device: info.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Context::new(info, device, queue, limits, faults))
    }
}
