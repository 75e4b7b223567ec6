//! A run on a GPU: a reader, the device, a pruner that zeroes by the device's masks and a writer work at the same time, over
//! channels that hold a few chunks; copies have a thread of their own.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use super::chunk::Chunk;
use super::clocks::Stage;
use super::compensators::InputCompensator;
use super::decider::{Decider, RowCompensators, Undecided};
use super::error::Error;
use super::job::Job;
use super::pieces::Piece;
use super::shared_recipe::MatrixRecipe;
use crate::device::gpu::{self, CHUNKS_IN_FLIGHT, Gpu};
use crate::mask::Mask;
use crate::workers::message;

/// Chunks that wait between two stages.
const WAITING: usize = 2;

/// Chunks that go round: those that wait, those on the device, and one in each stage's hands.
pub(super) const CHUNKS: usize = 3 * WAITING + CHUNKS_IN_FLIGHT + 3;

/// Bytes of small pieces that go to the device together, and how many of them.
const BATCH_BYTES: usize = 1 << 20;
const BATCH: usize = 64;

/// Rows that were read.
struct ReadRows {
    matrix: usize,
    rows: Range<usize>,
    chunk: Chunk,
}

/// What the device gets.
enum Read {
    /// Rows to sum.
    Sum(ReadRows),
    /// Rows to prune: of one large piece, or of several small ones.
    Prune(Vec<ReadRows>),
}

/// Rows on the device.
struct InFlight {
    undecided: Undecided,
    pieces: Vec<ReadRows>,
    recipes: Vec<Arc<MatrixRecipe>>,
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

pub(super) fn run(job: &Job<'_>, gpu: &Gpu) -> Result<(), Error> {
    let (to_device, from_reader) = sync_channel(WAITING);
    let (to_pruner, from_device) = sync_channel(WAITING);
    let (to_writer, from_pruner) = sync_channel(WAITING);
    // Chunks go round, so that their memory is used again.
    let (to_reader, used) = sync_channel(CHUNKS);
    let to_reader_again = to_reader.clone();
    std::thread::scope(|scope| {
        // A stage that fails drops its ends of the channels, and so ends the others.
        let stages = [
            scope.spawn(|| settle(job, || copies(job))),
            scope.spawn(move || settle(job, || read(job, &to_device, &used))),
            scope.spawn(move || settle(job, || prune(job, gpu, &from_device, &to_writer))),
            scope.spawn(move || settle(job, || write(job, &from_pruner, &to_reader))),
            scope.spawn(move || {
                settle(job, || {
                    decide(job, gpu, &from_reader, &to_pruner, &to_reader_again)
                })
            }),
        ];
        let ended = stages.map(|stage| match stage.join() {
            Ok(ended) => ended,
            Err(panic) => Err(Error::Panicked(message(&*panic))),
        });
        ended.into_iter().collect()
    })
}

/// Runs a stage; where it fails, the others end too.
fn settle(job: &Job<'_>, stage: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
    let _guard = job.gives_up_at_panic();
    stage().inspect_err(|_| job.give_up())
}

fn copies(job: &Job<'_>) -> Result<(), Error> {
    for piece in &job.pieces {
        if let Piece::Copy { shard, span } = piece {
            if !job.goes_on()? {
                break;
            }
            job.copy(*shard, span.clone())?;
        }
    }
    Ok(())
}

fn read(job: &Job<'_>, to_device: &SyncSender<Read>, used: &Receiver<Chunk>) -> Result<(), Error> {
    let mut together = Vec::new();
    let mut bytes = 0;
    // Whether there is somebody to go on.
    let send = |read: Read| Ok::<_, Error>(job.goes_on()? && to_device.send(read).is_ok());
    for piece in &job.pieces {
        let (matrix, rows, sum) = match piece {
            Piece::Copy { .. } => continue,
            Piece::Sums { matrix, rows } => (*matrix, rows.clone(), true),
            Piece::Prune { matrix, rows } => (*matrix, rows.clone(), false),
        };
        let mut chunk = used.try_recv().unwrap_or_default();
        job.read(&job.matrices[matrix], rows.clone(), &mut chunk)?;
        let len = chunk.bytes().len();
        let read = ReadRows {
            matrix,
            rows,
            chunk,
        };
        if sum {
            if !send(Read::Sum(read))? {
                return Ok(());
            }
            continue;
        }
        let is_full = bytes + len > BATCH_BYTES || together.len() == BATCH;
        if is_full && !together.is_empty() {
            if !send(Read::Prune(std::mem::take(&mut together)))? {
                return Ok(());
            }
            bytes = 0;
        }
        bytes += len;
        together.push(read);
    }
    if !together.is_empty() {
        send(Read::Prune(together))?;
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
            pieces,
            recipes,
        } = in_flight;
        let masks = decider.wait(undecided, &of_device(job, &pieces, &recipes));
        for (read, (mask, recipe)) in pieces.into_iter().zip(masks.into_iter().zip(recipes)) {
            let ReadRows {
                matrix,
                rows,
                chunk,
            } = read;
            // A thread that is gone has reported why.
            let _ = to_pruner.send(Decided {
                matrix,
                rows,
                chunk,
                mask,
                recipe,
            });
        }
    };
    for read in from_reader {
        if !job.goes_on()? {
            break;
        }
        let pieces = match read {
            Read::Sum(read) => {
                let matrix = &job.matrices[read.matrix];
                if let Some(sums) = decider.statistics(matrix.rows(&read.chunk)) {
                    job.add_sums(read.matrix, read.rows, &sums)?;
                }
                let _ = to_reader.try_send(read.chunk);
                continue;
            }
            Read::Prune(pieces) => pieces,
        };
        let mut recipes = Vec::with_capacity(pieces.len());
        for read in &pieces {
            match job.recipe(read.matrix, read.rows.len())? {
                Some(recipe) => recipes.push(recipe),
                None => return Ok(()),
            }
        }
        if in_flight.len() == CHUNKS_IN_FLIGHT
            && let Some(oldest) = in_flight.pop_front()
        {
            finish(oldest);
        }
        in_flight.push_back(InFlight {
            undecided: decider.submit(&of_device(job, &pieces, &recipes)),
            pieces,
            recipes,
        });
    }
    in_flight.into_iter().for_each(finish);
    Ok(())
}

/// Rows that were read as the device sees them.
fn of_device<'a>(
    job: &'a Job<'_>,
    pieces: &'a [ReadRows],
    recipes: &'a [Arc<MatrixRecipe>],
) -> Vec<gpu::Piece<'a>> {
    let pieces = pieces.iter().zip(recipes);
    pieces
        .map(|(read, recipe)| gpu::Piece {
            rows: job.matrices[read.matrix].rows(&read.chunk),
            first_row: read.rows.start,
            recipe: &recipe.recipe,
        })
        .collect()
}

fn prune(
    job: &Job<'_>,
    gpu: &Gpu,
    from_device: &Receiver<Decided>,
    to_writer: &SyncSender<Pruned>,
) -> Result<(), Error> {
    let mut compensators = RowCompensators::new(job, gpu);
    for Decided {
        matrix: index,
        rows,
        mut chunk,
        mask,
        recipe,
    } in from_device
    {
        if !job.goes_on()? {
            break;
        }
        let matrix = &job.matrices[index];
        let before = job.kept(&chunk);
        let mut counts = {
            let _clock = job.clocks.run(Stage::Prune);
            let selection = recipe.recipe.selection;
            let compensate_rows =
                |of_input: &InputCompensator, weights: &[f32], mask: &mut Mask| {
                    compensators.compensate(&of_input.compensator, selection, weights, mask)
                };
            job.apply(matrix, &recipe, mask, chunk.bytes_mut(), compensate_rows)?
        };
        job.weigh(matrix, before, &chunk, &mut counts)?;
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
        if !job.goes_on()? {
            break;
        }
        job.write(&job.matrices[matrix], rows, &mut chunk)?;
        let _ = to_reader.try_send(chunk);
    }
    Ok(())
}
