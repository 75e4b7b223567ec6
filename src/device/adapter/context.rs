//! An opened adapter, shared by everything that computes on it: the passes (`device/gpu`) and the forward pass.
//!
//! What comes back is never trusted to a silent device: any error wgpu reports, from whatever thread, sets a flag that
//! [`Context::check`] returns from then on as [`Error::Failed`], and [`Context::wait`] and [`Context::done`] believe no result
//! without the receipt of its submission.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};

use web_time::Instant;

use super::faults::Faults;
use super::mapping::Mapping;
use super::submissions::{COUNT_SUBMISSION, SENTINEL, Submission, Submissions, WorkSize};
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
    submissions: Submissions,
    /// Counts submissions on the device: its pipeline, its buffer and what binds the one to the other.
    sentinel: OnceLock<Sentinel>,
    pub(crate) faults: Faults,
    /// The kernels that a recorder has needed, compiled once for all of them.
    pub(crate) kernels: Mutex<Pipelines>,
    /// What was found out about the kernels of the forward pass, once they were tried.
    pub(crate) forward_check: OnceLock<Result<(), String>>,
    /// The same of the kernels that compensate.
    pub(crate) compensation_check: OnceLock<Result<(), String>>,
}

#[derive(Debug)]
struct Sentinel {
    pipeline: wgpu::ComputePipeline,
    group: wgpu::BindGroup,
    count: wgpu::Buffer,
}

/// Commands with the sentinel behind them.
#[derive(Debug)]
pub(crate) struct Sealed {
    commands: wgpu::CommandBuffer,
    receipt: wgpu::Buffer,
}

impl Context {
    pub(super) fn new(
        info: DeviceInfo,
        device: wgpu::Device,
        queue: wgpu::Queue,
        limits: wgpu::Limits,
        faults: Faults,
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
            submissions: Submissions::default(),
            sentinel: OnceLock::new(),
            faults,
            kernels: Mutex::default(),
            forward_check: OnceLock::new(),
            compensation_check: OnceLock::new(),
        }
    }

    /// The device for one thread at a time: the GL back end gives up when two want its context.
    pub(crate) fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock()
    }

    /// Bytes that a storage buffer can have and be bound with.
    pub(crate) fn largest_buffer(&self) -> u64 {
        largest_binding(&self.limits)
    }

    /// A pipeline for each entry point. What is wrong with a shader shows in the next [`check`](Self::check).
    pub(crate) fn compile(&self, shader: &Shader) -> Pipelines {
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(shader.name),
                #[cfg(not(test))]
                source: wgpu::ShaderSource::Wgsl(shader.wgsl.into()),
                #[cfg(test)]
                source: wgpu::ShaderSource::Wgsl(self.faults.wgsl(shader.name, shader.wgsl)),
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

    /// A buffer. What is wrong with it shows in the next [`check`](Self::check).
    pub(crate) fn buffer(&self, descriptor: &wgpu::BufferDescriptor<'_>) -> wgpu::Buffer {
        if self.faults.refuses_buffer() {
            let device = self.info.to_string();
            note(&self.fatal, format!("{device} is out of memory"));
        }
        self.device.create_buffer(descriptor)
    }

    /// Submits commands, with the sentinel behind them.
    pub(crate) fn submit(
        &self,
        encoder: wgpu::CommandEncoder,
        work: Option<WorkSize>,
    ) -> Submission {
        self.send(self.seal(encoder), work)
    }

    /// Ends commands with the sentinel.
    pub(crate) fn seal(&self, mut encoder: wgpu::CommandEncoder) -> Sealed {
        let Sentinel {
            pipeline,
            group,
            count,
        } = self.sentinel.get_or_init(|| self.sentinel());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, group, &[]);
            pass.dispatch_workgroups(1, 1, 1);
        }
        let receipt = self.submissions.receipt();
        let receipt = receipt.unwrap_or_else(|| {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("receipt"),
                size: 4,
                usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            })
        });
        encoder.copy_buffer_to_buffer(count, 0, &receipt, 0, 4);
        Sealed {
            commands: encoder.finish(),
            receipt,
        }
    }

    /// Submits what is sealed.
    pub(crate) fn send(&self, sealed: Sealed, work: Option<WorkSize>) -> Submission {
        let Sealed { commands, receipt } = sealed;
        let is_lost = self.faults.loses_submission(|| {
            note(&self.fatal, "the device was lost".to_owned());
            self.device.destroy();
        });
        let number = self.submissions.count(work);
        let index = self.queue.submit((!is_lost).then_some(commands));
        self.submissions.handed_over();
        Submission {
            index,
            number,
            receipt,
        }
    }

    fn sentinel(&self) -> Sentinel {
        let count = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("submissions"),
            size: 4,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        let pipelines = self.compile(&SENTINEL);
        let pipeline = pipelines[COUNT_SUBMISSION.name].clone();
        let group = self.bind(&pipeline, COUNT_SUBMISSION.name, &[(0, &count)]);
        Sentinel {
            pipeline,
            group,
            count,
        }
    }

    /// How many submissions there have been.
    #[cfg(test)]
    pub(crate) fn submissions_so_far(&self) -> u32 {
        self.submissions.so_far()
    }

    /// The longest that a submission has taken since this was asked last.
    #[cfg(test)]
    pub(crate) fn take_longest_submission(&self) -> Duration {
        self.submissions.take_longest()
    }

    /// The most work of this kind that a submission should be: weights of a pass by its entry point, or multiplications of
    /// [`PRODUCTS`](super::pace::PRODUCTS) and [`SCANS`](super::pace::SCANS).
    pub(crate) fn submission_limit(&self, kind: &'static str) -> u64 {
        self.submissions.limit(kind)
    }

    /// Whether [`Self::submission_limit`] has been found; before, it pays to wait for each submission.
    pub(crate) fn is_pace_settled(&self, kind: &'static str) -> bool {
        self.submissions.is_settled(kind)
    }

    /// Maps buffers when `submission` is done.
    pub(crate) fn map(
        &self,
        submission: Submission,
        buffers: &[(&wgpu::Buffer, wgpu::MapMode)],
    ) -> Mapping {
        Mapping::of(submission, buffers)
    }

    /// Waits until the buffers are mapped, and the submission has its receipt: for a thread whose turn it is.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) fn wait(&self, mapping: Mapping) -> Result<(), Error> {
        let start = Instant::now();
        self.device
            .poll(wgpu::PollType::Wait {
                submission_index: Some(mapping.submission.index.clone()),
                timeout: None,
            })
            .map_err(|error| self.failed(error.to_string()))?;
        self.settle(mapping, start.elapsed())
    }

    /// The same for a thread that has no turn. It is held up meanwhile.
    #[cfg(not(target_arch = "wasm32"))]
    pub(crate) async fn done(&self, mapping: Mapping) -> Result<(), Error> {
        let _turn = self.turn();
        self.wait(mapping)
    }

    /// The same in a browser, which needs the thread for other things meanwhile.
    #[cfg(target_arch = "wasm32")]
    pub(crate) async fn done(&self, mapping: Mapping) -> Result<(), Error> {
        let start = Instant::now();
        mapping.complete().await;
        let _turn = self.turn();
        self.settle(mapping, start.elapsed())
    }

    /// Holds what a submission has left against what it must have.
    fn settle(&self, mapping: Mapping, waited: Duration) -> Result<(), Error> {
        self.check()?;
        if let Some(reason) = mapping.take_failure() {
            return Err(self.failed(reason));
        }
        let Submission {
            number, receipt, ..
        } = mapping.submission;
        let count = self.take_words::<u32>(&receipt, 4)?[0];
        if count != number {
            let reason = format!(
                "submission {number} was not carried out (its receipt says {count}), and no error was reported"
            );
            note(&self.fatal, reason);
            return self.check();
        }
        self.submissions.done(number, waited, receipt);
        Ok(())
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
        match &*self.fatal.lock() {
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

/// Bytes that a storage buffer can have and be bound with: never more than a signed number of 32 bits counts, whatever the
/// adapter offers. Metal tells a shader the length of a binding in 32 bits, which is wrong beyond 4 GiB; Direct3D and GL
/// count bytes in 32 bits, GL with a sign; and here indices of elements are 32 bits wide.
fn largest_binding(limits: &wgpu::Limits) -> u64 {
    const COUNTABLE: u64 = i32::MAX as u64 / 16 * 16;
    limits
        .max_storage_buffer_binding_size
        .min(limits.max_buffer_size)
        .min(COUNTABLE)
}

/// Keeps the first reason.
fn note(place: &Mutex<Option<String>>, reason: String) {
    place.lock().get_or_insert(reason);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_is_never_longer_than_31_bits_count_whatever_an_adapter_offers() {
        let offered = |binding, buffer| {
            largest_binding(&wgpu::Limits {
                max_storage_buffer_binding_size: binding,
                max_buffer_size: buffer,
                ..wgpu::Limits::default()
            })
        };
        assert_eq!(offered(128 << 20, 256 << 20), 128 << 20);
        assert_eq!(offered(1 << 30, 256 << 20), 256 << 20);
        for more in [1 << 31, 1 << 32, 5 << 30, u64::MAX] {
            let largest = offered(more, more);
            assert!(i32::try_from(largest).is_ok(), "{largest} of {more}");
            assert_eq!(largest % 16, 0);
        }
    }
}
