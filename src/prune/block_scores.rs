//! The scores of every decoder block's weights, counted: what some rules of allocation go by.
//!
//! All weights of the blocks are read once, by all threads, a chunk a thread; nothing is written. The CPU counts, whatever
//! device prunes, and counts add up alike in any order: so the shares, and the output, are the same everywhere. Memory is a
//! chunk and a table of counts for each thread, and a table for each block that is under way, a few megabytes in all.

use parking_lot::Mutex;

use super::chunk::Chunk;
use super::cpu::chunk_rows;
use super::error::Error;
use super::matrix::Matrix;
use super::pieces::{self, Piece};
use crate::checkpoint::Reader;
use crate::dtype::{Weight, with_weights};
use crate::plan::{self, BlockScores, Draft, NormsSource, ScoreCounts};
use crate::stop::Stop;
use crate::workers::share_out;

/// Counts the scores of every block of [`Draft::blocks`], in their order: `|w| sqrt(n_j)`, of the draft's norms. Matrices without
/// norms are left out.
///
/// `progress` is told of bytes that were read, from several threads.
///
/// # Errors
/// [`Error::Checkpoint`] when reading fails, [`Error::Plan`] when the norms are still to be measured, [`Error::Stopped`].
pub fn block_scores(
    draft: &Draft,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
    stop: &Stop,
) -> Result<Vec<BlockScores>, Error> {
    if let NormsSource::ToMeasure(_) = draft.norms_source() {
        return Err(plan::Error::NotMeasured.into());
    }
    let (matrices, pieces) = pieces::cut(draft, None, |matrix| chunk_rows(matrix, false));
    let mut block_of = vec![None; draft.tensors().len()];
    for (index, block) in draft.blocks().iter().enumerate() {
        block
            .tensors
            .iter()
            .for_each(|&tensor| block_of[tensor] = Some(index));
    }
    let mut left = vec![0; draft.blocks().len()];
    // A block, a matrix of it, rows of that.
    let mut work = Vec::new();
    for piece in pieces {
        if let Piece::Prune { matrix, rows } = piece
            && let Some(block) = block_of[matrices[matrix].tensor]
        {
            left[block] += 1;
            work.push((block, matrix, rows));
        }
    }
    let counting = Counting {
        draft,
        reader: Reader::open(draft.checkpoint())?,
        matrices,
        blocks: left
            .into_iter()
            .map(|left| {
                Mutex::new(Block {
                    left,
                    ..Block::default()
                })
            })
            .collect(),
        progress,
        stop,
    };
    share_out(
        threads,
        &work,
        || Ok(Scratch::new()),
        |scratch, (block, matrix, rows)| {
            if *block != scratch.block || scratch.weights >= MOST_WEIGHTS {
                counting.hand_over(scratch);
                scratch.block = *block;
            }
            counting.count(*matrix, rows.clone(), scratch)
        },
        |mut scratch| counting.hand_over(&mut scratch),
    )?;
    let of_block = |block: Mutex<Block>| block.into_inner().scores;
    Ok(counting.blocks.into_iter().map(of_block).collect())
}

/// A block, and what is known of it so far.
#[derive(Default)]
struct Block {
    /// Pieces that are not counted yet.
    left: usize,
    /// While some are and some are not.
    counts: Option<ScoreCounts>,
    scores: BlockScores,
}

/// What the threads share.
struct Counting<'a> {
    draft: &'a Draft,
    reader: Reader<'a>,
    matrices: Vec<Matrix<'a>>,
    blocks: Vec<Mutex<Block>>,
    progress: &'a (dyn Fn(u64) + Sync),
    stop: &'a Stop,
}

/// What a thread keeps from piece to piece.
struct Scratch {
    chunk: Chunk,
    /// By size, of the block that is under way.
    counted: Vec<u32>,
    /// That block, and pieces of it that were counted.
    block: usize,
    pieces: usize,
    weights: usize,
    /// The matrix whose factors these are; `None` for those of a matrix without norms.
    matrix: usize,
    factors: Option<Vec<f32>>,
}

/// Weights that a thread counts before it hands over: far from what 32 bits hold.
const MOST_WEIGHTS: usize = 1 << 30;

impl Scratch {
    fn new() -> Self {
        Self {
            chunk: Chunk::default(),
            counted: vec![0; ScoreCounts::SIZES + 1],
            block: 0,
            pieces: 0,
            weights: 0,
            matrix: usize::MAX,
            factors: None,
        }
    }
}

impl Counting<'_> {
    fn count(
        &self,
        index: usize,
        rows: std::ops::Range<usize>,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        if self.stop.is_requested() {
            return Err(Error::Stopped {
                pruned: 0,
                tensors: self.draft.pruned().count(),
            });
        }
        let matrix = &self.matrices[index];
        if scratch.matrix != index {
            scratch.factors = self.factors(matrix)?;
            scratch.matrix = index;
        }
        scratch.pieces += 1;
        let in_features = matrix.target.in_features;
        (self.progress)(rows.len() as u64 * matrix.place.row_bytes() as u64);
        let Some(factors) = scratch.factors.as_ref().filter(|_| in_features > 0) else {
            return Ok(());
        };
        matrix.read(&self.reader, rows.clone(), &mut scratch.chunk)?;
        scratch.weights += rows.len() * in_features;
        let counted = &mut scratch.counted;
        with_weights!(matrix.dtype, scratch.chunk.bytes(), cast_slice, |weights| {
            for row in weights.chunks_exact(in_features) {
                for (weight, factor) in row.iter().zip(factors) {
                    let score = f32::from_bits(weight.magnitude_bits()) * factor;
                    counted[ScoreCounts::size_of(score)] += 1;
                }
            }
        });
        Ok(())
    }

    /// `sqrt(n_j)` of one matrix, of the mean over the tokens that it saw; `None` where it has no norms.
    fn factors(&self, matrix: &Matrix<'_>) -> Result<Option<Vec<f32>>, Error> {
        let name = &self.draft.tensors()[matrix.tensor].name;
        let tokens = self.draft.tokens_of(name, matrix.target, matrix.expert);
        let norms = self
            .draft
            .given_norms_of(name, matrix.target, matrix.expert)?;
        Ok(norms.map(|norms| {
            let root = |&norm: &f32| (f64::from(norm) / tokens).sqrt() as f32;
            norms.iter().map(root).collect()
        }))
    }

    /// Adds what was counted to the block; with its last piece, it is summed up.
    fn hand_over(&self, scratch: &mut Scratch) {
        if scratch.pieces == 0 {
            return;
        }
        let mut block = self.blocks[scratch.block].lock();
        let counts = block.counts.get_or_insert_with(ScoreCounts::new);
        counts.take(&mut scratch.counted);
        block.left -= scratch.pieces;
        if block.left == 0
            && let Some(counts) = block.counts.take()
        {
            block.scores = counts.summary();
        }
        (scratch.pieces, scratch.weights) = (0, 0);
    }
}
