//! What the threads of a run share: the plan, the files, and what has been counted and timed.
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::check;
use super::chunk::Chunk;
use super::clocks::{Clocks, Stage, Stages};
use super::compensators::{Compensators, InputCompensator};
use super::error::Error;
use super::matrix::Matrix;
use super::outcome::PruneEvent;
use super::pieces::{self, Piece};
use super::recipes;
use super::shared_recipe::{MatrixRecipe, SharedRecipe};
use super::tally::{self, Tally};
use crate::checkpoint::{Output, Reader};
use crate::compensation::CompensatedRows;
use crate::counts::Counts;
use crate::device;
use crate::mask::Mask;
use crate::plan::{Plan, WeightsUse};
use crate::recipe::WeightStatistics;
use crate::stop::Stop;

/// What the threads of a run share.
pub(super) struct Job<'a> {
    pub(super) plan: &'a Plan,
    output: &'a Output,
    input: Reader<'a>,
    pub(super) matrices: Vec<Matrix<'a>>,
    pub(super) pieces: Vec<Piece>,
    /// How the rows of each matrix are pruned.
    recipes: Vec<SharedRecipe>,
    compensators: Compensators,
    /// Per tensor of the plan; `None` for a copied one.
    tallies: Vec<Option<Mutex<Tally>>>,
    counts: Mutex<Vec<Option<Counts>>>,
    progress: &'a (dyn Fn(PruneEvent<'_>) + Sync),
    /// What the caller may ask for.
    stop: &'a Stop,
    given_up: AtomicBool,
    device_failure: OnceLock<device::Error>,
    pub(super) clocks: Clocks,
}

struct GivesUpAtPanic<'j, 'a>(&'j Job<'a>);

impl Drop for GivesUpAtPanic<'_, '_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.give_up();
        }
    }
}

/// What a job that succeeded leaves.
pub(super) struct JobResult {
    pub(super) counts: Vec<Option<Counts>>,
    pub(super) stages: Stages,
    pub(super) device_failure: Option<device::Error>,
}

impl<'a> Job<'a> {
    /// Opens the input and cuts the plan, or one shard of it; `chunk_rows` says how many rows of a matrix go together.
    pub(super) fn new(
        plan: &'a Plan,
        only: Option<usize>,
        output: &'a Output,
        chunk_rows: impl Fn(&Matrix<'_>) -> usize,
        progress: &'a (dyn Fn(PruneEvent<'_>) + Sync),
        stop: &'a Stop,
    ) -> Result<Self, Error> {
        let (matrices, pieces) = pieces::cut(plan, only, chunk_rows);
        let tally = |target| Mutex::new(Tally::new(target));
        let takes_weights = plan.score().weights != WeightsUse::Unused;
        let recipe = |matrix: &Matrix<'_>| SharedRecipe::new(matrix.target, takes_weights);
        Ok(Self {
            plan,
            output,
            input: Reader::open(plan.checkpoint())?,
            recipes: matrices.iter().map(recipe).collect(),
            matrices,
            pieces,
            compensators: Compensators::default(),
            tallies: plan
                .tensors()
                .iter()
                .map(|tensor| tensor.target().map(tally))
                .collect(),
            counts: Mutex::new(vec![None; plan.tensors().len()]),
            progress,
            stop,
            given_up: AtomicBool::new(false),
            device_failure: OnceLock::new(),
            clocks: Clocks::default(),
        })
    }

    /// What was counted and timed, of a job that all threads have done their part of.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for a file that is not the same any more.
    pub(super) fn finish(self) -> Result<JobResult, Error> {
        // Before the output takes its name.
        self.input.check_unchanged()?;
        let counts = self.counts.into_inner();
        Ok(JobResult {
            counts,
            stages: self.clocks.read(),
            device_failure: self.device_failure.into_inner(),
        })
    }

    /// Tells, once, that the device has failed, and the CPU goes on.
    pub(super) fn device_failed(&self, error: device::Error) {
        let mut is_first = false;
        let failure = self.device_failure.get_or_init(|| {
            is_first = true;
            error
        });
        if is_first {
            (self.progress)(PruneEvent::DeviceFailed(failure));
        }
    }

    /// Whether the device has failed: it is not asked again.
    pub(super) fn has_device_failed(&self) -> bool {
        self.device_failure.get().is_some()
    }

    /// Adds the sums of some rows of the matrix of this number to those that its recipe waits for.
    pub(super) fn add_sums(
        &self,
        number: usize,
        rows: Range<usize>,
        part: &WeightStatistics,
    ) -> Result<(), Error> {
        let matrix = &self.matrices[number];
        let (score, target) = (self.plan.score(), matrix.target);
        let nothing = || WeightStatistics::nothing(score, target.out_features, target.in_features);
        let make = |sums: Option<&WeightStatistics>| self.make_recipe(matrix, sums);
        self.recipes[number].add_sums(rows, part, nothing, make)
    }

    /// The recipe of some rows of the matrix of this number; `None` when the run was given up.
    pub(super) fn recipe(
        &self,
        number: usize,
        rows: usize,
    ) -> Result<Option<Arc<MatrixRecipe>>, Error> {
        let matrix = &self.matrices[number];
        let make = |sums: Option<&WeightStatistics>| self.make_recipe(matrix, sums);
        self.recipes[number].take(rows, make)
    }

    fn make_recipe(
        &self,
        matrix: &Matrix<'_>,
        sums: Option<&WeightStatistics>,
    ) -> Result<MatrixRecipe, Error> {
        recipes::recipe(self.plan, &self.compensators, matrix, sums)
    }

    /// Makes what the matrix after this one is compensated with, so that nobody waits for it then.
    pub(super) fn look_ahead(&self, matrix: usize) -> Result<(), Error> {
        let next = self.matrices.get(matrix + 1);
        let (Some(next), Some(compensation)) = (next, self.plan.options().compensation) else {
            return Ok(());
        };
        let name = self.plan.tensors()[next.tensor].name.as_str();
        let of_input = (name, next.target, next.expert);
        self.compensators
            .of(self.plan, compensation, of_input)
            .map(drop)
    }

    /// Prunes rows in place by `mask`, has them compensated where that is asked for, and counts.
    pub(super) fn apply(
        &self,
        matrix: &Matrix<'_>,
        recipe: &MatrixRecipe,
        mask: Mask,
        bytes: &mut [u8],
        compensate_rows: impl FnOnce(
            &InputCompensator,
            &[f32],
            &mut Mask,
        ) -> Result<CompensatedRows, Error>,
    ) -> Result<Counts, Error> {
        recipes::apply(self.plan, matrix, recipe, mask, bytes, compensate_rows)
    }

    /// Rows as they are before they are pruned, where somebody wants to know what their output loses.
    pub(super) fn kept(&self, chunk: &Chunk) -> Option<Chunk> {
        let is_wanted = self.plan.options().squared_error && self.plan.norms().is_some();
        is_wanted.then(|| chunk.clone())
    }

    /// Counts what the output of rows loses that were [kept](Self::kept).
    pub(super) fn weigh(
        &self,
        matrix: &Matrix<'_>,
        before: Option<Chunk>,
        after: &Chunk,
        counts: &mut Counts,
    ) -> Result<(), Error> {
        match before {
            Some(before) => tally::weigh(self.plan, matrix, &before, after, counts),
            None => Ok(()),
        }
    }

    /// Whether the run goes on; asked before every piece of work. Not where another thread has failed.
    ///
    /// # Errors
    /// [`Error::Stopped`] where it was asked to stop.
    pub(super) fn goes_on(&self) -> Result<bool, Error> {
        if self.given_up.load(Ordering::Relaxed) {
            return Ok(false);
        }
        if !self.stop.is_requested() {
            return Ok(true);
        }
        self.give_up();
        let counts = self.counts.lock();
        Err(Error::Stopped {
            pruned: counts.iter().flatten().count(),
            tensors: self.plan.pruned().count(),
        })
    }

    /// Has every other thread end, those too that wait for sums.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.recipes.iter().for_each(SharedRecipe::abandon);
    }

    /// Gives the job up if the thread that has it panics: the others would wait for ever.
    pub(super) fn gives_up_at_panic(&self) -> impl Drop + '_ {
        GivesUpAtPanic(self)
    }

    pub(super) fn read(
        &self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<(), Error> {
        let _clock = self.clocks.run(Stage::Read);
        Ok(matrix.read(&self.input, rows, chunk)?)
    }

    pub(super) fn write(
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
        (self.progress)(PruneEvent::Written(chunk.bytes().len() as u64));
        Ok(())
    }

    pub(super) fn copy(&self, shard: usize, span: Range<u64>) -> Result<(), Error> {
        let bytes = span.end - span.start;
        {
            let _clock = self.clocks.run(Stage::Copy);
            self.output
                .copy_range(shard, &*self.input.file(shard)?, span.start, bytes)?;
        }
        (self.progress)(PruneEvent::Written(bytes));
        Ok(())
    }

    /// Checks and books what pruning some rows did.
    pub(super) fn count(
        &self,
        matrix: &Matrix<'_>,
        rows: Range<usize>,
        counts: Counts,
    ) -> Result<(), Error> {
        check::check(self.plan, matrix.tensor, rows.clone(), &counts)?;
        let Some(tally) = &self.tallies[matrix.tensor] else {
            return Ok(());
        };
        let done = tally.lock().add(matrix.expert, rows, counts);
        if let Some(counts) = done {
            self.counts.lock()[matrix.tensor] = Some(counts);
            (self.progress)(PruneEvent::Tensor {
                tensor: &self.plan.tensors()[matrix.tensor],
                counts,
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::prune;
    use super::*;
    use crate::checkpoint::{Checkpoint, OutputOptions};
    use crate::device::{Device, DeviceChoice, devices};
    use crate::error::Kind;
    use crate::plan::Options;
    use crate::selection::Selection;

    /// A job over the example model, half of each row to go.
    fn with_job(check: impl FnOnce(Job<'_>)) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        let plan = Plan::new(checkpoint, options, None).unwrap();
        let output = Output::create(plan.checkpoint(), &out, &OutputOptions::new()).unwrap();
        let stop = Stop::new();
        check(Job::new(&plan, None, &output, |_| usize::MAX, &|_| (), &stop).unwrap());
    }

    #[test]
    fn a_run_that_is_asked_to_stop_says_how_far_it_was_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        let plan = Plan::new(checkpoint, options, None).unwrap();
        let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
        let output = Output::create(plan.checkpoint(), &out, &OutputOptions::new()).unwrap();
        let stop = Stop::new();
        let stop_at_the_first = |event: PruneEvent<'_>| {
            if matches!(event, PruneEvent::Tensor { .. }) {
                stop.request();
            }
        };
        let stopped = prune(&plan, &cpu, output, &stop_at_the_first, &stop);
        let error = stopped.unwrap_err();
        assert!(
            matches!(
                error,
                Error::Stopped {
                    pruned: 1..,
                    tensors: 28
                }
            ),
            "{error}"
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_panic_ends_the_run_with_an_error_on_every_device_and_leaves_nothing() {
        let mut choices = vec![DeviceChoice::Cpu];
        let adapters = devices();
        choices.extend((adapters.iter().filter_map(|info| info.index)).map(DeviceChoice::Index));
        for choice in choices {
            for threads in [1, 3] {
                let dir = tempfile::tempdir().unwrap();
                let out = dir.path().join("out");
                let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
                let options = Options::new(Selection::Exact { sparsity: 0.5 });
                let plan = Plan::new(checkpoint, options, None).unwrap();
                let device = Device::open(&choice).unwrap().with_threads(Some(threads));
                let output =
                    Output::create(plan.checkpoint(), &out, &OutputOptions::new()).unwrap();
                let panic = |event: PruneEvent<'_>| {
                    assert!(!matches!(event, PruneEvent::Tensor { .. }), "while telling");
                };
                let ended = prune(&plan, &device, output, &panic, &Stop::new());
                let error = ended.unwrap_err();
                let says = matches!(&error, Error::Panicked(message) if message == "while telling");
                assert!(says, "{choice:?}: {error}");
                assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
            }
        }
    }

    #[test]
    fn a_thread_that_waits_for_sums_does_not_wait_for_one_that_panicked() {
        with_job(|job| {
            let job = &job;
            std::thread::scope(|scope| {
                let waits = scope.spawn(move || job.recipe(0, 1).map(|made| made.is_none()));
                let panics = scope.spawn(move || {
                    let _guard = job.gives_up_at_panic();
                    panic!("before the sums are there");
                });
                assert!(panics.join().is_err());
                assert!(matches!(waits.join(), Ok(Ok(true))));
            });
        });
    }

    #[test]
    fn a_device_that_prunes_too_little_is_not_believed() {
        with_job(|job| {
            let matrix = &job.matrices[0];
            let rows = 0..matrix.target.out_features;
            let weights = rows.len() as u64 * matrix.target.in_features as u64;
            let counts = |zeros| Counts {
                weights,
                zeros,
                ..Counts::default()
            };
            job.count(matrix, rows.clone(), counts(weights / 2))
                .unwrap();
            let error = job
                .count(matrix, rows, counts(weights / 2 - 1))
                .unwrap_err();
            assert!(
                matches!(&error, Error::TooFewZeros { asked, got, .. } if *asked == got + 1),
                "{error}"
            );
            assert_eq!(error.kind(), Kind::NotMet);
        });
    }
}
