//! Matrix products in f32, by rten-gemm: kernels for the widest vectors of the machine behind safe functions.
//!
//! Each number of a product is summed in one order, whatever the threads. They share a product out where it is asked for in
//! a pool of several; `cores.rs` has the pools.

use std::sync::Arc;

use rten_gemm::{
    BiasVector, GemmExecutor, GemmInputA, GemmInputB, GemmOptions, GemmResult, PackedBMatrix,
};
use rten_tensor::prelude::*;

pub(crate) use rten_gemm::GemmError as Error;
pub(crate) use rten_tensor::Matrix;

/// A matrix that rows are multiplied with, laid out once in the way that the kernel reads it.
#[derive(Clone)]
pub(crate) struct Packed(Arc<PackedBMatrix<f32>>);

impl std::fmt::Debug for Packed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packed({} x {})", self.0.rows(), self.0.cols())
    }
}

/// What is done with a product beside writing it.
#[derive(Clone, Copy, Default)]
pub(crate) struct With<'a> {
    /// What it is multiplied by; 1 if there is none.
    pub(crate) scale: Option<f32>,
    /// What is added to each row, `[columns]`.
    pub(crate) bias: Option<&'a [f32]>,
    /// Whether it is added to what is there.
    pub(crate) adds: bool,
}

impl Packed {
    /// Of a matrix, or of the transpose of one.
    pub(crate) fn new(matrix: Matrix<'_>) -> Self {
        Self(Arc::new(kernel().prepack_b(matrix)))
    }

    /// Numbers that a row has before it is multiplied.
    pub(crate) fn inner(&self) -> usize {
        self.0.rows()
    }

    /// Numbers that it has afterwards.
    pub(crate) fn columns(&self) -> usize {
        self.0.cols()
    }

    /// Multiplies rows that lie one behind the other; `into` gets the length that it needs, and keeps its memory.
    ///
    /// # Errors
    /// Rows of another length.
    pub(crate) fn multiply(&self, x: &[f32], into: &mut Vec<f32>) -> Result<(), Error> {
        let x = rows(x, self.inner())?;
        into.resize(x.shape()[0] * self.columns(), 0.0);
        self.multiply_with(x, With::default(), into)
    }

    /// Multiplies rows into a place of the right size.
    ///
    /// # Errors
    /// Rows of another length, another size of the place or the bias.
    pub(crate) fn multiply_with(
        &self,
        x: Matrix<'_>,
        with: With<'_>,
        into: &mut [f32],
    ) -> Result<(), Error> {
        let options = GemmOptions {
            alpha: with.scale.unwrap_or(1.0),
            beta: if with.adds { 1.0 } else { 0.0 },
            bias: with.bias.map(BiasVector::Row),
            ..GemmOptions::default()
        };
        let (x, matrix) = (GemmInputA::Unpacked(x), GemmInputB::Packed(&*self.0));
        kernel().gemm(into, x, matrix, options)
    }
}

/// `a b` for matrices that are multiplied once.
///
/// # Errors
/// Matrices that do not go together.
pub(crate) fn multiply(a: Matrix<'_>, b: Matrix<'_>, into: &mut Vec<f32>) -> GemmResult {
    let [rows, _] = a.shape();
    let [_, columns] = b.shape();
    into.resize(rows * columns, 0.0);
    let (a, b) = (GemmInputA::Unpacked(a), GemmInputB::Unpacked(b));
    kernel().gemm(into, a, b, GemmOptions::default())
}

/// Numbers as rows of so many.
///
/// # Errors
/// They are no whole number of rows.
pub(crate) fn rows(values: &[f32], columns: usize) -> Result<Matrix<'_>, Error> {
    let count = values.len() / columns.max(1);
    Matrix::try_from_data([count, columns], values).map_err(|_| Error::KSizeMismatch)
}

/// The kernel of this machine: found once, and no more than a pointer to it.
fn kernel() -> GemmExecutor<f32> {
    GemmExecutor::new()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Random;

    fn numbers(seed: u64, count: usize) -> Vec<f32> {
        let mut random = Random::new(seed);
        (0..count).map(|_| random.normal() as f32).collect()
    }

    #[test]
    fn products_are_those_in_f64_packed_or_not_and_added_scaled_and_biased() {
        for [count, inner, columns] in [[1, 5, 3], [7, 300, 65], [70, 33, 130]] {
            let x = numbers(1, count * inner);
            let matrix = numbers(2, inner * columns);
            let bias = numbers(3, columns);
            let before = numbers(4, count * columns);
            let wanted = |row: usize, column: usize| -> f64 {
                let pairs = (0..inner).map(|k| (x[row * inner + k], matrix[k * columns + column]));
                pairs.map(|(a, b)| f64::from(a) * f64::from(b)).sum()
            };
            let check = |got: &[f32], from: &dyn Fn(usize, f64) -> f64| {
                for (i, &got) in got.iter().enumerate() {
                    let wanted = from(i, wanted(i / columns, i % columns));
                    let off = (f64::from(got) - wanted).abs();
                    assert!(off < 2e-5 * inner as f64, "{got}, not {wanted}");
                }
            };
            let packed = Packed::new(rows(&matrix, columns).unwrap());
            let mut got = vec![7.0; 3];
            packed.multiply(&x, &mut got).unwrap();
            check(&got, &|_, product| product);

            let turned: Vec<f32> = (0..columns)
                .flat_map(|column| (0..inner).map(move |k| (k, column)))
                .map(|(k, column)| matrix[k * columns + column])
                .collect();
            let mut same = before.clone();
            let with = With {
                scale: Some(0.5),
                bias: Some(&bias),
                adds: true,
            };
            Packed::new(rows(&turned, inner).unwrap().transposed())
                .multiply_with(rows(&x, inner).unwrap(), with, &mut same)
                .unwrap();
            check(&same, &|i, product| {
                0.5 * product + f64::from(bias[i % columns]) + f64::from(before[i])
            });

            let (x, matrix) = (rows(&x, inner), rows(&matrix, columns));
            multiply(x.unwrap(), matrix.unwrap(), &mut got).unwrap();
            check(&got, &|_, product| product);
        }
    }

    #[test]
    fn the_number_of_threads_changes_no_bit() {
        let (x, matrix) = (numbers(5, 130 * 700), numbers(6, 700 * 600));
        let packed = Packed::new(rows(&matrix, 600).unwrap());
        let product = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let mut y = Vec::new();
            let work = || packed.multiply(&x, &mut y);
            pool.build().unwrap().install(work).unwrap();
            y
        };
        let alone = product(1);
        assert_eq!(product(2), alone);
        assert_eq!(product(7), alone);
    }

    #[test]
    fn what_does_not_go_together_is_refused() {
        let packed = Packed::new(rows(&[0.0; 6], 2).unwrap());
        assert!(packed.multiply(&[0.0; 4], &mut Vec::new()).is_err());
        let mut small = [0.0; 3];
        let (a, b) = ([0.0; 6], [0.0; 4]);
        let three = rows(&a, 3).unwrap();
        let refused = packed.multiply_with(three, With::default(), &mut small);
        assert!(refused.is_err());
        assert!(multiply(three, rows(&b, 2).unwrap(), &mut Vec::new()).is_err());
        assert!(rows(&a, 4).is_err());
    }
}
