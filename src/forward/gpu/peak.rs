//! A product by itself, with the kernel of the forward pass.

use std::time::{Duration, Instant};

use wgpu::BufferUsages as Usage;

use crate::device::Error;
use crate::device::adapter::context::Context;
use crate::device::product::{Destination, Operand, PRODUCT, Weights, product};
use crate::device::recorder::Recorder;
use crate::device::storage::{buffer, filled};
use crate::dtype::Dtype;

/// Two ones in bf16.
const ONES: u32 = 0x3F80_3F80;

/// Both matrices on the adapter, and room for the result.
pub(crate) struct GpuProduct<'a> {
    recorder: Recorder<'a>,
    x: wgpu::Buffer,
    weights: wgpu::Buffer,
    result: wgpu::Buffer,
    size: usize,
}

impl<'a> GpuProduct<'a> {
    /// `size` rows in f32 times a matrix of `size` by `size` in bf16.
    pub(crate) fn new(context: &'a Context, size: usize) -> Result<Self, Error> {
        let _turn = context.turn();
        let numbers = size * size;
        let made = Self {
            recorder: Recorder::new(context, [&PRODUCT.shader]),
            x: filled(context, "x", &vec![1.0_f32; numbers]),
            weights: filled(context, "weights", &vec![ONES; numbers.div_ceil(2)]),
            result: buffer(context, "result", 4 * numbers as u64, Usage::STORAGE),
            size,
        };
        context.check()?;
        Ok(made)
    }

    /// How long so many products take.
    pub(crate) fn run(&self, repetitions: u32) -> Result<Duration, Error> {
        let size = self.size;
        let weights = Weights {
            operand: Operand::by_rows(&self.weights, size),
            dtype: Dtype::Bf16,
            columns: size,
            bias: None,
            scale: 1.0,
        };
        let to = Destination {
            buffer: &self.result,
            stride: size,
            first: 0,
            add: false,
        };
        let start = Instant::now();
        let submission = self.recorder.submit(|recording| {
            for _ in 0..repetitions {
                let x = Operand::by_rows(&self.x, size);
                product(&self.recorder, recording, (x, [size, size]), &weights, to);
            }
        })?;
        self.recorder.wait(submission)?;
        Ok(start.elapsed())
    }
}
