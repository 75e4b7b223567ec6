//! The sketch `Y = X^T (X Omega)`: two thin products. `crate::sketch` says what it is for.

use crate::products::{self, Error};
use crate::sketch::omega;

/// A row of numbers a feature.
pub(super) fn len(in_features: usize, rank: usize) -> usize {
    in_features * rank
}

/// Of one sequence, `[tokens, in_features]` row-major: `[in_features, rank]`.
pub(super) fn of(x: &[f32], in_features: usize, rank: usize) -> Result<Vec<f32>, Error> {
    if x.is_empty() {
        return Ok(vec![0.0; len(in_features, rank)]);
    }
    let omega = omega(in_features, rank);
    let x = products::rows(x, in_features)?;
    let (mut along, mut sketch) = (Vec::new(), Vec::new());
    products::multiply(x, products::rows(&omega, rank)?, &mut along)?;
    products::multiply(x.transposed(), products::rows(&along, rank)?, &mut sketch)?;
    Ok(sketch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::Random;

    #[test]
    fn a_sketch_is_the_product_with_the_gram_matrix_in_f64() {
        let (tokens, in_features, rank) = (9, 33, 70);
        let mut random = Random::new(3);
        let x: Vec<f32> = (0..tokens * in_features)
            .map(|_| random.normal() as f32)
            .collect();
        let signs = omega(in_features, rank);
        let got = of(&x, in_features, rank).unwrap();
        for j in 0..in_features {
            for k in 0..rank {
                let mut wanted = 0.0;
                for row in x.chunks_exact(in_features) {
                    let along: f64 = (0..in_features)
                        .map(|i| f64::from(row[i]) * f64::from(signs[i * rank + k]))
                        .sum();
                    wanted += f64::from(row[j]) * along;
                }
                let got = f64::from(got[j * rank + k]);
                assert!((got - wanted).abs() < 1e-4, "{j}, {k}: {got}, not {wanted}");
            }
        }
        assert!(
            of(&[], 3, 2).unwrap().iter().all(|&y| y == 0.0),
            "no tokens"
        );
    }
}
