//! The work of a plan, cut into pieces that any thread or device can take: spans to copy and chunks of rows to prune.

use std::ops::Range;

use super::matrix::Matrix;
use crate::plan::{Action, Draft, WeightsUse};

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

/// Every matrix of the plan, and every piece of its work in the order of the bytes.
///
/// `chunk_rows` says how many rows of a matrix go together. With a number in `only`, the work of that shard alone.
pub(super) fn cut<'a>(
    draft: &'a Draft,
    only: Option<usize>,
    chunk_rows: impl Fn(&Matrix<'_>) -> usize,
) -> (Vec<Matrix<'a>>, Vec<Piece>) {
    let wants_sums = draft.score().weights != WeightsUse::Unused;
    let (mut matrices, mut pieces) = (Vec::new(), Vec::new());
    let mut copying: Option<(usize, Range<u64>)> = None;
    for (index, tensor) in draft.tensors().iter().enumerate() {
        if only.is_some_and(|only| only != tensor.shard) {
            continue;
        }
        let end = tensor.offset + tensor.len;
        let Action::Prune {
            target,
            dtype,
            selection,
        } = &tensor.action
        else {
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
            let matrix = Matrix::new(index, tensor, (*dtype, target, *selection), expert);
            let step = chunk_rows(&matrix).max(1);
            let chunks = (0..target.out_features)
                .step_by(step)
                .map(|row| row..(row + step).min(target.out_features));
            let matrix = {
                matrices.push(matrix);
                matrices.len() - 1
            };
            if wants_sums {
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
