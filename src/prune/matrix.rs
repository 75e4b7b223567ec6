//! A matrix of a tensor that is pruned, and how its rows are read and written back.

use std::ops::Range;

use super::chunk::Chunk;
#[cfg(feature = "native")]
use crate::checkpoint::{self, Reader};
use crate::dtype::Dtype;
use crate::plan::PlannedTensor;
use crate::recipe::Rows;
use crate::selection::Selection;
use crate::targets::{Layout, Target};

/// The tensor itself, or one of its experts.
#[derive(Debug)]
pub(super) struct Matrix<'a> {
    /// Its tensor in the plan.
    pub tensor: usize,
    /// Its expert; 0 when there is one matrix only.
    pub expert: usize,
    pub shard: usize,
    pub dtype: Dtype,
    pub target: &'a Target,
    pub selection: Selection,
    /// Where they lie in the shard's file.
    pub place: Place,
}

impl<'a> Matrix<'a> {
    /// The expert's matrix of the tensor at `index` in the plan, which is pruned by `selection`.
    pub(super) fn new(
        index: usize,
        tensor: &PlannedTensor,
        (dtype, target, selection): (Dtype, &'a Target, Selection),
        expert: usize,
    ) -> Self {
        Self {
            tensor: index,
            expert,
            shard: tensor.shard,
            dtype,
            target,
            selection,
            place: Place::new(tensor, dtype, target, expert),
        }
    }

    /// The rows of it that a chunk holds.
    pub(super) fn rows<'c>(&self, chunk: &'c Chunk) -> Rows<'c> {
        Rows::new(self.dtype, self.target.in_features, chunk.bytes())
    }
}

#[cfg(feature = "native")]
impl Matrix<'_> {
    /// Reads rows into `chunk`, row-major whichever way they lie in the file.
    pub(super) fn read(
        &self,
        input: &Reader<'_>,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> checkpoint::Result<()> {
        let bytes = chunk.resize(rows.len() * self.place.row_bytes());
        if !self.place.is_transposed() {
            return input.read_at(self.shard, self.place.row_offset(rows.start), bytes);
        }
        let size = self.dtype.size();
        for feature in 0..self.target.in_features {
            let band = chunk.band_mut(rows.len() * size);
            input.read_at(
                self.shard,
                self.place.band_offset(feature, rows.start),
                band,
            )?;
            chunk.scatter_band(feature, self.target.in_features, size);
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
        if !self.place.is_transposed() {
            return write_at(chunk.bytes(), self.place.row_offset(rows.start));
        }
        let size = self.dtype.size();
        for feature in 0..self.target.in_features {
            let band = chunk.gather_band(feature, self.target.in_features, size);
            write_at(band, self.place.band_offset(feature, rows.start))?;
        }
        Ok(())
    }
}

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
