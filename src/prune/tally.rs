//! What has been counted of one tensor so far, chunk by chunk.

use std::ops::Range;

use crate::counts::Counts;
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
