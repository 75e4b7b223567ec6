//! An opened adapter, shared by everything that computes on it: the passes (`device/gpu`) and the forward pass.
//!
//! What comes back is never trusted to a silent device: any error wgpu reports, from whatever thread, sets a flag that
//! [`Context::check`] returns from then on as [`Error::Failed`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::device::error::Error;
use crate::device::info::DeviceInfo;
use crate::shader::{EntryPoint, Shader};

/// Entry point to pipeline.
pub(crate) type Pipelines = HashMap<&'static str, wgpu::ComputePipeline>;

/// An opened adapter.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) info: DeviceInfo,
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    pub(crate) limits: wgpu::Limits,
    fatal: Arc<Mutex<Option<String>>>,
    turn: Mutex<()>,
}

/// Buffers that are being mapped, once a submission is done.
#[derive(Debug)]
pub(crate) struct Mapping {
    submission: wgpu::SubmissionIndex,
    failure: Arc<Mutex<Option<String>>>,
}

impl Context {
    pub(super) fn new(
        info: DeviceInfo,
        device: wgpu::Device,
        queue: wgpu::Queue,
        limits: wgpu::Limits,
    ) -> Self {
        let fatal = Arc::new(Mutex::new(None));
        let on_error = Arc::clone(&fatal);
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            note(&on_error, error.to_string())
        }));
        let on_lost = Arc::clone(&fatal);
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                note(&on_lost, format!("the device was lost: {message}"));
            }
        });
        Self {
            info,
            device,
            queue,
            limits,
            fatal,
            turn: Mutex::default(),
        }
    }

    /// The device for one thread at a time: the GL back end gives up when two want its context.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes that a storage buffer can have and be bound with.
    pub(crate) fn largest_buffer(&self) -> u64 {
        self.limits
            .max_storage_buffer_binding_size
            .min(self.limits.max_buffer_size)
    }

    /// A pipeline for each entry point. What is wrong with a shader shows in the next [`check`](Self::check).
    pub(crate) fn compile(&self, shader: &Shader) -> Pipelines {
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(shader.name),
                source: wgpu::ShaderSource::Wgsl(shader.wgsl.into()),
            });
        let pipeline = |entry_point: &EntryPoint| {
            let descriptor = wgpu::ComputePipelineDescriptor {
                label: Some(entry_point.name),
                layout: None,
                module: &module,
                entry_point: Some(entry_point.name),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel stores before it reads.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            };
            (
                entry_point.name,
                self.device.create_compute_pipeline(&descriptor),
            )
        };
        shader.entry_points.iter().copied().map(pipeline).collect()
    }

    /// Buffers by their binding; an entry point's layout has only the bindings it uses.
    pub(crate) fn bind(
        &self,
        pipeline: &wgpu::ComputePipeline,
        label: &str,
        buffers: &[(u32, &wgpu::Buffer)],
    ) -> wgpu::BindGroup {
        let entries: Vec<wgpu::BindGroupEntry<'_>> = buffers
            .iter()
            .map(|&(binding, buffer)| wgpu::BindGroupEntry {
                binding,
                resource: buffer.as_entire_binding(),
            })
            .collect();
        self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(label),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        })
    }

    /// Maps buffers when `submission` is done.
    pub(crate) fn map(
        &self,
        submission: wgpu::SubmissionIndex,
        buffers: &[(&wgpu::Buffer, wgpu::MapMode)],
    ) -> Mapping {
        let failure = Arc::new(Mutex::new(None));
        for &(buffer, mode) in buffers {
            let failure = Arc::clone(&failure);
            buffer.map_async(mode, .., move |outcome| {
                if let Err(error) = outcome {
                    note(&failure, error.to_string());
                }
            });
        }
        Mapping {
            submission,
            failure,
        }
    }

    /// Waits until the buffers are mapped.
    pub(crate) fn wait(&self, mapping: Mapping) -> Result<(), Error> {
        self.device
            .poll(wgpu::PollType::Wait {
                submission_index: Some(mapping.submission),
                timeout: None,
            })
            .map_err(|error| self.failed(error.to_string()))?;
        self.check()?;
        let mut failure = mapping
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failure
            .take()
            .map_or(Ok(()), |reason| Err(self.failed(reason)))
    }

    /// The words of a buffer that is mapped for reading, which is unmapped.
    pub(crate) fn take_words<T: bytemuck::Pod>(
        &self,
        buffer: &wgpu::Buffer,
        bytes: u64,
    ) -> Result<Vec<T>, Error> {
        let words = {
            let view = buffer
                .get_mapped_range(..bytes)
                .map_err(|error| self.failed(error.to_string()))?;
            bytemuck::pod_collect_to_vec::<u8, T>(&view)
        };
        buffer.unmap();
        Ok(words)
    }

    /// The first error that was reported, if there was one.
    pub(crate) fn check(&self) -> Result<(), Error> {
        match &*self.fatal.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(reason) => Err(self.failed(reason.clone())),
            None => Ok(()),
        }
    }

    /// An error of this adapter.
    pub(crate) fn failed(&self, reason: String) -> Error {
        Error::Failed {
            device: self.info.to_string(),
            reason,
        }
    }
}

/// Keeps the first reason.
fn note(place: &Mutex<Option<String>>, reason: String) {
    place
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert(reason);
}
