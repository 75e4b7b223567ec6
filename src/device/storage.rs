//! Buffers on an adapter, for kernels.

use wgpu::BufferUsages as Usage;

use super::adapter::context::Context;

/// A buffer of at least `bytes` bytes.
pub(crate) fn buffer(context: &Context, label: &str, bytes: u64, usage: Usage) -> wgpu::Buffer {
    context.buffer(&wgpu::BufferDescriptor {
        label: Some(label),
        size: bytes.next_multiple_of(4).max(4),
        usage,
        mapped_at_creation: false,
    })
}

/// A storage buffer that holds `values`.
pub(crate) fn filled<T: bytemuck::Pod>(
    context: &Context,
    label: &str,
    values: &[T],
) -> wgpu::Buffer {
    let bytes = bytemuck::cast_slice(values);
    let usage = Usage::STORAGE | Usage::COPY_DST | Usage::COPY_SRC;
    let made = buffer(context, label, bytes.len() as u64, usage);
    context.queue.write_buffer(&made, 0, bytes);
    made
}
