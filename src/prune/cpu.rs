//! A run on the CPU: each thread takes the next piece, reads it and prunes it in place, in memory that stays in its core's
//! cache; one thread at a time writes what there is to write.

use std::ops::Range;

use parking_lot::Mutex;
use rayon::ThreadPool;

use super::chunk::Chunk;
use super::clocks::Stage;
use super::compensate;
use super::error::Error;
use super::job::Job;
use super::matrix::Matrix;
use super::pieces::Piece;
use super::shared_recipe::Compensating;
use super::single_writer::SingleWriter;
use crate::cores;
use crate::device::cpu;
use crate::passes::fused::Scratch;
use crate::plan::Plan;
use crate::workers::share_out;

/// A chunk's bytes: large enough that a system call costs nothing, small enough to stay in a core's cache.
const CHUNK_BYTES: usize = 512 << 10;

/// A transposed chunk is gathered from a strip of every input feature; wider strips mean fewer, larger reads.
const TRANSPOSED_CHUNK_BYTES: usize = 4 << 20;

pub(super) fn chunk_rows(matrix: &Matrix<'_>, compensates: bool) -> usize {
    if compensates {
        return compensate::rows_together(matrix.target.in_features);
    }
    let bytes = if matrix.place.is_transposed() {
        TRANSPOSED_CHUNK_BYTES
    } else {
        CHUNK_BYTES
    };
    bytes / matrix.place.row_bytes().max(1)
}

/// Chunks a thread may have waiting to be written, so that it is not held up by one slow write.
const WAITING_CHUNKS: usize = 2;

/// What is left to the writer.
enum Write<'a> {
    /// Bytes that do not change.
    Copy { shard: usize, span: Range<u64> },
    /// Rows that were pruned.
    Rows {
        matrix: &'a Matrix<'a>,
        rows: Range<usize>,
        chunk: Chunk,
    },
}

/// What the threads share: the one who writes, and chunks to be used again.
struct Shared<'a> {
    job: &'a Job<'a>,
    writer: SingleWriter<Write<'a>>,
    free: Mutex<Vec<Chunk>>,
}

pub(super) fn run(job: &Job<'_>, threads: usize) -> Result<(), Error> {
    let threads = threads.clamp(1, job.pieces.len().max(1));
    let shared = Shared {
        job,
        writer: SingleWriter::new(WAITING_CHUNKS * (threads - 1)),
        free: Mutex::default(),
    };
    share_out(
        threads,
        &job.pieces,
        || Ok((one_core(job.plan)?, Scratch::default())),
        |(core, scratch), piece| {
            let _guard = job.gives_up_at_panic();
            if !job.goes_on()? {
                return Ok(());
            }
            let done = on(core.as_ref(), || shared.one(piece, scratch));
            // Others must not wait for the sums that this one would have made.
            done.inspect_err(|_| job.give_up())
        },
        drop,
    )
    .map(drop)
}

/// A core of its own for a thread of a run that compensates, so that its products stay there.
pub(super) fn one_core(plan: &Plan) -> Result<Option<ThreadPool>, Error> {
    if plan.options().compensation.is_none() {
        return Ok(None);
    }
    let core = cores::one().map_err(|error| Error::Compensating(error.to_string()))?;
    Ok(Some(core))
}

/// Does some work, on a core of its own where there is one.
pub(super) fn on<R: Send>(core: Option<&ThreadPool>, work: impl FnOnce() -> R + Send) -> R {
    match core {
        Some(core) => core.install(work),
        None => work(),
    }
}

impl<'a> Shared<'a> {
    fn one(&self, piece: &Piece, scratch: &mut Scratch) -> Result<(), Error> {
        let job = self.job;
        match piece {
            Piece::Copy { shard, span } => self.write(Write::Copy {
                shard: *shard,
                span: span.clone(),
            }),
            Piece::Sums {
                matrix: number,
                rows,
            } => {
                let matrix = &job.matrices[*number];
                let mut chunk = self.chunk();
                job.read(matrix, rows.clone(), &mut chunk)?;
                let _clock = job.clocks.run(Stage::Prune);
                if let Some(sums) = cpu::statistics(matrix.rows(&chunk), job.plan.score()) {
                    job.add_sums(*number, rows.clone(), &sums)?;
                }
                self.give_back(chunk);
                Ok(())
            }
            Piece::Prune {
                matrix: number,
                rows,
            } => {
                if rows.start == 0 {
                    job.look_ahead(*number)?;
                }
                let matrix = &job.matrices[*number];
                let Some(recipe) = job.recipe(*number, rows.len())? else {
                    return Ok(());
                };
                let mut chunk = self.chunk();
                job.read(matrix, rows.clone(), &mut chunk)?;
                let before = job.kept(&chunk);
                let mut counts = if matches!(recipe.compensation, Compensating::None) {
                    let _clock = job.clocks.run(Stage::Prune);
                    cpu::prune(
                        matrix.dtype,
                        matrix.target.in_features,
                        chunk.bytes_mut(),
                        rows.start,
                        &recipe.recipe,
                        job.plan.options().squared_error,
                        scratch,
                    )
                } else {
                    let _clock = job.clocks.run(Stage::Prune);
                    let mask = cpu::mask(matrix.rows(&chunk), rows.start, &recipe.recipe);
                    let bytes = chunk.bytes_mut();
                    job.apply(matrix, &recipe, mask, bytes, compensate::by_host(&recipe))?
                };
                job.weigh(matrix, before, &chunk, &mut counts)?;
                job.count(matrix, rows.clone(), counts)?;
                self.write(Write::Rows {
                    matrix,
                    rows: rows.clone(),
                    chunk,
                })
            }
        }
    }

    /// Has the piece written, by this thread or by the one that is writing; then its failure is that one's.
    fn write(&self, piece: Write<'a>) -> Result<(), Error> {
        self.writer.write(piece, |piece| {
            let job = self.job;
            if !job.goes_on()? {
                return Ok(());
            }
            match piece {
                Write::Copy { shard, span } => job.copy(shard, span),
                Write::Rows {
                    matrix,
                    rows,
                    mut chunk,
                } => {
                    let written = job.write(matrix, rows, &mut chunk);
                    self.give_back(chunk);
                    written
                }
            }
        })
    }

    fn chunk(&self) -> Chunk {
        let mut free = self.free.lock();
        free.pop().unwrap_or_default()
    }

    fn give_back(&self, chunk: Chunk) {
        let mut free = self.free.lock();
        free.push(chunk);
    }
}
