//! Small symmetric matrices in f64: Cholesky's factor and what is solved with it.
//!
//! Written here and not taken from a library, because column factors are made of these numbers, and masks of column factors:
//! every operation has its place in one order, so that every machine gets the same bits. Libraries pick an order by the width
//! of the machine's vectors.

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

    /// `x` of `L x = b`, in place.
    #[inline(always)]
    pub(super) fn solve(&self, b: &mut [f64]) {
        for row in 0..self.size {
            let factors = &self.values[row * self.size..];
            let sum = dot(&factors[..row], &b[..row]);
            b[row] = (b[row] - sum) / factors[row];
        }
    }
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

/// Adds `left^T right` to `sum`, `[left_columns, right_columns]`, of one row of each.
#[inline(always)]
pub(super) fn add_outer(sum: &mut [f64], left: &[f64], right: &[f64]) {
    for (sum, &left) in sum.chunks_exact_mut(right.len().max(1)).zip(left) {
        for (sum, &right) in sum.iter_mut().zip(right) {
            *sum += left * right;
        }
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
        let mut matrix = vec![0.0; size * size];
        for row in half.chunks_exact(size) {
            add_outer(&mut matrix, row, row);
        }
        (0..size).for_each(|i| matrix[i * size + i] += 1.0);
        let factor = Triangle::of(matrix.clone(), size).unwrap();
        let l = |row: usize, column: usize| match column <= row {
            true => factor.values[row * size + column],
            false => 0.0,
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
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(Triangle::of(vec![1.0, 0.0, 2.0, 1.0], 2).is_none());
        assert!(Triangle::of(vec![0.0], 1).is_none());
        assert!(Triangle::of(vec![f64::NAN], 1).is_none());
        assert!(Triangle::of(vec![1.0, 0.0, f64::INFINITY, 1.0], 2).is_none());
    }
}
