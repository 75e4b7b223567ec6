//! The work of a plan, cut into pieces that any thread or device can take: spans to copy and chunks of rows to prune.

use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::checkpoint::positional;
use crate::counts::Counts;
use crate::dtype::Dtype;
use crate::norms::Lookup;
use crate::plan::{Action, Plan};
use crate::recipe::{Recipe, Sums};
use crate::targets::Target;

/// A copied span is cut at this, so that threads share the copying of a large embedding.
const COPY_BYTES: u64 = 32 << 20;

/// One piece of work. Pieces are taken in order; a `Prune` may have to wait for the `Sums` of its matrix.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    /// Bytes that do not change.
    Copy { shard: usize, span: Range<u64> },
    /// Rows whose weights are to be summed.
    Sums { matrix: usize, rows: Range<usize> },
    /// Rows to prune.
    Prune { matrix: usize, rows: Range<usize> },
}

/// A matrix of a tensor that is pruned: the tensor itself, or one of its experts.
#[derive(Debug)]
pub(super) struct Matrix<'a> {
    /// Its tensor in the plan.
    pub tensor: usize,
    /// Its expert; 0 when there is one matrix only.
    pub expert: usize,
    pub shard: usize,
    pub dtype: Dtype,
    pub target: &'a Target,
    /// Its first byte in the shard's file.
    offset: u64,
    /// What its rows still owe, what they have summed up, and what became of it.
    state: Mutex<State>,
    summed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Rows not summed yet; 0 where the score wants no sums.
    rows_to_sum: usize,
    sums: Option<Sums>,
    /// Rows no one has asked the recipe for yet; with the last, the matrix lets go of it.
    rows_to_prune: usize,
    recipe: Option<Arc<Recipe>>,
    abandoned: bool,
}

impl<'a> Matrix<'a> {
    fn new(tensor: usize, expert: usize, plan: &'a Plan, dtype: Dtype, target: &'a Target) -> Self {
        let planned = &plan.tensors[tensor];
        let bytes = planned.len / target.experts as u64;
        Self {
            tensor,
            expert,
            shard: planned.shard,
            dtype,
            target,
            offset: planned.offset + expert as u64 * bytes,
            state: Mutex::new(State {
                rows_to_sum: if plan.score.sums_of_weights {
                    target.out_features
                } else {
                    0
                },
                rows_to_prune: target.out_features,
                ..State::default()
            }),
            summed: Condvar::new(),
        }
    }

    /// Bytes of one row (an output neuron's weights), however they lie in the file.
    pub(super) fn row_bytes(&self) -> usize {
        self.target.in_features * self.dtype.size()
    }

    /// Adds the sums of some rows; the last to arrive settles the recipe.
    pub(super) fn add_sums(&self, plan: &Plan, rows: Range<usize>, part: &Sums) {
        let mut state = self.lock();
        let sums = state.sums.get_or_insert_with(|| Sums {
            column: vec![0; self.target.in_features],
            row: vec![0; self.target.out_features],
        });
        for (sum, part) in sums.column.iter_mut().zip(&part.column) {
            *sum += part;
        }
        sums.row[rows.clone()].copy_from_slice(&part.row);
        state.rows_to_sum -= rows.len();
        if state.rows_to_sum == 0 {
            let sums = state.sums.take();
            state.recipe = Some(Arc::new(recipe(plan, self, sums.as_ref())));
            self.summed.notify_all();
        }
    }

    /// The recipe for so many rows, waiting for the sums where the score wants them; `None` when the run was given up
    /// meanwhile. Each row is asked for once: after the last the recipe lives only as long as it is in use.
    pub(super) fn recipe(&self, plan: &Plan, rows: usize) -> Option<Arc<Recipe>> {
        let mut state = self.lock();
        while state.rows_to_sum > 0 && !state.abandoned {
            state = self
                .summed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        if state.rows_to_sum > 0 {
            return None;
        }
        state.rows_to_prune = state.rows_to_prune.saturating_sub(rows);
        let is_last = state.rows_to_prune == 0;
        let recipe = state
            .recipe
            .get_or_insert_with(|| Arc::new(recipe(plan, self, None)))
            .clone();
        if is_last {
            state.recipe = None;
        }
        Some(recipe)
    }

    /// Wakes whoever waits for sums that will not come.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.summed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads rows into `chunk`, row-major whichever way they lie in the file.
    pub(super) fn read(
        &self,
        file: &File,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> std::io::Result<()> {
        let bytes = chunk.resize(rows.len() * self.row_bytes());
        if !Plan::is_transposed(self.target) {
            return positional::read_exact_at(file, bytes, self.row_offset(rows.start));
        }
        let size = self.dtype.size();
        chunk.band.resize(rows.len() * size, 0);
        for feature in 0..self.target.in_features {
            positional::read_exact_at(
                file,
                &mut chunk.band,
                self.band_offset(feature, rows.start),
            )?;
            let bytes = bytemuck::cast_slice_mut::<u64, u8>(&mut chunk.words);
            for (row, weight) in chunk.band.chunks_exact(size).enumerate() {
                let at = (row * self.target.in_features + feature) * size;
                bytes[at..at + size].copy_from_slice(weight);
            }
        }
        Ok(())
    }

    /// Writes the rows of `chunk` back where [`Self::read`] found them.
    pub(super) fn write<E>(
        &self,
        rows: Range<usize>,
        chunk: &mut Chunk,
        mut write_at: impl FnMut(&[u8], u64) -> Result<(), E>,
    ) -> Result<(), E> {
        if !Plan::is_transposed(self.target) {
            return write_at(chunk.bytes(), self.row_offset(rows.start));
        }
        let size = self.dtype.size();
        for feature in 0..self.target.in_features {
            let bytes = bytemuck::cast_slice::<u64, u8>(&chunk.words);
            for (row, weight) in chunk.band.chunks_exact_mut(size).enumerate() {
                let at = (row * self.target.in_features + feature) * size;
                weight.copy_from_slice(&bytes[at..at + size]);
            }
            write_at(&chunk.band, self.band_offset(feature, rows.start))?;
        }
        Ok(())
    }

    fn row_offset(&self, row: usize) -> u64 {
        self.offset + (row * self.row_bytes()) as u64
    }

    /// Where, in a matrix stored `[in, out]`, the weights of one input feature begin for rows from `row`.
    fn band_offset(&self, feature: usize, row: usize) -> u64 {
        self.offset + ((feature * self.target.out_features + row) * self.dtype.size()) as u64
    }
}

fn recipe(plan: &Plan, matrix: &Matrix<'_>, sums: Option<&Sums>) -> Recipe {
    let name = &plan.tensors[matrix.tensor].name;
    // The plan has looked every one of these up already.
    let norms = plan
        .norms_of(name, matrix.target, matrix.expert)
        .ok()
        .flatten()
        .and_then(Lookup::measured);
    let in_features = matrix.target.in_features;
    Recipe::new(plan.options.selection, plan.score, in_features, norms, sums)
}

/// A recipe of the right form for timing one chunk: the score's real factors, and any terms.
pub(super) fn sample_recipe(plan: &Plan, matrix: &Matrix<'_>) -> Recipe {
    let ones = Sums {
        column: vec![1; matrix.target.in_features],
        row: vec![1; matrix.target.out_features],
    };
    recipe(plan, matrix, plan.score.sums_of_weights.then_some(&ones))
}

/// The weights of some rows, in memory aligned for every dtype, used again for the next.
#[derive(Debug, Default)]
pub(super) struct Chunk {
    words: Vec<u64>,
    len: usize,
    /// One input feature's weights, while a transposed matrix is read or written.
    band: Vec<u8>,
}

impl Chunk {
    fn resize(&mut self, bytes: usize) -> &mut [u8] {
        self.words.resize(bytes.div_ceil(8), 0);
        self.len = bytes;
        self.bytes_mut()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut bytemuck::cast_slice_mut(&mut self.words)[..self.len]
    }
}

/// Every matrix of the plan, and every piece of its work in the order of the bytes.
///
/// `chunk_rows` says how many rows of a matrix go together.
pub(super) fn cut<'a>(
    plan: &'a Plan,
    chunk_rows: impl Fn(&Matrix<'_>) -> usize,
) -> (Vec<Matrix<'a>>, Vec<Piece>) {
    let (mut matrices, mut pieces) = (Vec::new(), Vec::new());
    let mut copying: Option<(usize, Range<u64>)> = None;
    for (index, tensor) in plan.tensors.iter().enumerate() {
        let end = tensor.offset + tensor.len;
        let Action::Prune { target, dtype } = &tensor.action else {
            match &mut copying {
                Some((shard, span)) if *shard == tensor.shard && span.end == tensor.offset => {
                    span.end = end
                }
                _ => {
                    copy(&mut pieces, copying.take());
                    copying = Some((tensor.shard, tensor.offset..end));
                }
            }
            continue;
        };
        copy(&mut pieces, copying.take());
        for expert in 0..target.experts {
            let matrix = Matrix::new(index, expert, plan, *dtype, target);
            let step = chunk_rows(&matrix).max(1);
            let chunks = (0..target.out_features)
                .step_by(step)
                .map(|row| row..(row + step).min(target.out_features));
            let matrix = {
                matrices.push(matrix);
                matrices.len() - 1
            };
            if plan.score.sums_of_weights {
                pieces.extend(chunks.clone().map(|rows| Piece::Sums { matrix, rows }));
            }
            pieces.extend(chunks.map(|rows| Piece::Prune { matrix, rows }));
        }
    }
    copy(&mut pieces, copying);
    (matrices, pieces)
}

fn copy(pieces: &mut Vec<Piece>, span: Option<(usize, Range<u64>)>) {
    let Some((shard, span)) = span else { return };
    let mut start = span.start;
    while start < span.end {
        let end = span.end.min(start + COPY_BYTES);
        pieces.push(Piece::Copy {
            shard,
            span: start..end,
        });
        start = end;
    }
}

/// What has been counted of one tensor so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows_left: usize,
    /// Per chunk, so that floating-point sums are added in one order whoever came first.
    chunks: Vec<((usize, usize), Counts)>,
}

impl Tally {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            rows_left: target.experts * target.out_features,
            chunks: Vec::new(),
        }
    }

    /// Adds a chunk; the whole tensor's counts when it was the last.
    pub(super) fn add(
        &mut self,
        expert: usize,
        rows: Range<usize>,
        counts: Counts,
    ) -> Option<Counts> {
        self.chunks.push(((expert, rows.start), counts));
        self.rows_left -= rows.len();
        (self.rows_left == 0).then(|| {
            self.chunks.sort_by_key(|&(place, _)| place);
            let mut total = Counts::default();
            for (_, counts) in self.chunks.drain(..) {
                total += counts;
            }
            total
        })
    }
}
