//! What is counted of the weights of one tensor.

use serde::Serialize;

use super::groups::{Most, WIDTHS};

/// What is counted of the weights of one tensor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Statistics {
    /// Weights.
    pub weights: u64,
    /// Those that are +0.0 or -0.0.
    pub zeros: u64,
    /// Zeros over weights.
    pub sparsity: f64,
    /// NaN and infinities.
    pub non_finite: u64,
    /// The least `|w|` of the finite weights.
    pub min: Option<f64>,
    /// The mean `|w|` of the finite weights.
    pub mean: Option<f64>,
    /// The largest `|w|` of the finite weights.
    pub max: Option<f64>,
    /// Every N:M, for M of 2, 4, 8, 16 and 32, by which at most N of each M consecutive weights along the input are not zero; with
    /// the least N. None for a tensor that is no matrix.
    pub patterns: Vec<String>,
}

/// Sums over some weights.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sums {
    pub weights: u64,
    pub zeros: u64,
    pub non_finite: u64,
    pub min: f64,
    pub max: f64,
    /// Of the finite `|w|`.
    pub total: f64,
    pub most: Most,
}

impl Default for Sums {
    fn default() -> Self {
        Self {
            weights: 0,
            zeros: 0,
            non_finite: 0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
            total: 0.0,
            most: Most::default(),
        }
    }
}

impl Sums {
    pub(super) fn add(&mut self, other: &Self) {
        self.weights += other.weights;
        self.zeros += other.zeros;
        self.non_finite += other.non_finite;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.total += other.total;
        self.most.add(&other.most);
    }

    /// One weight more.
    #[inline(always)]
    pub(super) fn weight(&mut self, magnitude: f64) {
        self.weights += 1;
        self.zeros += u64::from(magnitude == 0.0);
        if magnitude.is_finite() {
            self.min = self.min.min(magnitude);
            self.max = self.max.max(magnitude);
            self.total += magnitude;
        } else {
            self.non_finite += 1;
        }
    }

    /// What is reported of them; `is_matrix` says whether groups were looked at.
    pub(super) fn finish(&self, is_matrix: bool) -> Statistics {
        let finite = self.weights - self.non_finite;
        let some = |value: f64| (finite > 0).then_some(value);
        let widths = WIDTHS.iter().zip(self.most.0);
        let holds = |(&m, n): (&usize, u8)| {
            let n = usize::from(n);
            (is_matrix && n >= 1 && n < m).then(|| format!("{n}:{m}"))
        };
        Statistics {
            weights: self.weights,
            zeros: self.zeros,
            sparsity: self.zeros as f64 / self.weights.max(1) as f64,
            non_finite: self.non_finite,
            min: some(self.min),
            mean: some(self.total / finite.max(1) as f64),
            max: some(self.max),
            patterns: widths.filter_map(holds).collect(),
        }
    }
}

impl Statistics {
    /// The patterns that say more than the ones before them: of 2:4 and 4:8 the first, as the second follows.
    #[must_use]
    pub fn strongest(&self) -> Vec<&str> {
        let parsed = |text: &str| -> Option<(usize, usize)> {
            let (n, m) = text.split_once(':')?;
            Some((n.parse().ok()?, m.parse().ok()?))
        };
        let mut strongest: Vec<(usize, usize, &str)> = Vec::new();
        for pattern in &self.patterns {
            let Some((n, m)) = parsed(pattern) else {
                continue;
            };
            let follows = strongest.iter().any(|&(a, b, _)| a * (m / b) == n);
            if !follows {
                strongest.push((n, m, pattern));
            }
        }
        strongest
            .into_iter()
            .map(|(_, _, pattern)| pattern)
            .collect()
    }
}
