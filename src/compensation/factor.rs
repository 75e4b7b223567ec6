//! Small symmetric matrices in f64: Cholesky's factor and what is solved with it.
//!
//! Written here and not taken from a library, because column factors are made of these numbers, and masks of column factors:
//! every operation has its place in one order, so that every machine gets the same bits. Libraries pick an order by the width
//! of the machine's vectors.

use pulp::{Arch, Simd, WithSimd};

/// A lower triangular matrix `L` with a positive diagonal, `[size, size]` row-major; what is above is not looked at.
#[derive(Clone, Debug)]
pub(super) struct Triangle {
    size: usize,
    values: Vec<f64>,
}

impl Triangle {
    /// `L` of `matrix = L L^T`, of which the lower half is read. `None` where the matrix is not positive definite, to
    /// working precision, or not finite.
    pub(super) fn of(mut matrix: Vec<f64>, size: usize) -> Option<Self> {
        for column in 0..size {
            // What the columns before leave of this one.
            let rows = &mut matrix[column * size..];
            let pivot_row: Vec<f64> = rows[..column].to_vec();
            for row in 0..size - column {
                let row = &mut rows[row * size..(row + 1) * size];
                let sum: f64 = dot(&row[..column], &pivot_row);
                row[column] -= sum;
            }
            let pivot = rows[column];
            if !(pivot > 0.0 && pivot.is_finite()) {
                return None;
            }
            let root = pivot.sqrt();
            for row in 0..size - column {
                rows[row * size + column] /= root;
            }
        }
        Some(Self {
            size,
            values: matrix,
        })
    }

    /// `x` of `L x = b` for each row `b` of `rows`, in place. As many rows together as a vector has numbers, so that `L` is
    /// read once for all of them.
    pub(super) fn solve(&self, rows: &mut [f64]) {
        Arch::new().dispatch(Solve { factor: self, rows });
    }
}

struct Solve<'a> {
    factor: &'a Triangle,
    rows: &'a mut [f64],
}

impl WithSimd for Solve<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Triangle { size, values } = self.factor;
        let (size, together) = (*size, S::F64_LANES);
        // Of each column the numbers of all rows; zeros where there are no more rows.
        let mut columns = vec![0.0; size * together];
        for rows in self.rows.chunks_mut(together * size) {
            for (row, values) in rows.chunks_exact(size).enumerate() {
                let places = columns.iter_mut().skip(row).step_by(together);
                places
                    .zip(values)
                    .for_each(|(place, &value)| *place = value);
            }
            let (vectors, _) = S::as_mut_simd_f64s(&mut columns);
            for column in 0..size {
                let factors = &values[column * size..];
                let (solved, rest) = vectors.split_at_mut(column);
                let sum = dots(simd, &factors[..column], solved);
                let pivot = simd.splat_f64s(factors[column]);
                rest[0] = simd.div_f64s(simd.sub_f64s(rest[0], sum), pivot);
            }
            for (row, values) in rows.chunks_exact_mut(size).enumerate() {
                let places = columns.iter().skip(row).step_by(together);
                values
                    .iter_mut()
                    .zip(places)
                    .for_each(|(value, place)| *value = *place);
            }
        }
    }
}

/// [`dot`] of `factors` with each of the rows of which `vectors` hold a column each.
#[inline(always)]
fn dots<S: Simd>(simd: S, factors: &[f64], vectors: &[S::f64s]) -> S::f64s {
    let add = |a, b| simd.add_f64s(a, b);
    let add_product = |sum, factor, vector| {
        let product = simd.mul_f64s(simd.splat_f64s(factor), vector);
        simd.add_f64s(sum, product)
    };
    let (factor_eights, factor_rest) = factors.as_chunks::<8>();
    let (vector_eights, vector_rest) = vectors.as_chunks::<8>();
    let mut sums = [simd.splat_f64s(0.0); 8];
    for (factors, vectors) in factor_eights.iter().zip(vector_eights) {
        for lane in 0..8 {
            sums[lane] = add_product(sums[lane], factors[lane], vectors[lane]);
        }
    }
    // A sum of nothing is -0.
    let mut rest = simd.splat_f64s(-0.0);
    for (&factor, &vector) in factor_rest.iter().zip(vector_rest) {
        rest = add_product(rest, factor, vector);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    let sum = add(add(add(a, e), add(c, g)), add(add(b, f), add(d, h)));
    add(sum, rest)
}

/// A sum of products in eight partial sums, whatever the machine's vectors.
#[inline(always)]
pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (a_eights, a_rest) = a.as_chunks::<8>();
    let (b_eights, b_rest) = b.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for (a, b) in a_eights.iter().zip(b_eights) {
        for lane in 0..8 {
            sums[lane] += a[lane] * b[lane];
        }
    }
    let rest: f64 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + e) + (c + g)) + ((b + f) + (d + h)) + rest
}

/// `left^T right`, `[size, size]`, of rows of `size` numbers each: one row after the other is added to every number. With
/// [`Part::Lower`] only what is on the diagonal and below is sure to be there.
///
/// Tile by tile, so that the sums of a tile stay in registers and the rows it needs in a core's first cache.
pub(super) fn products(left: &[f64], right: &[f64], size: usize, part: Part) -> Vec<f64> {
    let mut sum = vec![0.0; size * size];
    let all = Products {
        sum: &mut sum,
        left,
        right,
        size,
        part,
    };
    Arch::new().dispatch(all);
    sum
}

/// Which part of a sum of products is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    All,
    /// What is on the diagonal and below.
    Lower,
}

struct Products<'a> {
    sum: &'a mut [f64],
    left: &'a [f64],
    right: &'a [f64],
    size: usize,
    part: Part,
}

const TILE_ROWS: usize = 4;
/// Vectors beside each other in a tile.
const TILE_VECTORS: usize = 4;
/// So many that a tile's columns of them fit in a core's first cache.
const ROWS_AT_A_TIME: usize = 64;

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { size, part, .. } = self;
        let width = TILE_VECTORS * S::F64_LANES;
        let whole = |count: usize, tile: usize| count / tile * tile;
        let (rows, columns) = (whole(size, TILE_ROWS), whole(size, width));
        let at_a_time = ROWS_AT_A_TIME * size;
        for (left, right) in self
            .left
            .chunks(at_a_time)
            .zip(self.right.chunks(at_a_time))
        {
            for column in (0..columns).step_by(width) {
                let first = match part {
                    Part::All => 0,
                    Part::Lower => whole(column, TILE_ROWS),
                };
                for row in (first..rows).step_by(TILE_ROWS) {
                    add_tile(simd, self.sum, (left, right), size, (row, column));
                }
            }
            // What is left beside and below the tiles.
            for (left, right) in left.chunks_exact(size).zip(right.chunks_exact(size)) {
                for (row, &left) in left.iter().enumerate() {
                    let first = if row < rows { columns } else { 0 };
                    let sums = &mut self.sum[row * size + first..(row + 1) * size];
                    for (sum, &right) in sums.iter_mut().zip(&right[first..]) {
                        *sum += left * right;
                    }
                }
            }
        }
    }
}

/// Adds the products of some rows to one tile of their sum.
#[inline(always)]
fn add_tile<S: Simd>(
    simd: S,
    sum: &mut [f64],
    (left, right): (&[f64], &[f64]),
    size: usize,
    (row, column): (usize, usize),
) {
    let width = TILE_VECTORS * S::F64_LANES;
    let line = |line: usize| {
        let first = (row + line) * size + column;
        first..first + width
    };
    let mut tile = [[simd.splat_f64s(0.0); TILE_VECTORS]; TILE_ROWS];
    for (index, tile) in tile.iter_mut().enumerate() {
        tile.copy_from_slice(S::as_simd_f64s(&sum[line(index)]).0);
    }
    for (left, right) in left.chunks_exact(size).zip(right.chunks_exact(size)) {
        let left = &left[row..row + TILE_ROWS];
        let (right, _) = S::as_simd_f64s(&right[column..column + width]);
        for (tile, &left) in tile.iter_mut().zip(left) {
            let left = simd.splat_f64s(left);
            for (sum, &right) in tile.iter_mut().zip(right) {
                *sum = simd.add_f64s(*sum, simd.mul_f64s(left, right));
            }
        }
    }
    for (index, tile) in tile.iter().enumerate() {
        let (sums, _) = S::as_mut_simd_f64s(&mut sum[line(index)]);
        sums.copy_from_slice(tile);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_times_its_transpose_is_the_matrix_and_solves_it() {
        let size = 11;
        let half: Vec<f64> = (0..size * size)
            .map(|i| ((i * i * 7 + 3 * i) % 23) as f64 - 11.0)
            .collect();
        let mut matrix = products(&half, &half, size, Part::All);
        (0..size).for_each(|i| matrix[i * size + i] += 1.0);
        let factor = Triangle::of(matrix.clone(), size).unwrap();
        let l = |row: usize, column: usize| {
            if column <= row {
                factor.values[row * size + column]
            } else {
                0.0
            }
        };
        for row in 0..size {
            for column in 0..=row {
                let product: f64 = (0..size).map(|k| l(row, k) * l(column, k)).sum();
                let wanted = matrix[row * size + column];
                assert!((product - wanted).abs() < 1e-9 * (1.0 + wanted.abs()));
            }
        }
        let mut x: Vec<f64> = (0..size).map(|i| i as f64 - 4.0).collect();
        let b = x.clone();
        factor.solve(&mut x);
        for (row, b) in b.iter().enumerate() {
            let product: f64 = (0..=row).map(|k| l(row, k) * x[k]).sum();
            assert!((product - b).abs() < 1e-9);
        }
    }

    #[test]
    fn products_are_added_one_row_after_the_other_whatever_the_tiles() {
        for size in [1, 5, 31, 32, 70, 128] {
            let number = |i: usize| ((i * 37 + 11) % 101) as f64 / 7.0;
            let left: Vec<f64> = (0..150 * size).map(number).collect();
            let right: Vec<f64> = left.iter().map(|x| 0.3 - x / 3.0).collect();
            let mut wanted = vec![0.0; size * size];
            for (left, right) in left.chunks_exact(size).zip(right.chunks_exact(size)) {
                for (i, wanted) in wanted.iter_mut().enumerate() {
                    *wanted += left[i / size] * right[i % size];
                }
            }
            let sum = products(&left, &right, size, Part::All);
            assert_eq!(sum, wanted, "{size}");
            let lower = products(&left, &right, size, Part::Lower);
            for row in 0..size {
                let half = row * size..row * size + row + 1;
                assert_eq!(lower[half.clone()], wanted[half], "{size}");
            }
        }
    }

    #[test]
    fn rows_are_solved_alike_alone_and_together() {
        let size = 37;
        let mut matrix = vec![0.5; size * size];
        (0..size).for_each(|i| matrix[i * size + i] = 3.0 + i as f64);
        let factor = Triangle::of(matrix, size).unwrap();
        let rows: Vec<f64> = (0..7 * size).map(|i| (i % 13) as f64 - 6.0).collect();
        let mut together = rows.clone();
        factor.solve(&mut together);
        let mut alone = rows;
        alone
            .chunks_exact_mut(size)
            .for_each(|row| factor.solve(row));
        assert_eq!(together, alone);
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(Triangle::of(vec![1.0, 0.0, 2.0, 1.0], 2).is_none());
        assert!(Triangle::of(vec![0.0], 1).is_none());
        assert!(Triangle::of(vec![f64::NAN], 1).is_none());
        assert!(Triangle::of(vec![1.0, 0.0, f64::INFINITY, 1.0], 2).is_none());
    }
}
