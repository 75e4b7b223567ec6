//! What a layer's output error is measured with: `H = D + U U^T`, a diagonal plus a matrix of rank r, in place of `X^T X`.
//!
//! Made of the column norms `n` and the sketch `Y = X^T X Omega` (Nystrom's approximation, in the form of Tropp, Yurtsever,
//! Udell and Cevher, arXiv 1706.05736):
//!
//! ```text
//!   Y += nu Omega              nu = 1e-6 |Y|, against rounding
//!   L L^T = Omega^T Y          r x r
//!   U = Y L^-T
//!   D_j = max(n_j - sum_k U_jk^2, 1e-3 mean n) + ridge mean n
//! ```
//!
//! So the diagonal of `H` is that of the column norms, raised by the ridge. At rank one, with the whole input in one direction,
//! this is the Hessian whose inverse is SwiftPrune's score.
//!
//! Everything here is f64 on the host, in one order of operations: norms and sketch from a file give the same factors, and so
//! the same masks, on every machine.

use std::sync::OnceLock;

use super::factor::{Part, Triangle, dot, products as sum_of_products};
use crate::products::{self, Error, Packed};
use crate::sketch::{self, Sketch};

/// The least that is left of a column's norm beside `U`, of the mean norm.
const FLOOR: f64 = 1e-3;

/// The shift against rounding, of the sketch's size; the next where that is not enough.
const SHIFTS: [f64; 3] = [1e-6, 1e-4, 1e-2];

/// `H` of one layer's input, in units of its mean column norm.
#[derive(Debug)]
pub(crate) struct Hessian {
    /// `D`, `[in_features]`.
    diagonal: Vec<f64>,
    /// `U`, `[in_features, rank]` row-major.
    directions: Vec<f64>,
    rank: usize,
}

impl Hessian {
    /// `H` of an input with these column norms and this sketch, of which the first `rank` columns are used, and no more than the
    /// input has features. `None` where there is none to be had: an input of zeros, or numbers that do not fit each other.
    pub(crate) fn new(norms: &[f32], sketch: &Sketch, rank: usize, ridge: f64) -> Option<Self> {
        let (in_features, most) = (norms.len(), rank.min(sketch.rank));
        let rank = most.min(in_features);
        if sketch.in_features != in_features || rank == 0 {
            return None;
        }
        let total: f64 = norms.iter().map(|&n| f64::from(n)).sum();
        let mean = total / in_features as f64;
        if !(mean > 0.0 && mean.is_finite()) {
            return None;
        }
        let of_rank = |rank: usize| -> Option<(usize, Vec<f64>)> {
            let mut sketched: Vec<f64> = Vec::with_capacity(in_features * rank);
            for row in sketch.values.chunks_exact(sketch.rank) {
                sketched.extend(row[..rank].iter().map(|&y| f64::from(y) / mean));
            }
            let mut shifts = SHIFTS.iter();
            Some((
                rank,
                shifts.find_map(|&shift| nystrom(&sketched, rank, shift))?,
            ))
        };
        // `U U^T` is never more than `X^T X`. It can be where there are few features: then as many columns of signs may depend on
        // each other, and fewer are taken.
        let is_sound = |(rank, directions): &(usize, Vec<f64>)| {
            let mut pairs = directions.chunks_exact(*rank).zip(norms);
            pairs.all(|(u, &n)| dot(u, u) <= 1.01 * f64::from(n) / mean + 0.01)
        };
        let (rank, directions) = if rank < in_features {
            of_rank(rank)?
        } else {
            (1..=rank).rev().filter_map(of_rank).find(is_sound)?
        };
        let diagonal: Vec<f64> = (directions.chunks_exact(rank).zip(norms))
            .map(|(u, &n)| (f64::from(n) / mean - dot(u, u)).max(FLOOR) + ridge)
            .collect();
        let is_finite = diagonal.iter().chain(&directions).all(|x| x.is_finite());
        is_finite.then_some(Self {
            diagonal,
            directions,
            rank,
        })
    }

    /// The diagonal of `H`, `[in_features]`.
    pub(super) fn whole_diagonal(&self) -> Vec<f64> {
        let rows = self.directions.chunks_exact(self.rank);
        let pairs = rows.zip(&self.diagonal);
        pairs.map(|(u, d)| d + dot(u, u)).collect()
    }

    /// `H` itself, `[in_features, in_features]`, for tests.
    #[cfg(test)]
    pub(crate) fn whole(&self) -> Vec<f64> {
        let rows = || self.directions.chunks_exact(self.rank);
        let mut whole: Vec<f64> = rows().flat_map(|u| rows().map(|v| dot(u, v))).collect();
        let diagonal = whole.iter_mut().step_by(self.diagonal.len() + 1);
        diagonal.zip(&self.diagonal).for_each(|(h, d)| *h += d);
        whole
    }

    /// Column factors of the score `w^2 / [H^-1]_jj`, `[in_features]`, the largest 1. `None` where the inverse cannot be had.
    pub(crate) fn column_factors(&self) -> Option<Vec<f32>> {
        let inverse = self.inverse(&vec![1.0; self.diagonal.len()], 0.0)?;
        let rows = inverse.vectors.chunks_exact(self.rank);
        let of_column = |(v, d): (&[f64], &f64)| 1.0 / (d - dot(v, v)).sqrt();
        let factors: Vec<f64> = rows.zip(&inverse.diagonal).map(of_column).collect();
        let largest = factors.iter().copied().fold(0.0, f64::max);
        let is_finite = factors.iter().all(|f| f.is_finite()) && largest > 0.0;
        is_finite.then(|| factors.iter().map(|f| (f / largest) as f32).collect())
    }

    /// `S H S + shift I` with `S` the diagonal matrix of `scale`, as a diagonal plus `V V^T`.
    fn scaled(&self, scale: &[f64], shift: f64) -> DiagonalAndVectors {
        let scaled = |(d, s): (&f64, &f64)| d * s * s + shift;
        let rows = self.directions.chunks_exact(self.rank).zip(scale);
        DiagonalAndVectors {
            diagonal: self.diagonal.iter().zip(scale).map(scaled).collect(),
            vectors: rows
                .flat_map(|(u, s)| u.iter().map(move |u| u * s))
                .collect(),
        }
    }

    /// `(S H S + shift I)^-1` as a diagonal minus `V V^T`, by Woodbury's formula: one factor of r x r.
    fn inverse(&self, scale: &[f64], shift: f64) -> Option<DiagonalAndVectors> {
        let rank = self.rank;
        let scaled = self.scaled(scale, shift);
        // I + U^T D^-1 U
        let DiagonalAndVectors {
            diagonal,
            mut vectors,
        } = scaled;
        let rows = vectors.chunks_exact(rank).zip(&diagonal);
        let by_d: Vec<f64> = rows
            .flat_map(|(u, d)| u.iter().map(move |u| u / d))
            .collect();
        let mut inner = sum_of_products(&vectors, &by_d, rank, Part::Lower);
        drop(by_d);
        (0..rank).for_each(|k| inner[k * rank + k] += 1.0);
        let factor = Triangle::of(inner, rank)?;
        factor.solve(&mut vectors);
        for (u, d) in vectors.chunks_exact_mut(rank).zip(&diagonal) {
            u.iter_mut().for_each(|u| *u /= d);
        }
        Some(DiagonalAndVectors {
            diagonal: diagonal.iter().map(|d| 1.0 / d).collect(),
            vectors,
        })
    }

    /// `S H S` to multiply with.
    pub(super) fn product(&self, scale: &[f64]) -> Product {
        Product::new(&self.scaled(scale, 0.0), self.rank, 1.0)
    }

    /// `(S H S + shift I)^-1` to multiply with; `None` where it cannot be had.
    pub(super) fn inverse_product(&self, scale: &[f64], shift: f64) -> Option<Product> {
        let inverse = self.inverse(scale, shift)?;
        Some(Product::new(&inverse, self.rank, -1.0))
    }
}

/// `U` of `Y`, `[in_features, rank]`, with a shift of so many times the sketch's size.
fn nystrom(sketched: &[f64], rank: usize, shift: f64) -> Option<Vec<f64>> {
    let size = sketched.iter().map(|y| y * y).sum::<f64>().sqrt();
    let shift = shift * size;
    let mut shifted = sketched.to_vec();
    let mut signs = vec![0.0_f32; rank];
    let mut omega = Vec::with_capacity(shifted.len());
    for (feature, y) in shifted.chunks_exact_mut(rank).enumerate() {
        sketch::signs(feature, &mut signs);
        for (y, &sign) in y.iter_mut().zip(&signs) {
            omega.push(f64::from(sign));
            *y += shift * f64::from(sign);
        }
    }
    let mut small = sum_of_products(&omega, &shifted, rank, Part::All);
    drop(omega);
    // Omega^T Y is symmetric but for rounding.
    for row in 0..rank {
        for column in 0..row {
            let mean = 0.5 * (small[row * rank + column] + small[column * rank + row]);
            small[row * rank + column] = mean;
        }
    }
    Triangle::of(small, rank)?.solve(&mut shifted);
    Some(shifted)
}

/// A diagonal, and vectors beside it: `[in_features]`, `[in_features, rank]`.
struct DiagonalAndVectors {
    diagonal: Vec<f64>,
    vectors: Vec<f64>,
}

/// A symmetric matrix `D + s V V^T` that rows are multiplied with: two thin products and an elementwise step, in f32.
#[derive(Debug)]
pub(crate) struct Product {
    /// `D`, `[in_features]`.
    pub(crate) diagonal: Vec<f32>,
    /// `s`.
    pub(crate) sign: f32,
    /// `V`, `[in_features, rank]` row-major.
    pub(crate) vectors: Vec<f32>,
    pub(crate) rank: usize,
    /// `V` and its transpose as the CPU multiplies with them.
    packed: OnceLock<[Packed; 2]>,
}

/// Rows in the middle of a product and at its end, in memory that is used again.
#[derive(Debug, Default)]
pub(super) struct Thin {
    /// `V^T` with rows, `[rows, rank]`.
    pub(super) half: Vec<f32>,
    /// `V V^T` with rows, `[rows, in_features]`.
    pub(super) whole: Vec<f32>,
}

impl Product {
    fn new(matrix: &DiagonalAndVectors, rank: usize, sign: f32) -> Self {
        Self {
            diagonal: matrix.diagonal.iter().map(|&d| d as f32).collect(),
            sign,
            vectors: matrix.vectors.iter().map(|&v| v as f32).collect(),
            rank,
            packed: OnceLock::new(),
        }
    }

    fn packed(&self) -> Result<&[Packed; 2], Error> {
        let vectors = products::rows(&self.vectors, self.rank)?;
        let pack = || [Packed::new(vectors), Packed::new(vectors.transposed())];
        Ok(self.packed.get_or_init(pack))
    }

    /// `V^T` with rows, `[rows, in_features]`, as the half of a product.
    pub(super) fn half(&self, rows: &[f32], thin: &mut Thin) -> Result<(), Error> {
        self.packed()?[0].multiply(rows, &mut thin.half)
    }

    /// `V V^T` with rows: what is left to the caller is `D x + s y`, elementwise, for each row `x` and its `y` here.
    pub(super) fn thin(&self, rows: &[f32], thin: &mut Thin) -> Result<(), Error> {
        self.half(rows, thin)?;
        self.packed()?[1].multiply(&thin.half, &mut thin.whole)
    }
}
