//! A run on a GPU: a reader, the device, a pruner that zeroes by the device's masks and a writer work at the same time, over
//! channels that hold a few chunks; copies have a thread of their own.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::chunk::Chunk;
use super::clocks::Stage;
use super::decider::{Decider, Undecided};
use super::error::Error;
use super::job::Job;
use super::matrix::Matrix;
use super::pieces::Piece;
use super::shared_recipe::MatrixRecipe;
use crate::device::gpu::{CHUNKS_IN_FLIGHT, Gpu};
use crate::mask::Mask;
use crate::recipe::Rows;

/// Chunks that wait between two stages.
const WAITING: usize = 2;

/// Chunks that go round: those that wait, those on the device, and one in each stage's hands.
pub(super) const CHUNKS: usize = 3 * WAITING + CHUNKS_IN_FLIGHT + 3;

/// Rows that were read: to sum, or to prune.
struct Read {
    matrix: usize,
    rows: Range<usize>,
    sum: bool,
    chunk: Chunk,
}

/// Rows on the device.
struct InFlight {
    undecided: Undecided,
    matrix: usize,
    rows: Range<usize>,
    chunk: Chunk,
    recipe: Arc<MatrixRecipe>,
}

/// Rows that were decided.
struct Decided {
    matrix: usize,
    rows: Range<usize>,
    chunk: Chunk,
    mask: Mask,
    recipe: Arc<MatrixRecipe>,
}

/// Rows that are as they will be written.
struct Pruned {
    matrix: usize,
    rows: Range<usize>,
    chunk: Chunk,
}

pub(super) fn run(job: &Job<'_>, gpu: &Gpu) {
    let (to_device, from_reader) = sync_channel(WAITING);
    let (to_pruner, from_device) = sync_channel(WAITING);
    let (to_writer, from_pruner) = sync_channel(WAITING);
    // Chunks go round, so that their memory is used again.
    let (to_reader, used) = sync_channel(CHUNKS);
    let to_reader_again = to_reader.clone();
    std::thread::scope(|scope| {
        // A stage that fails drops its ends of the channels, and so ends the others.
        scope.spawn(|| settle(job, copies(job)));
        scope.spawn(move || settle(job, read(job, &to_device, &used)));
        scope.spawn(move || settle(job, prune(job, &from_device, &to_writer)));
        scope.spawn(move || settle(job, write(job, &from_pruner, &to_reader)));
        settle(
            job,
            decide(job, gpu, &from_reader, &to_pruner, &to_reader_again),
        );
        drop((from_reader, to_pruner, to_reader_again));
    });
}

fn settle(job: &Job<'_>, result: Result<(), Error>) {
    if let Err(error) = result {
        job.fail(error);
    }
}

fn copies(job: &Job<'_>) -> Result<(), Error> {
    for piece in &job.pieces {
        if let Piece::Copy { shard, span } = piece {
            if job.is_stopped() {
                break;
            }
            job.copy(*shard, span.clone())?;
        }
    }
    Ok(())
}

fn read(job: &Job<'_>, to_device: &SyncSender<Read>, used: &Receiver<Chunk>) -> Result<(), Error> {
    for piece in &job.pieces {
        let (matrix, rows, sum) = match piece {
            Piece::Copy { .. } => continue,
            Piece::Sums { matrix, rows } => (*matrix, rows.clone(), true),
            Piece::Prune { matrix, rows } => (*matrix, rows.clone(), false),
        };
        let mut chunk = used.try_recv().unwrap_or_default();
        job.read(&job.matrices[matrix], rows.clone(), &mut chunk)?;
        if job.is_stopped()
            || to_device
                .send(Read {
                    matrix,
                    rows,
                    sum,
                    chunk,
                })
                .is_err()
        {
            break;
        }
    }
    Ok(())
}

fn decide(
    job: &Job<'_>,
    gpu: &Gpu,
    from_reader: &Receiver<Read>,
    to_pruner: &SyncSender<Decided>,
    to_reader: &SyncSender<Chunk>,
) -> Result<(), Error> {
    let decider = Decider::new(job, gpu);
    let mut in_flight: VecDeque<InFlight> = VecDeque::new();
    let finish = |in_flight: InFlight| {
        let InFlight {
            undecided,
            matrix,
            rows,
            chunk,
            recipe,
        } = in_flight;
        let weights = weights(&job.matrices[matrix], &chunk);
        let mask = decider.wait(undecided, weights, rows.start, &recipe.recipe);
        // A thread that is gone has reported why.
        let _ = to_pruner.send(Decided {
            matrix,
            rows,
            chunk,
            mask,
            recipe,
        });
    };
    for Read {
        matrix: index,
        rows,
        sum,
        chunk,
    } in from_reader
    {
        if job.is_stopped() {
            break;
        }
        let matrix = &job.matrices[index];
        let weights = weights(matrix, &chunk);
        if sum {
            if let Some(sums) = decider.statistics(weights) {
                job.add_sums(matrix, rows, &sums)?;
            }
            let _ = to_reader.try_send(chunk);
            continue;
        }
        let Some(recipe) = job.recipe(matrix, rows.len())? else {
            break;
        };
        if in_flight.len() == CHUNKS_IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            finish(oldest);
        }
        in_flight.push_back(InFlight {
            undecided: decider.submit(weights, rows.start, &recipe.recipe),
            matrix: index,
            rows,
            chunk,
            recipe,
        });
    }
    in_flight.into_iter().for_each(finish);
    Ok(())
}

/// The rows that a chunk holds.
fn weights<'c>(matrix: &Matrix<'_>, chunk: &'c Chunk) -> Rows<'c> {
    Rows {
        dtype: matrix.dtype,
        in_features: matrix.target.in_features,
        bytes: chunk.bytes(),
    }
}

fn prune(
    job: &Job<'_>,
    from_device: &Receiver<Decided>,
    to_writer: &SyncSender<Pruned>,
) -> Result<(), Error> {
    for Decided {
        matrix: index,
        rows,
        mut chunk,
        mask,
        recipe,
    } in from_device
    {
        if job.is_stopped() {
            break;
        }
        let matrix = &job.matrices[index];
        let counts = {
            let _clock = job.clocks.run(Stage::Prune);
            job.apply(matrix, &recipe, mask, chunk.bytes_mut())?
        };
        job.count(matrix, rows.clone(), counts)?;
        let pruned = Pruned {
            matrix: index,
            rows,
            chunk,
        };
        if to_writer.send(pruned).is_err() {
            break;
        }
    }
    Ok(())
}

fn write(
    job: &Job<'_>,
    from_pruner: &Receiver<Pruned>,
    to_reader: &SyncSender<Chunk>,
) -> Result<(), Error> {
    for Pruned {
        matrix,
        rows,
        mut chunk,
    } in from_pruner
    {
        if job.is_stopped() {
            break;
        }
        job.write(&job.matrices[matrix], rows, &mut chunk)?;
        let _ = to_reader.try_send(chunk);
    }
    Ok(())
}
