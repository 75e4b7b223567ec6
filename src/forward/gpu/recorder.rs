//! The recorder of a forward pass: that of the device, with room for activations.

use std::ops::Deref;
use std::sync::Arc;

use super::buffers::{ActivationPool, GpuTensor};
use crate::device::adapter::context::Context;
use crate::device::product::PRODUCT;
use crate::device::recorder;
use crate::forward::kernels::KERNELS;

/// Records the kernels of a forward pass.
pub(super) struct Recorder<'a> {
    kernels: recorder::Recorder<'a>,
    pool: Arc<ActivationPool>,
}

impl<'a> Recorder<'a> {
    /// For tensors of at most `tokens` rows.
    pub(super) fn new(context: &'a Context, tokens: usize) -> Self {
        let shaders = KERNELS
            .iter()
            .chain([&PRODUCT])
            .map(|kernel| &kernel.shader);
        Self {
            kernels: recorder::Recorder::new(context, shaders),
            pool: ActivationPool::new(tokens),
        }
    }

    /// Room for activations.
    pub(super) fn activations(&self, tokens: usize, features: usize) -> GpuTensor {
        self.pool.take(self.context, tokens, features)
    }
}

impl<'a> Deref for Recorder<'a> {
    type Target = recorder::Recorder<'a>;

    fn deref(&self) -> &Self::Target {
        &self.kernels
    }
}
