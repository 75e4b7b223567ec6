//! Adapters: what wgpu finds on this machine, and how one is opened. All that knows wgpu's instance, adapters and devices is
//! here; the module has an adapter's name, as one called `wgpu` would hide the crate.

pub(crate) mod context;
pub(crate) mod faults;
pub(crate) mod mapping;
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

/// Every adapter: those of the native back ends first, then, if wanted, those of GL. In a browser, the one that it offers.
///
/// Looking for GL is left out where it can be: its libraries print to stderr on a machine without a display.
pub(crate) async fn found(with_gl: bool) -> Vec<Adapter> {
    let instance = |backends| {
        let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
        descriptor.backends = backends;
        wgpu::Instance::new(descriptor)
    };
    let mut adapters = Vec::new();
    if cfg!(target_arch = "wasm32") {
        let fast = wgpu::RequestAdapterOptions {
            power_preference: wgpu::PowerPreference::HighPerformance,
            ..Default::default()
        };
        let instance = instance(wgpu::Backends::BROWSER_WEBGPU);
        adapters.extend(instance.request_adapter(&fast).await);
    } else {
        let native = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
        let gl = with_gl.then_some(wgpu::Backends::GL);
        for backends in std::iter::once(native).chain(gl) {
            adapters.extend(instance(backends).enumerate_adapters(backends).await);
        }
    }
    let adapters = adapters.into_iter().enumerate();
    adapters
        .map(|(index, adapter)| Adapter {
            info: describe(index, &adapter.get_info()),
            adapter,
        })
        .collect()
}

/// [`found`], waited for.
#[cfg(feature = "native")]
pub(crate) fn adapters(with_gl: bool) -> Vec<Adapter> {
    pollster::block_on(found(with_gl))
}

fn describe(index: usize, info: &wgpu::AdapterInfo) -> DeviceInfo {
    let driver = [info.driver.trim(), info.driver_info.trim()];
    DeviceInfo {
        index: Some(index),
        name: match info.name.trim() {
            // Most browsers keep it to themselves.
            "" => "unnamed GPU".to_owned(),
            name => name.to_owned(),
        },
        backend: match info.backend {
            wgpu::Backend::Vulkan => "vulkan",
            wgpu::Backend::Metal => "metal",
            wgpu::Backend::Dx12 => "dx12",
            wgpu::Backend::Gl => "gl",
            wgpu::Backend::BrowserWebGpu => "webgpu",
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
    pub(crate) async fn opened(self, faults: Faults) -> Result<Context, Error> {
        let Self { info, adapter } = self;
        let limits = adapter.limits();
        probe::limits(&limits).map_err(|reason| Error::Unfit {
            device: info.to_string(),
            reason,
        })?;
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("swiftprune"),
            // For `bench` alone.
            required_features: adapter.features() & wgpu::Features::TIMESTAMP_QUERY,
            required_limits: limits.clone(),
            experimental_features: wgpu::ExperimentalFeatures::disabled(),
            memory_hints: wgpu::MemoryHints::Performance,
            trace: wgpu::Trace::Off,
        };
        let opened = adapter.request_device(&descriptor).await;
        let (device, queue) = opened.map_err(|error| Error::Unfit {
            device: info.to_string(),
            reason: error.to_string(),
        })?;
        Ok(Context::new(info, device, queue, limits, faults))
    }

    /// [`Self::opened`], waited for.
    #[cfg(test)]
    pub(crate) fn open(self, faults: Faults) -> Result<Context, Error> {
        pollster::block_on(self.opened(faults))
    }
}
