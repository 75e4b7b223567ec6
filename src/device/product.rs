//! The tiled matrix product, which the forward pass, sketches and compensation share.

use super::recorder::{Groups, Recorder, Recording};
use crate::dtype::Dtype;
use crate::shader::{Kernel, kernel, params};

params!(
    /// Which product, of matrices that lie where, and where it goes.
    ProductParams {
        rows: u32,
        terms: u32,
        columns: u32,
        dtype: u32,
        x_first: u32,
        x_row: u32,
        x_term: u32,
        w_row: u32,
        w_term: u32,
        out_stride: u32,
        out_first: u32,
        biased: u32,
        bias_first: u32,
        add: u32,
        first_group_x: u32,
        first_group_y: u32,
        scale: f32,
    }
);

/// The kernel.
pub static PRODUCT: Kernel = kernel!(
    "kernels" / "product",
    ProductParams,
    "matrix product with stored weights, in f32",
    ["product": 256, [0, 1, 2, 3, 4]],
    with "decode"
);

/// Rows and columns of a tile.
const TILE: usize = 64;

/// A matrix, and which way it lies.
#[derive(Clone, Copy)]
pub(crate) struct Operand<'b> {
    buffer: &'b wgpu::Buffer,
    first: usize,
    row: usize,
    term: usize,
}

impl<'b> Operand<'b> {
    /// A row's terms lie on end.
    pub(crate) fn by_rows(buffer: &'b wgpu::Buffer, terms: usize) -> Self {
        Self {
            buffer,
            first: 0,
            row: terms,
            term: 1,
        }
    }

    /// A term of all rows lies on end.
    pub(crate) fn by_terms(buffer: &'b wgpu::Buffer, rows: usize) -> Self {
        Self {
            buffer,
            first: 0,
            row: 1,
            term: rows,
        }
    }

    /// The same from this element of the buffer on.
    pub(crate) fn from(self, first: usize) -> Self {
        Self { first, ..self }
    }
}

/// The matrix that rows are multiplied with: its rows are the product's columns.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'b> {
    pub(crate) operand: Operand<'b>,
    pub(crate) dtype: Dtype,
    pub(crate) columns: usize,
    /// What is added, from its element of this number on.
    pub(crate) bias: Option<(&'b wgpu::Buffer, usize)>,
    /// What the product, with the bias, is multiplied by.
    pub(crate) scale: f32,
}

impl<'b> Weights<'b> {
    /// Numbers in f32 alone.
    pub(crate) fn of_floats(operand: Operand<'b>, columns: usize) -> Self {
        Self {
            operand,
            dtype: Dtype::F32,
            columns,
            bias: None,
            scale: 1.0,
        }
    }
}

/// Where a product goes: the elements of each row from `first` on.
#[derive(Clone, Copy)]
pub(crate) struct Destination<'b> {
    pub(crate) buffer: &'b wgpu::Buffer,
    /// Elements a row.
    pub(crate) stride: usize,
    pub(crate) first: usize,
    /// Add to what is there.
    pub(crate) add: bool,
}

/// `scale (x W^T + bias)`, of `[rows, terms]` and `[columns, terms]`.
pub(crate) fn product(
    recorder: &Recorder<'_>,
    recording: &mut Recording,
    (x, [rows, terms]): (Operand<'_>, [usize; 2]),
    weights: &Weights<'_>,
    to: Destination<'_>,
) {
    let params = |part: Groups| ProductParams {
        rows: rows as u32,
        terms: terms as u32,
        columns: weights.columns as u32,
        dtype: weights.dtype as u32,
        x_first: x.first as u32,
        x_row: x.row as u32,
        x_term: x.term as u32,
        w_row: weights.operand.row as u32,
        w_term: weights.operand.term as u32,
        out_stride: to.stride as u32,
        out_first: to.first as u32,
        biased: u32::from(weights.bias.is_some()),
        bias_first: weights.bias.map_or(0, |(_, first)| first) as u32,
        add: u32::from(to.add),
        first_group_x: part.first[0] as u32,
        first_group_y: part.first[1] as u32,
        scale: weights.scale,
    };
    let bias = weights.bias.map_or(&recorder.nothing, |(bias, _)| bias);
    let buffers = [
        (1, weights.operand.buffer),
        (2, x.buffer),
        (3, bias),
        (4, to.buffer),
    ];
    let tiles = [weights.columns.div_ceil(TILE), rows.div_ceil(TILE)];
    let work = (TILE * TILE) as u64 * terms as u64;
    recorder.dispatch_in_parts(recording, "product", params, &buffers, tiles, work);
}
