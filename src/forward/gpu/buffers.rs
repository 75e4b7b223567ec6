//! Buffers for activations, which are used again and again.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use wgpu::BufferUsages as Usage;

use crate::device::adapter::context::Context;
use crate::device::storage::buffer;

/// What activations may be used for: everything that any block does with any of them, wherever they came from.
const USAGE: Usage = Usage::STORAGE.union(Usage::COPY_SRC).union(Usage::COPY_DST);

/// Activations, `[tokens, features]`.
pub(crate) struct GpuTensor {
    pub(super) buffer: wgpu::Buffer,
    pub(super) tokens: usize,
    pub(super) features: usize,
    /// Where the buffer goes when nobody needs it any more.
    pool: Option<Arc<ActivationPool>>,
}

impl GpuTensor {
    /// Room for `[tokens, features]` in a buffer of its own.
    pub(super) fn new(context: &Context, tokens: usize, features: usize) -> Self {
        let bytes = 4 * tokens as u64 * features as u64;
        Self {
            buffer: buffer(context, "hidden", bytes, USAGE),
            tokens,
            features,
            pool: None,
        }
    }
}

impl Drop for GpuTensor {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.give_back(self.features, self.buffer.clone());
        }
    }
}

/// Buffers for activations. One that comes back is handed out again at once, as what a device is told
/// happens in that order.
pub(super) struct ActivationPool {
    /// Tokens that a buffer has room for.
    tokens: usize,
    /// By features.
    free: Mutex<HashMap<usize, Vec<wgpu::Buffer>>>,
}

impl ActivationPool {
    pub(super) fn new(tokens: usize) -> Arc<Self> {
        Arc::new(Self {
            tokens,
            free: Mutex::default(),
        })
    }

    /// Room for `[tokens, features]`, whose contents are left over from before.
    pub(super) fn take(
        self: &Arc<Self>,
        context: &Context,
        tokens: usize,
        features: usize,
    ) -> GpuTensor {
        let free = self.free().get_mut(&features).and_then(Vec::pop);
        let made = || {
            let bytes = 4 * self.tokens as u64 * features as u64;
            buffer(context, "activations", bytes, USAGE)
        };
        GpuTensor {
            buffer: free.unwrap_or_else(made),
            tokens,
            features,
            pool: Some(Arc::clone(self)),
        }
    }

    fn give_back(&self, features: usize, buffer: wgpu::Buffer) {
        self.free().entry(features).or_default().push(buffer);
    }

    fn free(&self) -> parking_lot::MutexGuard<'_, HashMap<usize, Vec<wgpu::Buffer>>> {
        self.free.lock()
    }
}
