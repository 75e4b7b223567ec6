//! A product by itself, with the library and the threads of the forward pass.

use std::hint::black_box;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Error, Result, Tensor};
use rayon::prelude::*;

use super::weights::CpuMatrix;

/// One matrix, and rows for each thread.
pub(crate) struct CpuProduct {
    pool: rayon::ThreadPool,
    matrix: CpuMatrix,
    rows: Vec<Tensor>,
}

impl CpuProduct {
    /// `size` rows, shared out, times a matrix of `size` by `size`.
    pub(crate) fn new(size: usize, threads: usize) -> Result<Self> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(Error::wrap)?;
        let share = size.div_ceil(threads);
        let firsts: Vec<usize> = (0..size).step_by(share).collect();
        let rows = firsts.into_iter().map(|first| {
            let count = share.min(size - first);
            Tensor::ones((count, size), DType::F32, &Device::Cpu)
        });
        Ok(Self {
            pool,
            matrix: CpuMatrix::of_head(vec![1.0; size * size], None, size)?,
            rows: rows.collect::<Result<_>>()?,
        })
    }

    /// How long so many products take.
    pub(crate) fn run(&self, repetitions: u32) -> Result<Duration> {
        // Each thread has products of its own.
        gemm::set_threading_threshold(usize::MAX);
        let start = Instant::now();
        self.pool.install(|| {
            self.rows.par_iter().try_for_each(|rows| {
                for _ in 0..repetitions {
                    black_box(self.matrix.apply(black_box(rows))?);
                }
                Result::Ok(())
            })
        })?;
        Ok(start.elapsed())
    }
}
