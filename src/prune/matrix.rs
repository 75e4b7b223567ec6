//! A matrix of a tensor that is pruned, and where its rows lie in the file.

use std::ops::Range;

use super::chunk::Chunk;
use super::shared_recipe::SharedRecipe;
use crate::checkpoint::{self, Reader};
use crate::dtype::Dtype;
use crate::plan::PlannedTensor;
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
    /// How its rows are pruned.
    pub recipe: SharedRecipe,
    /// Its first byte in the shard's file.
    offset: u64,
}

impl<'a> Matrix<'a> {
    /// The expert's matrix of the tensor at `index` in the plan, which is pruned by `selection`.
    pub(super) fn new(
        index: usize,
        tensor: &PlannedTensor,
        (dtype, target, selection): (Dtype, &'a Target, Selection),
        expert: usize,
        wants_sums: bool,
    ) -> Self {
        let bytes = tensor.len / target.experts as u64;
        Self {
            tensor: index,
            expert,
            shard: tensor.shard,
            dtype,
            target,
            selection,
            recipe: SharedRecipe::new(target, wants_sums),
            offset: tensor.offset + expert as u64 * bytes,
        }
    }

    /// Bytes of one row (an output neuron's weights), however they lie in the file.
    pub(super) fn row_bytes(&self) -> usize {
        self.target.in_features * self.dtype.size()
    }

    /// Whether it is stored `[in, out]`.
    pub(super) const fn is_transposed(&self) -> bool {
        matches!(self.target.layout, Layout::InOut)
    }

    /// Reads rows into `chunk`, row-major whichever way they lie in the file.
    pub(super) fn read(
        &self,
        input: &Reader<'_>,
        rows: Range<usize>,
        chunk: &mut Chunk,
    ) -> checkpoint::Result<()> {
        let bytes = chunk.resize(rows.len() * self.row_bytes());
        if !self.is_transposed() {
            return input.read_at(self.shard, self.row_offset(rows.start), bytes);
        }
        let size = self.dtype.size();
        for feature in 0..self.target.in_features {
            let band = chunk.band_mut(rows.len() * size);
            input.read_at(self.shard, self.band_offset(feature, rows.start), band)?;
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
        if !self.is_transposed() {
            return write_at(chunk.bytes(), self.row_offset(rows.start));
        }
        let size = self.dtype.size();
        for feature in 0..self.target.in_features {
            let band = chunk.gather_band(feature, self.target.in_features, size);
            write_at(band, self.band_offset(feature, rows.start))?;
        }
        Ok(())
    }

    /// Its first byte in the shard's file.
    pub(super) const fn first_byte(&self) -> u64 {
        self.offset
    }

    /// Its bytes, however they lie.
    pub(super) fn bytes(&self) -> usize {
        self.target.out_features * self.row_bytes()
    }

    fn row_offset(&self, row: usize) -> u64 {
        self.offset + (row * self.row_bytes()) as u64
    }

    /// Where, in a matrix stored `[in, out]`, the weights of one input feature begin for rows from `row`.
    fn band_offset(&self, feature: usize, row: usize) -> u64 {
        self.offset + ((feature * self.target.out_features + row) * self.dtype.size()) as u64
    }
}
