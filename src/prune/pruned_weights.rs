//! The weights that a plan would write, made when they are read: what a forward pass runs on to judge a plan without an output.
//!
//! They are the bytes that [`prune`](super::prune) writes on the CPU, made by the same code from the same chunks of rows. A
//! matrix is made when its first byte is asked for, and kept until the next ones have been: a block's weights are on the
//! device, or in the engine's memory, by then.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use parking_lot::Mutex;

use super::check;
use super::chunk::Chunk;
use super::compensate;
use super::compensators::Compensators;
use super::cpu::{chunk_rows, on, one_core};
use super::error::Error;
use super::matrix::Matrix;
use super::pieces;
use super::recipes;
use super::shared_recipe::MatrixRecipe;
use crate::checkpoint::Reader;
use crate::counts::Counts;
use crate::device::cpu;
use crate::forward::{self, WeightOverlay};
use crate::plan::Plan;
use crate::recipe::WeightStatistics;
use crate::stop::Stop;
use crate::workers::share_out;

/// Matrices that are kept: queries, keys and values in one tensor, or gate and up, are read one after the other.
const RECENT: usize = 2;

/// The weights of a plan's output.
#[derive(Debug)]
pub(crate) struct PrunedWeights<'a> {
    plan: &'a Plan,
    reader: Reader<'a>,
    matrices: Vec<Matrix<'a>>,
    /// By the name of their tensor, expert by expert.
    of_tensor: HashMap<&'a str, Range<usize>>,
    compensators: Compensators,
    threads: usize,
    stop: &'a Stop,
    recent: Mutex<VecDeque<(usize, Arc<Vec<u8>>)>>,
    /// Of each matrix that was made.
    counts: Mutex<BTreeMap<usize, Counts>>,
}

impl<'a> PrunedWeights<'a> {
    /// Those of `plan`, made by so many threads; nothing is made yet.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for files that cannot be opened.
    pub(crate) fn new(plan: &'a Plan, threads: usize, stop: &'a Stop) -> Result<Self, Error> {
        let (matrices, _) = pieces::cut(plan, None, |_| usize::MAX);
        let mut of_tensor: HashMap<&str, Range<usize>> = HashMap::new();
        for (index, matrix) in matrices.iter().enumerate() {
            let name = plan.tensors()[matrix.tensor].name.as_str();
            of_tensor.entry(name).or_insert(index..index).end = index + 1;
        }
        Ok(Self {
            plan,
            reader: Reader::open(plan.checkpoint())?,
            matrices,
            of_tensor,
            compensators: Compensators::default(),
            threads: threads.max(1),
            stop,
            recent: Mutex::default(),
            counts: Mutex::default(),
        })
    }

    /// What pruning did to all matrices that were read.
    pub(crate) fn counts(&self) -> Counts {
        let mut total = Counts::default();
        // In the order of the matrices, whatever the order they were made in.
        self.counts
            .lock()
            .values()
            .for_each(|&counts| total += counts);
        total
    }

    /// Checks that the files are still those that the plan was made of.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    pub(crate) fn check_unchanged(&self) -> Result<(), Error> {
        Ok(self.reader.check_unchanged()?)
    }

    /// The bytes of one matrix, as an output would hold them.
    fn matrix(&self, index: usize) -> Result<Arc<Vec<u8>>, Error> {
        let mut recent = self.recent.lock();
        if let Some((_, bytes)) = recent.iter().find(|(made, _)| *made == index) {
            return Ok(Arc::clone(bytes));
        }
        // Makes room first: what is held is never more than `RECENT`.
        recent.truncate(RECENT - 1);
        let (bytes, counts) = self.make(&self.matrices[index])?;
        self.counts.lock().insert(index, counts);
        let bytes = Arc::new(bytes);
        recent.push_front((index, Arc::clone(&bytes)));
        Ok(bytes)
    }

    /// How the rows of a matrix are pruned, with what its score takes of all of them.
    pub(super) fn recipe(&self, matrix: &Matrix<'_>) -> Result<MatrixRecipe, Error> {
        let rows = matrix.target.out_features;
        let compensates = self.plan.options().compensation.is_some();
        let step = chunk_rows(matrix, compensates).max(1);
        let score = self.plan.score();
        let mut sums = WeightStatistics::nothing(score, rows, matrix.target.in_features);
        if let Some(sums) = &mut sums {
            let parts = self.by_chunks(rows, step, |rows, chunk| {
                matrix.read(&self.reader, rows.clone(), chunk)?;
                Ok(cpu::statistics(matrix.rows(chunk), score))
            })?;
            for (first, part) in parts {
                part.iter().for_each(|part| sums.add(first, part));
            }
        }
        recipes::recipe(self.plan, &self.compensators, matrix, sums.as_ref())
    }

    /// All matrices of the plan.
    pub(super) fn matrices(&self) -> &[Matrix<'a>] {
        &self.matrices
    }

    /// The files of the original.
    pub(super) const fn reader(&self) -> &Reader<'a> {
        &self.reader
    }

    fn make(&self, matrix: &Matrix<'_>) -> Result<(Vec<u8>, Counts), Error> {
        let rows = matrix.target.out_features;
        let recipe = self.recipe(matrix)?;
        let compensates = self.plan.options().compensation.is_some();
        let step = chunk_rows(matrix, compensates).max(1);
        let bytes = Mutex::new(vec![0; matrix.place.bytes() as usize]);
        let counted = self.by_chunks(rows, step, |rows, chunk| {
            let counts = self.prune(matrix, &recipe, rows.clone(), chunk)?;
            let mut bytes = bytes.lock();
            matrix.write::<Error>(rows, chunk, |part, offset| {
                let at = (offset - matrix.place.first_byte()) as usize;
                bytes[at..at + part.len()].copy_from_slice(part);
                Ok(())
            })?;
            Ok(counts)
        })?;
        let mut total = Counts::default();
        counted.into_iter().for_each(|(_, counts)| total += counts);
        let bytes = bytes.into_inner();
        Ok((bytes, total))
    }

    fn prune(
        &self,
        matrix: &Matrix<'_>,
        recipe: &MatrixRecipe,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> Result<Counts, Error> {
        matrix.read(&self.reader, rows.clone(), chunk)?;
        let mask = cpu::mask(matrix.rows(chunk), rows.start, &recipe.recipe);
        let counts = recipes::apply(
            self.plan,
            matrix,
            recipe,
            mask,
            chunk.bytes_mut(),
            compensate::by_host(recipe),
        )?;
        check::check(self.plan, matrix.tensor, rows, &counts)?;
        Ok(counts)
    }

    /// Does some work on every chunk of rows, on all threads; the results in the order of the rows.
    fn by_chunks<T: Send>(
        &self,
        rows: usize,
        step: usize,
        work: impl Fn(Range<usize>, &mut Chunk) -> Result<T, Error> + Sync,
    ) -> Result<Vec<(usize, T)>, Error> {
        let firsts: Vec<usize> = (0..rows).step_by(step).collect();
        let done = share_out(
            self.threads.min(firsts.len()),
            &firsts,
            || Ok((one_core(self.plan)?, Chunk::default(), Vec::new())),
            |(core, chunk, done), &first| {
                if self.stop.is_requested() {
                    return Err(Error::Stopped {
                        pruned: 0,
                        tensors: self.plan.pruned().count(),
                    });
                }
                let rows = first..(first + step).min(rows);
                done.push((first, on(core.as_ref(), || work(rows, chunk))?));
                Ok(())
            },
            |(_, _, done)| done,
        )?;
        let mut done: Vec<_> = done.into_iter().flatten().collect();
        done.sort_by_key(|&(first, _)| first);
        Ok(done)
    }

    /// Copies a range of a tensor's bytes, which may go over several experts.
    fn copy(&self, matrices: Range<usize>, first: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let mut begins = 0;
        for index in matrices {
            let len = self.matrices[index].place.bytes();
            let (from, to) = (
                first.max(begins),
                (first + bytes.len() as u64).min(begins + len),
            );
            if from < to {
                let made = self.matrix(index)?;
                let of_matrix = (from - begins) as usize..(to - begins) as usize;
                let of_bytes = (from - first) as usize..(to - first) as usize;
                bytes[of_bytes].copy_from_slice(&made[of_matrix]);
            }
            begins += len;
        }
        Ok(())
    }
}

impl WeightOverlay for PrunedWeights<'_> {
    fn read(&self, tensor: &str, first: u64, bytes: &mut [u8]) -> Result<bool, forward::Error> {
        let Some(matrices) = self.of_tensor.get(tensor) else {
            return Ok(false);
        };
        let copied = self.copy(matrices.clone(), first, bytes);
        copied.map_err(|error| forward::Error::Overlay {
            tensor: tensor.to_owned(),
            reason: Box::new(error),
        })?;
        Ok(true)
    }
}

/// Why a forward pass failed whose weights [`PrunedWeights`] could not make, or the error as it is.
pub(crate) fn of_overlay(error: forward::Error) -> Result<Error, forward::Error> {
    match error {
        forward::Error::Overlay { tensor, reason } => match reason.downcast() {
            Ok(error) => Ok(*error),
            Err(reason) => Err(forward::Error::Overlay { tensor, reason }),
        },
        error => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::super::prune;
    use super::*;
    use crate::checkpoint::{Checkpoint, Output, OutputOptions};
    use crate::device::{Device, DeviceChoice};
    use crate::plan::{Options, Pattern, Selection};
    use crate::scores::SCORES;

    fn plan(options: Options) -> Plan {
        let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
        Plan::new(checkpoint, options, None).unwrap()
    }

    /// Every tensor of the plan, in parts of an awkward length, against the output that it writes.
    fn assert_as_written(plan: &Plan) {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let output = Output::create(plan.checkpoint(), &out, &OutputOptions::new()).unwrap();
        let cpu = Device::open(&DeviceChoice::Cpu).unwrap();
        let outcome = prune(plan, &cpu, output, &|_| (), &Stop::new()).unwrap();
        let written = Checkpoint::open_path(&out).unwrap();
        let written = Reader::open(&written).unwrap();
        let stop = Stop::new();
        let made = PrunedWeights::new(plan, 3, &stop).unwrap();
        for tensor in plan.tensors() {
            let wanted = written.read(&tensor.name).unwrap();
            let mut got = vec![0; wanted.len()];
            let mut is_made = true;
            for (part, bytes) in got.chunks_mut(100_001).enumerate() {
                is_made &= made
                    .read(&tensor.name, part as u64 * 100_001, bytes)
                    .unwrap();
            }
            assert_eq!(is_made, tensor.target().is_some(), "{}", tensor.name);
            assert!(!is_made || got == wanted, "{}", tensor.name);
        }
        let mut all = Counts::default();
        outcome
            .counts
            .iter()
            .flatten()
            .for_each(|&counts| all += counts);
        assert_eq!(made.counts(), all);
    }

    #[test]
    fn what_is_read_is_what_a_run_writes() {
        let two_of_four = Pattern::new(2, 4).unwrap();
        for score in SCORES
            .iter()
            .filter(|score| score.norms != crate::plan::NormsUse::Required)
        {
            for selection in [
                Selection::Exact { sparsity: 0.3 },
                Selection::Pattern(two_of_four),
            ] {
                let mut options = Options::new(selection);
                options.score = Some(score);
                assert_as_written(&plan(options));
            }
        }
    }

    #[test]
    fn a_request_to_stop_is_an_error_and_not_half_a_matrix() {
        let plan = plan(Options::new(Selection::Exact { sparsity: 0.5 }));
        let stop = Stop::new();
        let made = PrunedWeights::new(&plan, 2, &stop).unwrap();
        stop.request();
        let name = &plan.pruned().next().unwrap().0.name;
        let stopped = made.read(name, 0, &mut [0; 8]).unwrap_err();
        assert!(matches!(of_overlay(stopped), Ok(Error::Stopped { .. })));
    }
}
