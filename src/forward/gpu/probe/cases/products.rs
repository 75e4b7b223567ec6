//! Matrix products: every dtype of weights, either way of lying, and what happens to a product on its way to where it goes.

use half::{bf16, f16};

use super::super::case::{Case, doubles, values};
use crate::device::product::ProductParams;
use crate::dtype::Dtype;

/// Rows and columns of a tile.
const TILE: usize = 64;

/// A product, and where its operands lie.
struct Product {
    what: &'static str,
    rows: usize,
    terms: usize,
    columns: usize,
    dtype: Dtype,
    /// Both operands lie term by term.
    by_terms: bool,
    /// Where the product goes in rows of `stride` numbers, and whether it is added to what is there.
    stride: usize,
    first: usize,
    adds: bool,
    /// The first of the summands, where there are any.
    bias: Option<usize>,
    scale: f32,
    /// Each tile by itself.
    in_parts: bool,
}

pub(super) fn cases() -> Vec<Case> {
    [
        Product {
            what: "matrix product in f32",
            rows: 67,
            terms: 275,
            columns: 70,
            dtype: Dtype::F32,
            by_terms: false,
            stride: 70,
            first: 0,
            adds: false,
            bias: Some(0),
            scale: 1.0,
            in_parts: false,
        },
        Product {
            what: "scaled product with weights in bf16, added up",
            rows: 5,
            terms: 33,
            columns: 30,
            dtype: Dtype::Bf16,
            by_terms: false,
            stride: 40,
            first: 3,
            adds: true,
            bias: Some(2),
            scale: 0.5,
            in_parts: false,
        },
        Product {
            what: "matrix product with weights in f16, tile by tile",
            rows: 70,
            terms: 21,
            columns: 66,
            dtype: Dtype::F16,
            by_terms: false,
            stride: 66,
            first: 0,
            adds: false,
            bias: None,
            scale: 1.0,
            in_parts: true,
        },
        Product {
            what: "matrix product by tokens",
            rows: 75,
            terms: 67,
            columns: 37,
            dtype: Dtype::F32,
            by_terms: true,
            stride: 37,
            first: 0,
            adds: false,
            bias: None,
            scale: 1.0,
            in_parts: false,
        },
    ]
    .map(|product| product.case())
    .into()
}

impl Product {
    /// Weights as they are stored, and as what they stand for; some too small for normal numbers of their dtype.
    fn weights(&self) -> (Vec<u32>, Vec<f64>) {
        let mut weights = values(2, self.columns * self.terms);
        // An even number of them, as they come in words.
        weights.push(0.0);
        weights.truncate(self.columns * self.terms / 2 * 2 + 2);
        weights[1..].iter_mut().step_by(7).for_each(|x| *x *= 1e-5);
        let halves = |halves: Vec<u16>| {
            let words = halves.chunks_exact(2);
            let words = words.map(|pair| u32::from(pair[0]) | u32::from(pair[1]) << 16);
            words.collect()
        };
        match self.dtype {
            Dtype::F32 => {
                let words = weights.iter().map(|x| x.to_bits());
                (words.collect(), doubles(&weights))
            }
            Dtype::Bf16 => {
                let stored: Vec<bf16> = weights.iter().map(|&x| bf16::from_f32(x)).collect();
                let words = halves(stored.iter().map(|x| x.to_bits()).collect());
                (words, stored.iter().map(|x| x.to_f64()).collect())
            }
            Dtype::F16 => {
                let stored: Vec<f16> = weights.iter().map(|&x| f16::from_f32(x)).collect();
                let words = halves(stored.iter().map(|x| x.to_bits()).collect());
                (words, stored.iter().map(|x| x.to_f64()).collect())
            }
        }
    }

    fn case(&self) -> Case {
        let Self {
            rows,
            terms,
            columns,
            ..
        } = *self;
        // Some numbers of something else before those that count.
        let x_first = if self.by_terms { 5 } else { 0 };
        let x = values(1, x_first + rows * terms);
        let (stored, w) = self.weights();
        let bias = values(3, columns + 2);
        // From one row to the next, and from one term, of either operand.
        let lies = |rows| {
            if self.by_terms { [1, rows] } else { [terms, 1] }
        };
        let ([x_row, x_term], [w_row, w_term]) = (lies(rows), lies(columns));
        let before = values(24, rows * self.stride);
        let mut expected = doubles(&before);
        for row in 0..rows {
            for column in 0..columns {
                let products = (0..terms).map(|term| {
                    f64::from(x[x_first + row * x_row + term * x_term])
                        * w[column * w_row + term * w_term]
                });
                let bias = self
                    .bias
                    .map_or(0.0, |first| f64::from(bias[first + column]));
                let product = (products.sum::<f64>() + bias) * f64::from(self.scale);
                let to = &mut expected[row * self.stride + self.first + column];
                *to = product + if self.adds { *to } else { 0.0 };
            }
        }
        let params = |[first_group_x, first_group_y]: [usize; 2]| ProductParams {
            rows: rows as u32,
            terms: terms as u32,
            columns: columns as u32,
            dtype: self.dtype as u32,
            x_first: x_first as u32,
            x_row: x_row as u32,
            x_term: x_term as u32,
            w_row: w_row as u32,
            w_term: w_term as u32,
            out_stride: self.stride as u32,
            out_first: self.first as u32,
            biased: u32::from(self.bias.is_some()),
            bias_first: self.bias.unwrap_or(0) as u32,
            add: u32::from(self.adds),
            first_group_x: first_group_x as u32,
            first_group_y: first_group_y as u32,
            scale: self.scale,
        };
        let mut case = Case::new("product", self.what)
            .with(1, &stored)
            .with(2, &x)
            .with(3, &bias)
            .changes(4, &before, expected);
        let tiles = (columns.div_ceil(TILE), rows.div_ceil(TILE));
        if !self.in_parts {
            return case.run(&params([0, 0]), tiles);
        }
        for y in 0..tiles.1 {
            for x in 0..tiles.0 {
                case = case.run(&params([x, y]), (1, 1));
            }
        }
        case
    }
}
