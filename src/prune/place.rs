//! Where the rows of one matrix lie in a file, for whoever reads it: by position or as a stream.

use crate::dtype::Dtype;
use crate::plan::PlannedTensor;
use crate::targets::{Layout, Target};

/// The place of a tensor, or of one of its experts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    first_byte: u64,
    layout: Layout,
    out_features: usize,
    in_features: usize,
    dtype: Dtype,
}

impl Place {
    pub(super) fn new(
        tensor: &PlannedTensor,
        dtype: Dtype,
        target: &Target,
        expert: usize,
    ) -> Self {
        let bytes = tensor.len / target.experts as u64;
        Self {
            first_byte: tensor.offset + expert as u64 * bytes,
            layout: target.layout,
            out_features: target.out_features,
            in_features: target.in_features,
            dtype,
        }
    }

    /// Its first byte in the file.
    pub(super) const fn first_byte(&self) -> u64 {
        self.first_byte
    }

    /// Bytes of one row (an output neuron's weights), however they lie.
    pub(super) fn row_bytes(&self) -> usize {
        self.in_features * self.dtype.size()
    }

    /// All of its bytes, however they lie.
    pub(super) fn bytes(&self) -> u64 {
        self.out_features as u64 * self.row_bytes() as u64
    }

    /// Whether it is stored `[in, out]`.
    pub(super) const fn is_transposed(&self) -> bool {
        matches!(self.layout, Layout::InOut)
    }

    /// Where a row begins in a matrix stored `[out, in]`.
    pub(super) fn row_offset(&self, row: usize) -> u64 {
        self.first_byte + row as u64 * self.row_bytes() as u64
    }

    /// Where, in a matrix stored `[in, out]`, the weights of one input feature begin for rows from `row`.
    pub(super) fn band_offset(&self, feature: usize, row: usize) -> u64 {
        let before = feature as u64 * self.out_features as u64 + row as u64;
        self.first_byte + before * self.dtype.size() as u64
    }
}
