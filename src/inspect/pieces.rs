//! The tensors of a checkpoint cut into pieces that any thread can read and count.

use std::ops::Range;

use super::groups::WIDEST;
use super::scan::Groups;
use crate::dtype::StoredDtype;
use crate::targets::{Decision, Layout};

/// How the groups of a tensor run: along the input of one that is pruned, along the rows of any other matrix.
pub(super) fn groups_of(decision: &Decision, shape: &[usize]) -> Groups {
    let width = shape.last().copied().unwrap_or(0);
    match (decision, shape.len()) {
        _ if shape.contains(&0) => Groups::None,
        (Decision::Prune(target), _) if matches!(target.layout, Layout::InOut) => {
            Groups::Columns(target.out_features)
        }
        (Decision::Prune(target), _) => Groups::Rows(target.in_features),
        (_, 2) => Groups::Rows(width),
        _ => Groups::None,
    }
}

/// Rows of one matrix of the tensor, as they are stored.
pub(super) fn rows_of(decision: &Decision, shape: &[usize]) -> usize {
    match decision {
        Decision::Prune(target) => match target.layout {
            Layout::InOut => target.in_features,
            _ => target.experts * target.out_features,
        },
        _ => shape.first().copied().unwrap_or(1),
    }
}

/// Bytes that a thread reads at a time, about.
const PIECE: u64 = 4 << 20;

/// Bytes of one tensor that a thread reads and counts.
pub(super) struct Piece {
    /// Its number among those that were chosen.
    pub tensor: usize,
    pub shard: usize,
    pub dtype: StoredDtype,
    pub bytes: Range<u64>,
}

/// Cuts a tensor's bytes: between rows, and where groups run down the columns, between groups and between matrices.
pub(super) fn cut(
    pieces: &mut Vec<Piece>,
    (tensor, shard, dtype): (usize, usize, StoredDtype),
    bytes: Range<u64>,
    groups: Groups,
    rows_of_matrix: usize,
) {
    let size = (dtype.bits() / 8).max(1);
    // Bytes that stay together, and bytes after which they begin anew.
    let (unit, matrix) = match groups {
        Groups::None => (size, u64::MAX),
        Groups::Rows(width) => (size * width as u64, u64::MAX),
        Groups::Columns(width) => {
            let row = size * width as u64;
            (row * WIDEST as u64, row * rows_of_matrix as u64)
        }
    };
    let step = (PIECE / unit).max(1) * unit;
    let mut start = bytes.start;
    while start < bytes.end {
        let end_of_matrix = match matrix {
            u64::MAX => bytes.end,
            matrix => start + matrix - (start - bytes.start) % matrix,
        };
        let end = bytes.end.min(start.saturating_add(step)).min(end_of_matrix);
        pieces.push(Piece {
            tensor,
            shard,
            dtype,
            bytes: start..end,
        });
        start = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(groups: Groups, rows: usize, len: u64) -> Vec<u64> {
        let mut pieces = Vec::new();
        cut(
            &mut pieces,
            (0, 0, StoredDtype::Bf16),
            100..100 + len,
            groups,
            rows,
        );
        let mut at = 100;
        for piece in &pieces {
            assert_eq!(piece.bytes.start, at);
            at = piece.bytes.end;
        }
        assert_eq!(at, 100 + len);
        pieces.iter().map(|p| p.bytes.end - p.bytes.start).collect()
    }

    #[test]
    fn pieces_end_between_rows_groups_and_matrices() {
        let row = 2 * 3_000;
        let along = lengths(Groups::Rows(3_000), 2_000, 2_000 * row);
        assert!(along.len() > 1 && along.iter().all(|len| len % row == 0));
        // Two experts of 100 input features each: 96 + 4, twice.
        let down = lengths(Groups::Columns(20_000), 100, 2 * 100 * 40_000);
        let rows: Vec<u64> = down.iter().map(|len| len / 40_000).collect();
        assert_eq!(rows, [96, 4, 96, 4]);
        assert!(lengths(Groups::None, 1, 0).is_empty());
    }
}
