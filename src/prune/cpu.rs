//! A run on the CPU: each thread takes the next piece, reads it, prunes it in place and writes it, all in the same memory,
//! which stays in its core's cache.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::work::{Chunk, Matrix, Piece};
use super::{Error, Run, Stage};
use crate::device::Rows;
use crate::device::cpu::{self, Scratch};
use crate::plan::Plan;

/// A chunk's bytes: large enough that a system call costs nothing, small enough to stay in a core's cache.
const CHUNK_BYTES: usize = 512 << 10;

/// A transposed chunk is gathered from a strip of every input feature; wider strips mean fewer, larger reads.
const TRANSPOSED_CHUNK_BYTES: usize = 4 << 20;

pub(super) fn chunk_rows(matrix: &Matrix<'_>) -> usize {
    let bytes = if Plan::is_transposed(matrix.target) {
        TRANSPOSED_CHUNK_BYTES
    } else {
        CHUNK_BYTES
    };
    bytes / matrix.row_bytes().max(1)
}

pub(super) fn run(run: &Run<'_>, threads: usize) {
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.clamp(1, run.pieces.len().max(1)) {
            scope.spawn(|| {
                let (mut chunk, mut scratch) = (Chunk::default(), Scratch::default());
                while !run.is_stopped()
                    && let Some(piece) = run.pieces.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    if let Err(error) = one(run, piece, &mut chunk, &mut scratch) {
                        run.fail(error);
                    }
                }
            });
        }
    });
}

fn one(
    run: &Run<'_>,
    piece: &Piece,
    chunk: &mut Chunk,
    scratch: &mut Scratch,
) -> Result<(), Error> {
    match piece {
        Piece::Copy { shard, span } => run.copy(*shard, span.clone()),
        Piece::Sums { matrix, rows } => {
            let matrix = &run.matrices[*matrix];
            run.read(matrix, rows.clone(), chunk)?;
            let _clock = run.clocks.run(Stage::Prune);
            let sums = cpu::sums(Rows {
                dtype: matrix.dtype,
                in_features: matrix.target.in_features,
                bytes: chunk.bytes(),
            });
            matrix.add_sums(run.plan, rows.clone(), &sums);
            Ok(())
        }
        Piece::Prune { matrix, rows } => {
            let matrix = &run.matrices[*matrix];
            let Some(recipe) = matrix.recipe(run.plan) else {
                return Ok(());
            };
            run.read(matrix, rows.clone(), chunk)?;
            let counts = {
                let _clock = run.clocks.run(Stage::Prune);
                cpu::prune(
                    matrix.dtype,
                    matrix.target.in_features,
                    chunk.bytes_mut(),
                    rows.start,
                    recipe,
                    run.plan.options.squared_error,
                    scratch,
                )
            };
            run.count(matrix, rows.clone(), counts)?;
            run.write(matrix, rows.clone(), chunk)
        }
    }
}
