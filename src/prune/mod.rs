//! Running a plan: rows flow from the checkpoint through a device to the output, in memory bounded by the chunks in
//! flight, whatever the size of the model.
//!
//! On the CPU every thread reads and prunes chunks of its own, and one at a time writes (`cpu.rs`). On a GPU a reader, the device and a
//! writer are stages over bounded channels (`gpu.rs`). Both take the same pieces (`work.rs`) in the order of the bytes, and
//! bytes that do not change are copied by the kernel.

mod cpu;
mod gpu;
mod single_writer;
mod work;

use std::fs::File;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::checkpoint::{self, Finished, Output, shown, shown_path};
use crate::counts::Counts;
use crate::device::gpu::CHUNKS_IN_FLIGHT;
use crate::device::{self, Device, Kind};
use crate::plan::Plan;
use crate::recipe::Rows;
use work::{Chunk, Matrix, Piece, Tally};

/// Why a run was given up; the output did not appear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// A target holds NaN or infinity.
    #[error(
        "{}: tensor {} holds NaN or infinity ({count} in rows {}..{}): the checkpoint is damaged, or was saved from a \
         diverged run; --keep-non-finite leaves such weights alone, --exclude {} the whole tensor",
        shown_path(file), shown(tensor), rows.start, rows.end, shown(tensor)
    )]
    NonFinite {
        /// The file.
        file: std::path::PathBuf,
        /// The tensor.
        tensor: String,
        /// How many in these rows.
        count: u64,
        /// Where they were found first.
        rows: Range<usize>,
    },
    /// The device pruned fewer weights than were asked for: a driver that loses work without saying so.
    #[error(
        "tensor {}: {got} zeros came back where at least {asked} were asked for, so the device's work cannot be trusted; \
         --device cpu gives the right result",
        shown(tensor)
    )]
    TooFewZeros {
        /// The tensor.
        tensor: String,
        /// Zeros that were asked for.
        asked: u64,
        /// Zeros there are.
        got: u64,
    },
}

/// What happens during a run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event {
    /// So many more bytes of the output are written.
    Written(u64),
    /// A tensor is done.
    Tensor {
        /// Its place in [`Plan::tensors`].
        index: usize,
        /// What pruning it did.
        counts: Counts,
    },
}

/// What a run did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Per tensor of the plan: what pruning did, `None` for a copied one.
    pub counts: Vec<Option<Counts>>,
    /// Wall time from the first read to the rename.
    pub elapsed: Duration,
    /// Where the time went.
    pub stages: Stages,
    /// The output and what came along.
    pub finished: Finished,
}

/// Time per stage, summed over threads; stages overlap, so they add up to more than the wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Stages {
    /// Reading rows.
    pub read: Duration,
    /// With a GPU: copying rows to where it gets them from, and submitting its work.
    pub upload: Duration,
    /// With a GPU: waiting for it.
    pub wait: Duration,
    /// Deciding and zeroing; with a GPU, zeroing by its masks.
    pub prune: Duration,
    /// Writing rows.
    pub write: Duration,
    /// Copying bytes that do not change.
    pub copy: Duration,
}

/// Prunes: runs the plan on the device and makes the output appear, whole, at the end.
///
/// `progress` is called from several threads. Memory: a few chunks a thread.
///
/// # Errors
/// Every variant of [`Error`]; the output is then as if nothing had been run.
pub fn prune(
    plan: &Plan,
    device: &Device,
    output: Output,
    sync: bool,
    progress: &(dyn Fn(Event) + Sync),
) -> Result<Outcome, Error> {
    let start = Instant::now();
    let files = plan
        .checkpoint
        .shards
        .iter()
        .map(|shard| checkpoint::open_regular(&shard.path).map(|(file, _)| file))
        .collect::<checkpoint::Result<Vec<_>>>()?;
    let chunk_rows = |matrix: &Matrix<'_>| match device.kind() {
        Kind::Cpu(_) => cpu::chunk_rows(matrix),
        Kind::Gpu(gpu) => gpu.chunk_rows(matrix.target.in_features),
    };
    let (matrices, pieces) = work::cut(plan, chunk_rows);
    let tallies = plan
        .pruned()
        .map(|(_, target)| Mutex::new(Tally::new(target)));
    let mut tallies = tallies.collect::<Vec<_>>().into_iter();
    let run = Run {
        plan,
        output: &output,
        files,
        matrices,
        pieces,
        tallies: plan
            .tensors
            .iter()
            .map(|tensor| match tensor.action {
                crate::plan::Action::Prune { .. } => tallies.next(),
                crate::plan::Action::Copy(_) => None,
            })
            .collect(),
        counts: Mutex::new(vec![None; plan.tensors.len()]),
        progress,
        stopped: AtomicBool::new(false),
        failure: Mutex::new(None),
        clocks: Clocks::default(),
    };
    match device.kind() {
        Kind::Cpu(cpu) => cpu::run(&run, cpu.threads()),
        Kind::Gpu(gpu) => gpu::run(&run, gpu),
    }
    let Run {
        counts,
        failure,
        clocks,
        ..
    } = run;
    if let Some(error) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let finished = output.finish(sync)?;
    Ok(Outcome {
        counts: counts.into_inner().unwrap_or_else(PoisonError::into_inner),
        elapsed: start.elapsed(),
        stages: clocks.read(),
        finished,
    })
}

/// About how much memory a run takes: its chunks, buffers and keys.
#[must_use]
pub fn memory(plan: &Plan, device: &Device) -> u64 {
    let chunk = plan.pruned().map(|(tensor, target)| {
        let row = tensor.len / (target.experts * target.out_features).max(1) as u64;
        match device.kind() {
            // A chunk holds one row at least; its keys take up to nine bytes a weight. One chunk in hand, three being
            // written or waiting for it.
            Kind::Cpu(cpu) => cpu.threads() as u64 * (4 * (512 << 10).max(row) + 5 * row),
            // The chunks that go round, and the staging memory of those on the device.
            Kind::Gpu(gpu) => {
                let chunk = gpu.chunk_rows(target.in_features) as u64 * row;
                (gpu::CHUNKS + CHUNKS_IN_FLIGHT) as u64 * chunk
            }
        }
    });
    let program = match device.kind() {
        Kind::Cpu(_) => 16 << 20,
        Kind::Gpu(_) => 128 << 20,
    };
    program + chunk.max().unwrap_or(0)
}

/// How long the device would compute, measured by deciding one chunk of the plan's largest matrix; `None` for a plan
/// without weights.
///
/// # Errors
/// When the sample cannot be read, or the device fails.
pub fn estimate(plan: &Plan, device: &Device) -> Result<Option<Duration>, Error> {
    const SAMPLE_BYTES: usize = 4 << 20;
    let (matrices, _) = work::cut(plan, |_| usize::MAX);
    let Some(matrix) = matrices
        .iter()
        .max_by_key(|matrix| matrix.target.out_features * matrix.row_bytes())
    else {
        return Ok(None);
    };
    let shard = &plan.checkpoint.shards[matrix.shard];
    let (file, _) = checkpoint::open_regular(&shard.path)?;
    let rows =
        0..(SAMPLE_BYTES / matrix.row_bytes().max(1)).clamp(1, matrix.target.out_features.max(1));
    let mut chunk = Chunk::default();
    matrix
        .read(&file, rows.clone(), &mut chunk)
        .map_err(|source| checkpoint::Error::Io {
            action: "read",
            path: shard.path.clone(),
            source,
        })?;
    let weights = Rows {
        dtype: matrix.dtype,
        in_features: matrix.target.in_features,
        bytes: chunk.bytes(),
    };
    let recipe = work::sample_recipe(plan, matrix);
    device.mask(weights, 0, &recipe)?; // compiles the shaders
    let start = Instant::now();
    device.mask(weights, 0, &recipe)?;
    let sampled = start.elapsed().as_secs_f64() / chunk.bytes().len().max(1) as f64;
    let threads = match device.kind() {
        Kind::Cpu(cpu) => cpu.threads() as f64,
        Kind::Gpu(_) => 1.0,
    };
    Ok(Some(Duration::from_secs_f64(
        sampled * plan.bytes_pruned() as f64 / threads,
    )))
}

/// What the threads of a run share.
struct Run<'a> {
    plan: &'a Plan,
    output: &'a Output,
    /// The input, one handle a shard.
    files: Vec<File>,
    matrices: Vec<Matrix<'a>>,
    pieces: Vec<Piece>,
    /// Per tensor of the plan; `None` for a copied one.
    tallies: Vec<Option<Mutex<Tally>>>,
    counts: Mutex<Vec<Option<Counts>>>,
    progress: &'a (dyn Fn(Event) + Sync),
    stopped: AtomicBool,
    failure: Mutex<Option<Error>>,
    clocks: Clocks,
}

impl Run<'_> {
    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Keeps the first failure and stops every thread.
    fn fail(&self, error: Error) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.stopped.store(true, Ordering::Relaxed);
        for matrix in &self.matrices {
            matrix.abandon();
        }
    }

    fn read(
        &self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), Error> {
        let _clock = self.clocks.run(Stage::Read);
        matrix
            .read(&self.files[matrix.shard], rows, chunk)
            .map_err(|source| {
                let path = self.plan.checkpoint.shards[matrix.shard].path.clone();
                Error::Checkpoint(if source.kind() == std::io::ErrorKind::UnexpectedEof {
                    checkpoint::Error::Changed { path }
                } else {
                    checkpoint::Error::Io {
                        action: "read",
                        path,
                        source,
                    }
                })
            })
    }

    fn write(
        &self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), Error> {
        {
            let _clock = self.clocks.run(Stage::Write);
            matrix.write(rows, chunk, |bytes, offset| {
                self.output.write_at(matrix.shard, bytes, offset)
            })?;
        }
        (self.progress)(Event::Written(chunk.bytes().len() as u64));
        Ok(())
    }

    fn copy(&self, shard: usize, span: Range<u64>) -> Result<(), Error> {
        let bytes = span.end - span.start;
        {
            let _clock = self.clocks.run(Stage::Copy);
            self.output
                .copy_range(shard, &self.files[shard], span.start, bytes)?;
        }
        (self.progress)(Event::Written(bytes));
        Ok(())
    }

    /// Checks and books what pruning some rows did.
    fn count(&self, matrix: &Matrix<'_>, rows: Range<usize>, counts: Counts) -> Result<(), Error> {
        let tensor = &self.plan.tensors[matrix.tensor];
        if counts.non_finite > 0 && !self.plan.options.keep_non_finite {
            return Err(Error::NonFinite {
                file: self.plan.checkpoint.shards[matrix.shard].path.clone(),
                tensor: tensor.name.clone(),
                count: counts.non_finite,
                rows,
            });
        }
        if let Some(target) = self
            .plan
            .options
            .selection
            .target(matrix.target.in_features)
            && counts.non_finite == 0
        {
            let a_row = (target * matrix.target.in_features as f64).round() as u64;
            let asked = a_row * rows.len() as u64;
            if counts.zeros < asked {
                return Err(Error::TooFewZeros {
                    tensor: tensor.name.clone(),
                    asked,
                    got: counts.zeros,
                });
            }
        }
        let Some(tally) = &self.tallies[matrix.tensor] else {
            return Ok(());
        };
        let done =
            tally
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .add(matrix.expert, rows, counts);
        if let Some(counts) = done {
            self.counts.lock().unwrap_or_else(PoisonError::into_inner)[matrix.tensor] =
                Some(counts);
            (self.progress)(Event::Tensor {
                index: matrix.tensor,
                counts,
            });
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Stage {
    Read,
    Upload,
    Wait,
    Prune,
    Write,
    Copy,
}

/// Nanoseconds per stage.
#[derive(Default)]
struct Clocks([AtomicU64; 6]);

impl Clocks {
    fn run(&self, stage: Stage) -> Clock<'_> {
        Clock {
            start: Instant::now(),
            total: &self.0[stage as usize],
        }
    }

    fn read(&self) -> Stages {
        let [read, upload, wait, prune, write, copy] = [0, 1, 2, 3, 4, 5]
            .map(|stage: usize| Duration::from_nanos(self.0[stage].load(Ordering::Relaxed)));
        Stages {
            read,
            upload,
            wait,
            prune,
            write,
            copy,
        }
    }
}

/// Adds the time until it is dropped.
struct Clock<'a> {
    start: Instant,
    total: &'a AtomicU64,
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        let nanoseconds = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.total.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}
