//! An adapter's timer: repetitions are dispatches of one submission, or of several where that would take too long, between
//! two timestamps where there are any.

use std::time::Duration;

use web_time::Instant;

use super::timed::{Elapsed, Timed};
use crate::device::adapter::context::Context;
use crate::device::adapter::mapping::Mapping;
use crate::device::error::Error;
use crate::device::gpu::Gpu;
use crate::device::gpu::buffers::{Buffers, Slot, chunk_factors};
use crate::device::gpu::dispatches::{Dispatch, Work};
use crate::passes::params::Binding;
use crate::recipe::{Recipe, Rows, Step};

pub(super) struct GpuTimer<'a> {
    gpu: &'a Gpu,
    buffers: Buffers,
    what: What,
    /// The kind of work, for the bound on a submission, and the weights of one repetition.
    work: (&'static str, u64),
    timestamps: Option<Timestamps>,
}

enum What {
    /// Bytes from one buffer to another.
    Copy(wgpu::Buffer, u64),
    Dispatches(Vec<Dispatch>),
}

/// Two timestamps, and where they are read.
struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    read: wgpu::Buffer,
}

impl<'a> GpuTimer<'a> {
    pub(super) fn new(
        gpu: &'a Gpu,
        timed: Timed,
        rows: Rows<'a>,
        recipe: &Recipe,
    ) -> Result<Self, Error> {
        let context = gpu.context();
        let _turn = context.turn();
        let work = match timed {
            Timed::Copy | Timed::Mask => gpu.fused(rows, 0, recipe),
            Timed::WeightSums => Work::sums(rows, true),
            Timed::Alone(last) => Work::alone(rows, recipe, last),
        };
        // What the timed pass rests on runs once.
        let before = match timed {
            Timed::Alone(Step::Ewma) => Work::alone(rows, recipe, Step::Score).dispatches,
            Timed::Alone(Step::Select) => Work::alone(rows, recipe, Step::Ewma).dispatches,
            _ => Vec::new(),
        };
        let factors = chunk_factors(&recipe.factors, 0, rows.rows());
        let buffers = Slot::default().fill(context, rows, &work, &factors)?;
        let mut encoder = gpu.encoder();
        buffers.record_upload(&mut encoder, &work);
        {
            let mut compute = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            gpu.record(&mut compute, &buffers, &before);
        }
        context.submit(encoder, None);
        let kind = match timed {
            Timed::Copy => "copy",
            _ => work.kind(),
        };
        let what = match timed {
            Timed::Copy => {
                let bytes = buffers.bound(Binding::Weights).size();
                What::Copy(
                    context.buffer(&wgpu::BufferDescriptor {
                        label: Some("copy"),
                        size: bytes,
                        usage: wgpu::BufferUsages::COPY_DST,
                        mapped_at_creation: false,
                    }),
                    (rows.bytes.len() as u64).next_multiple_of(4),
                )
            }
            _ => What::Dispatches(work.dispatches[before.len()..].to_vec()),
        };
        let has_timestamps = context
            .device
            .features()
            .contains(wgpu::Features::TIMESTAMP_QUERY);
        let timer = Self {
            gpu,
            buffers,
            what,
            work: (kind, rows.rows() as u64 * rows.in_features as u64),
            timestamps: has_timestamps.then(|| Timestamps::new(context)),
        };
        context.check()?;
        Ok(timer)
    }

    /// Rows that one submission should have at most, by what was learned of the device so far.
    pub(super) fn rows_of_submission(&self, in_features: usize) -> usize {
        let weights = self.gpu.context().submission_limit(self.work.0);
        usize::try_from(weights).unwrap_or(usize::MAX) / in_features.max(1)
    }

    /// Does it so many times, in as few submissions as may be.
    pub(super) async fn run(&mut self, repetitions: u32) -> Result<Elapsed, Error> {
        let (kind, weights) = self.work;
        let mut all = Elapsed::default();
        let mut left = repetitions;
        while left > 0 {
            let most = self.gpu.context().submission_limit(kind) / weights.max(1);
            let count = left.min(u32::try_from(most).unwrap_or(u32::MAX).max(1));
            let Elapsed { wall, device } = self.submit(count).await?;
            all.wall += wall;
            all.device = device.map(|device| all.device.unwrap_or_default() + device);
            left -= count;
        }
        Ok(all)
    }

    /// Does it so many times in one submission.
    async fn submit(&mut self, repetitions: u32) -> Result<Elapsed, Error> {
        let context = self.gpu.context();
        let (start, mapping, timestamps) = self.send(repetitions);
        context.done(mapping).await?;
        let wall = start.elapsed();
        let device = match timestamps {
            Some(timestamps) => {
                let _turn = context.turn();
                let ticks: Vec<u64> = context.take_words(&timestamps.read, 16)?;
                let ticks = ticks[1].saturating_sub(ticks[0]);
                let nanoseconds = ticks as f64 * f64::from(context.queue.get_timestamp_period());
                Some(Duration::from_nanos(nanoseconds as u64))
            }
            None => None,
        };
        Ok(Elapsed { wall, device })
    }

    /// Submits so many repetitions: when, what is to come, and where the device's own clock will have noted its times.
    fn send(&self, repetitions: u32) -> (Instant, Mapping, Option<&Timestamps>) {
        let context = self.gpu.context();
        let _turn = context.turn();
        let mut encoder = self.gpu.encoder();
        let mut has_timestamps = false;
        match &self.what {
            // A copy has no timestamps of its own without a further feature.
            What::Copy(to, bytes) => {
                for _ in 0..repetitions {
                    let from = self.buffers.bound(Binding::Weights);
                    encoder.copy_buffer_to_buffer(from, 0, to, 0, *bytes);
                }
            }
            What::Dispatches(dispatches) => {
                has_timestamps = self.timestamps.is_some();
                let timestamp_writes = self.timestamps.as_ref().map(Timestamps::writes);
                let descriptor = wgpu::ComputePassDescriptor {
                    label: Some("timed"),
                    timestamp_writes,
                };
                let mut compute = encoder.begin_compute_pass(&descriptor);
                for _ in 0..repetitions {
                    self.gpu.record(&mut compute, &self.buffers, dispatches);
                }
            }
        }
        let timestamps = self.timestamps.as_ref().filter(|_| has_timestamps);
        if let Some(timestamps) = timestamps {
            timestamps.resolve(&mut encoder);
        }
        let sealed = context.seal(encoder);
        let (kind, weights) = self.work;
        let start = Instant::now();
        let work = (kind, weights * u64::from(repetitions));
        let submission = context.send(sealed, Some(work));
        let read = timestamps.map(|timestamps| (&timestamps.read, wgpu::MapMode::Read));
        let mapping = context.map(submission, read.as_slice());
        (start, mapping, timestamps)
    }
}

impl Timestamps {
    fn new(context: &Context) -> Self {
        use wgpu::BufferUsages as Usage;
        let buffer = |label, usage| {
            context.buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: 256,
                usage,
                mapped_at_creation: false,
            })
        };
        Self {
            queries: context.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("timestamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            }),
            resolved: buffer("timestamps", Usage::QUERY_RESOLVE | Usage::COPY_SRC),
            read: buffer("timestamps read", Usage::MAP_READ | Usage::COPY_DST),
        }
    }

    fn writes(&self) -> wgpu::ComputePassTimestampWrites<'_> {
        wgpu::ComputePassTimestampWrites {
            query_set: &self.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        }
    }

    fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        encoder.resolve_query_set(&self.queries, 0..2, &self.resolved, 0);
        encoder.copy_buffer_to_buffer(&self.resolved, 0, &self.read, 0, 16);
    }
}
