//! What flows through the forward pass on the CPU.

use crate::forward::batch::Span;
use crate::forward::error::Error;
use crate::model::ExpertAssignment;
use crate::products::{self, Matrix};

/// Activations: `[tokens, features]` row-major, in f32.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activations {
    values: Vec<f32>,
    features: usize,
}

impl Activations {
    /// Of values row by row.
    ///
    /// # Errors
    /// No whole number of rows.
    pub(super) fn new(values: Vec<f32>, features: usize) -> Result<Self, Error> {
        if values.len().is_multiple_of(features.max(1)) {
            Ok(Self { values, features })
        } else {
            Err(Error::Engine(format!(
                "{} activations are no rows of {features}",
                values.len()
            )))
        }
    }

    /// Zeros.
    pub(super) fn zeros(tokens: usize, features: usize) -> Self {
        Self {
            values: vec![0.0; tokens * features],
            features,
        }
    }

    pub(super) fn features(&self) -> usize {
        self.features
    }

    pub(super) fn tokens(&self) -> usize {
        self.values.len() / self.features.max(1)
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.values
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.values
    }

    /// Those of the rows of a span.
    pub(super) fn rows(&self, span: Span) -> &[f32] {
        &self.values[span.row * self.features..span.end() * self.features]
    }

    pub(super) fn rows_mut(&mut self, span: Span) -> &mut [f32] {
        &mut self.values[span.row * self.features..span.end() * self.features]
    }

    /// Takes rows of another one behind its own.
    pub(super) fn append(&mut self, other: &Self, span: Span) {
        self.features = other.features;
        self.values.extend_from_slice(other.rows(span));
    }

    /// Lets go of its first rows.
    pub(super) fn forget(&mut self, rows: usize) {
        self.values.drain(..rows * self.features);
    }

    /// The values of another one at the same places.
    ///
    /// # Errors
    /// It has another shape.
    pub(super) fn beside<'a>(&mut self, other: &'a Self) -> Result<(&mut [f32], &'a [f32]), Error> {
        let (own, others) = (
            [self.tokens(), self.features],
            [other.tokens(), other.features],
        );
        if own == others {
            Ok((&mut self.values, &other.values))
        } else {
            Err(Error::Engine(format!(
                "activations of {own:?} and {others:?} do not go together"
            )))
        }
    }

    /// To multiply.
    pub(super) fn matrix(&self) -> Result<Matrix<'_>, Error> {
        Ok(products::rows(&self.values, self.features)?)
    }

    /// Those of several, one beside the other in each row.
    pub(super) fn concat(parts: &[Self]) -> Self {
        let features = parts.iter().map(Self::features).sum();
        let tokens = parts.first().map_or(0, Self::tokens);
        let mut values = Vec::with_capacity(tokens * features);
        for token in 0..tokens {
            for part in parts {
                let first = token * part.features;
                values.extend_from_slice(&part.values[first..first + part.features]);
            }
        }
        Self { values, features }
    }
}

/// The rows of `x`, `[tokens, features]`, that an assignment names, each times its weight.
pub(super) fn gather(x: &[f32], features: usize, assignment: &ExpertAssignment) -> Vec<f32> {
    let mut rows = Vec::with_capacity(assignment.tokens.len() * features);
    for (&token, &weight) in assignment.tokens.iter().zip(&assignment.weights) {
        let first = token as usize * features;
        let row = x[first..first + features].iter();
        rows.extend(row.map(|x| x * weight));
    }
    rows
}

/// Adds rows to those of `sum` that an assignment names, each times its weight.
pub(super) fn scatter(
    rows: &[f32],
    features: usize,
    assignment: &ExpertAssignment,
    sum: &mut [f32],
) {
    let places = assignment.tokens.iter().zip(&assignment.weights);
    for ((&token, &weight), row) in places.zip(rows.chunks_exact(features.max(1))) {
        let first = token as usize * features;
        let sums = &mut sum[first..first + features];
        sums.iter_mut()
            .zip(row)
            .for_each(|(sum, y)| *sum += weight * y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_differ_are_refused() {
        assert!(Activations::new(vec![0.0; 5], 2).is_err());
        let mut x = Activations::zeros(2, 3);
        assert!(x.beside(&Activations::zeros(2, 3)).is_ok());
        assert!(x.beside(&Activations::zeros(3, 2)).is_err());
        assert!(x.beside(&Activations::zeros(1, 3)).is_err());
    }

    #[test]
    fn parts_lie_beside_each_other_in_each_row() {
        let part = |values: &[f32], features| Activations::new(values.to_vec(), features).unwrap();
        let all = Activations::concat(&[part(&[1.0, 2.0], 1), part(&[3.0, 4.0, 5.0, 6.0], 2)]);
        assert_eq!((all.tokens(), all.features()), (2, 3));
        assert_eq!(all.values(), [1.0, 3.0, 4.0, 2.0, 5.0, 6.0]);
    }
}
