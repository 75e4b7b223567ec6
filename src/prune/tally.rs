//! What is counted while rows are pruned: of one tensor, chunk by chunk, and what the norms predict of its output error.

use std::ops::Range;

use super::chunk::Chunk;
use super::error::Error;
use super::matrix::Matrix;
use crate::compensation::decode;
use crate::counts::Counts;
use crate::plan::Plan;
use crate::targets::Target;

/// What has been counted of one tensor so far.
#[derive(Debug, Default)]
pub(super) struct Tally {
    rows_left: u64,
    /// Per chunk, so that floating-point sums are added in one order whoever came first.
    chunks: Vec<((usize, usize), Counts)>,
}

impl Tally {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            rows_left: target.rows(),
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
        self.rows_left -= rows.len() as u64;
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

/// Adds the output error of some rows, and what it is relative to, from their weights before and after. Nothing where there are
/// no norms. Weights that are not finite count as unchanged zeros.
pub(super) fn weigh(
    plan: &Plan,
    matrix: &Matrix<'_>,
    before: &Chunk,
    after: &Chunk,
    counts: &mut Counts,
) -> Result<(), Error> {
    let name = &plan.tensors()[matrix.tensor].name;
    let Some(norms) = plan.norms_of(name, matrix.target, matrix.expert)? else {
        return Ok(());
    };
    let in_features = matrix.target.in_features.max(1);
    let (before, after) = (
        decode(matrix.dtype, before.bytes()),
        decode(matrix.dtype, after.bytes()),
    );
    let rows = before
        .chunks_exact(in_features)
        .zip(after.chunks_exact(in_features));
    for (before, after) in rows {
        for ((&before, &after), &norm) in before.iter().zip(after).zip(norms.iter()) {
            if before.is_finite() && after.is_finite() {
                let (before, change) = (f64::from(before), f64::from(before) - f64::from(after));
                counts.output_squares += f64::from(norm) * before * before;
                counts.output_squares_changed += f64::from(norm) * change * change;
            }
        }
    }
    Ok(())
}
