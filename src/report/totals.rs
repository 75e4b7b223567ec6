//! Counts over some tensors: a row of the report's tables.

use serde::Serialize;

use crate::counts::Counts;

/// Counts over some tensors.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// What they have in common.
    pub kind: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many weights.
    pub weights: u64,
    /// Zeros afterwards.
    pub zeros: u64,
    /// Zeros before.
    pub zeros_before: u64,
    /// NaN and infinities that were left alone.
    pub non_finite: u64,
    /// Zeros over weights.
    pub sparsity: f64,
    /// What was asked for over these weights; none for the open loop.
    pub asked: Option<f64>,
    /// `sum dW^2 / sum W^2`.
    pub squared_error: Option<f64>,
    /// `sum n dW^2 / sum n W^2`: the output error that the column norms predict; where there are norms, and squared errors.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error: Option<f64>,
    /// Rows that were to be compensated, and could not be; with compensation.
    #[serde(skip_serializing_if = "is_none")]
    pub rows_not_compensated: u64,
    /// The output error that compensation leaves, of that which pruning alone would: sums over rows, each in the units of its layer's
    /// mean column norm; with compensation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_error_left: Option<f64>,
    #[serde(skip)]
    counts: Counts,
    #[serde(skip)]
    asked_zeros: f64,
}

impl Totals {
    pub(super) fn add(&mut self, counts: Counts, asked: Option<f64>) {
        self.tensors += 1;
        self.counts += counts;
        self.asked_zeros += asked.unwrap_or(f64::NAN) * counts.weights as f64;
    }

    pub(super) fn join(&mut self, other: &Self) {
        self.tensors += other.tensors;
        self.counts += other.counts;
        self.asked_zeros += other.asked_zeros;
    }

    /// What is to be said where there are more zeros than were asked for, because they were there before; `what` has them.
    pub(super) fn sparser(&self, what: &str) -> Option<String> {
        sparser(what, &self.counts, self.asked_zeros)
    }

    /// Whether that is so.
    pub(super) fn is_sparser(&self) -> bool {
        self.sparser("").is_some()
    }

    pub(super) fn finish(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self.weights = self.counts.weights;
        self.zeros = self.counts.zeros;
        self.zeros_before = self.counts.zeros_before;
        self.non_finite = self.counts.non_finite;
        self.sparsity = self.counts.sparsity();
        self.asked =
            Some(self.asked_zeros / self.weights.max(1) as f64).filter(|asked| asked.is_finite());
        self.squared_error = self.counts.squared_error();
        self.output_error = self.counts.output_error();
        self.rows_not_compensated = self.counts.rows_not_compensated;
        self.output_error_left = self.counts.output_error_left();
        self
    }
}

/// What is to be said where pruning has left more zeros than it was asked for, because they were there before: too few were asked
/// for, or rows had more than others. Of `what`, which is so; none for a fixed threshold, which asks for no number.
pub(crate) fn sparser(what: &str, counts: &Counts, asked_zeros: f64) -> Option<String> {
    let share = |zeros: f64| zeros / counts.weights.max(1) as f64;
    let [before, asked, after] =
        [counts.zeros_before as f64, asked_zeros, counts.zeros as f64].map(share);
    // A few dead rows are no pruning that somebody has done before.
    let is_sparser = after > asked + 0.01 || (before > asked && after > asked + 1e-4);
    (is_sparser && counts.zeros_before > 0).then(|| {
        let [before, asked, after] = [before, asked, after].map(|share| 100.0 * share);
        format!(
            "{what} had more zeros already than was asked for: {before:.2} % of their weights, where {asked:.2} % was asked for, and \
             {after:.2} % are zero now; to have fewer, prune the dense model"
        )
    })
}

fn is_none(count: &u64) -> bool {
    *count == 0
}
