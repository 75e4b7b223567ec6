//! A product by itself, with the library and the threads of the forward pass.

use std::hint::black_box;
use std::time::{Duration, Instant};

use super::activations::Activations;
use super::weights::CpuMatrix;
use crate::cores::Cores;
use crate::forward::error::Error;

/// One matrix, and rows for each core.
pub(crate) struct CpuProduct {
    cores: Cores,
    matrix: CpuMatrix,
    rows: Vec<Activations>,
}

impl CpuProduct {
    /// `size` rows, shared out, times a matrix of `size` by `size`.
    pub(crate) fn new(size: usize, threads: usize) -> Result<Self, Error> {
        let share = size.div_ceil(threads);
        let firsts = (0..size).step_by(share);
        let rows = firsts.map(|first| {
            let count = share.min(size - first);
            Activations::new(vec![1.0; count * size], size)
        });
        Ok(Self {
            cores: Cores::new(threads)?,
            matrix: CpuMatrix::of_head(&vec![1.0; size * size], None, size)?,
            rows: rows.collect::<Result<_, _>>()?,
        })
    }

    /// How long so many products take.
    pub(crate) fn run(&self, repetitions: u32) -> Result<Duration, Error> {
        let start = Instant::now();
        self.cores.each(self.rows.iter().collect(), |rows| {
            for _ in 0..repetitions {
                black_box(self.matrix.apply(black_box(rows))?);
            }
            Ok::<_, Error>(())
        })?;
        Ok(start.elapsed())
    }
}
