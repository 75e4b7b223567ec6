//! The buffers of a chunk: made when they are first wanted, used again by the chunks after it, and only ever larger.

use super::dispatches::Work;
use crate::device::adapter::context::Context;
use crate::device::error::Error;
use crate::passes::params::{Binding, Params};
use crate::recipe::{Factors, MAX_IN_FEATURES, Rows};

/// The buffers of one chunk in flight; they only ever grow.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Staging memory, which stays mapped while the slot is idle.
    upload: Option<wgpu::Buffer>,
    download: Option<wgpu::Buffer>,
    /// By the numbers of their bindings.
    bound: [Option<wgpu::Buffer>; Binding::ALL.len()],
}

/// The slot's buffers for one piece of work.
pub(crate) struct Buffers {
    upload: wgpu::Buffer,
    /// Bytes of weights, padded to a word.
    uploaded: u64,
    download: wgpu::Buffer,
    /// By the numbers of their bindings.
    bound: [wgpu::Buffer; Binding::ALL.len()],
    has_threshold_keys: bool,
}

impl Slot {
    /// Makes the slot's buffers large enough, and fills those that the host fills.
    pub(crate) fn fill(
        &mut self,
        context: &Context,
        rows: Rows<'_>,
        work: &Work,
        factors: &[f32],
    ) -> Result<Buffers, Error> {
        use wgpu::BufferUsages as Usage;
        debug_assert!(
            rows.in_features <= MAX_IN_FEATURES,
            "the planner refuses longer rows"
        );
        let padded = (rows.bytes.len() as u64).next_multiple_of(4);
        let upload = Usage::MAP_WRITE | Usage::COPY_SRC;
        let download = Usage::MAP_READ | Usage::COPY_DST;
        let between = Usage::STORAGE | Usage::COPY_SRC | Usage::COPY_DST;
        let buffers = Buffers {
            upload: grow(context, &mut self.upload, "upload", padded, upload),
            uploaded: padded,
            download: grow(
                context,
                &mut self.download,
                "download",
                work.result_bytes,
                download,
            ),
            bound: Binding::ALL.map(|binding| {
                let (label, bytes, usage) = match binding {
                    Binding::Params => (
                        "params",
                        size_of::<Params>() as u64,
                        Usage::UNIFORM | Usage::COPY_DST,
                    ),
                    Binding::Weights => ("weights", padded, between),
                    Binding::Factors => (
                        "factors",
                        size_of_val(factors) as u64,
                        Usage::STORAGE | Usage::COPY_DST,
                    ),
                    Binding::Averages => ("averages", work.bytes(binding), Usage::STORAGE),
                    Binding::Result => ("result", work.result_bytes, between),
                    Binding::OrderKeys => ("order keys", work.bytes(binding), between),
                    Binding::Keys => ("threshold keys", work.bytes(binding), between),
                };
                let place = &mut self.bound[binding as usize];
                grow(context, place, label, bytes, usage)
            }),
            has_threshold_keys: work.params.key_bits == 16,
        };
        context.check()?;
        {
            let mut view = buffers
                .upload
                .get_mapped_range_mut(..padded)
                .map_err(|error| context.failed(error.to_string()))?;
            view.slice(..rows.bytes.len()).copy_from_slice(rows.bytes);
            view.slice(rows.bytes.len()..).fill(0);
        }
        buffers.upload.unmap();
        let write = |binding, bytes| context.queue.write_buffer(buffers.bound(binding), 0, bytes);
        write(Binding::Params, bytemuck::bytes_of(&work.params));
        write(Binding::Factors, bytemuck::cast_slice(factors));
        Ok(buffers)
    }
}

impl Buffers {
    /// What is bound at this place.
    pub(crate) fn bound(&self, binding: Binding) -> &wgpu::Buffer {
        let binding = match binding {
            // The order keys are selected on, where there are no threshold keys.
            Binding::Keys if !self.has_threshold_keys => Binding::OrderKeys,
            binding => binding,
        };
        &self.bound[binding as usize]
    }

    pub(super) const fn upload(&self) -> &wgpu::Buffer {
        &self.upload
    }

    pub(super) const fn download(&self) -> &wgpu::Buffer {
        &self.download
    }

    /// Records the weights' copy to the device.
    pub(crate) fn record_upload(&self, encoder: &mut wgpu::CommandEncoder, work: &Work) {
        let weights = self.bound(Binding::Weights);
        encoder.copy_buffer_to_buffer(&self.upload, 0, weights, 0, self.uploaded);
        // Nothing pruned, should a dispatch be lost without an error: the caller's count of zeros tells.
        encoder.clear_buffer(self.bound(work.result), 0, Some(work.result_bytes));
    }
}

/// The buffer in its place, made anew when it is too small; staging memory is mapped when it is made.
fn grow(
    context: &Context,
    buffer: &mut Option<wgpu::Buffer>,
    label: &str,
    bytes: u64,
    usage: wgpu::BufferUsages,
) -> wgpu::Buffer {
    if let Some(buffer) = buffer
        && buffer.size() >= bytes
    {
        return buffer.clone();
    }
    let largest = context.largest_buffer();
    let descriptor = wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.max(256).next_power_of_two().min(largest.max(bytes)),
        usage,
        mapped_at_creation: usage.contains(wgpu::BufferUsages::MAP_WRITE),
    };
    let larger = context.buffer(&descriptor);
    buffer.insert(larger).clone()
}

/// Column factors, then RIA's column terms and the row terms of this chunk, as `shaders/passes/score.wgsl` reads them.
pub(crate) fn chunk_factors(factors: &Factors, first_row: usize, rows: usize) -> Vec<f32> {
    let mut all = factors.column.clone();
    if let Some(terms) = &factors.terms {
        all.extend(&terms.column);
        all.extend(&terms.row[first_row..first_row + rows]);
    }
    all
}
