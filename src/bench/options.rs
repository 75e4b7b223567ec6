//! What `bench` is told to measure.

use std::path::PathBuf;

use crate::dtype::Dtype;

/// What to measure, and how often.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BenchOptions {
    /// How the weights are stored.
    pub dtypes: Vec<Dtype>,
    /// Number of samples per case.
    pub samples: usize,
    /// Measure less: a small part of every matrix, one layer, few tokens.
    pub quick: bool,
    /// Where to put the temporary checkpoint; without a place, what needs files is left out.
    pub dir: Option<PathBuf>,
}

impl BenchOptions {
    /// bf16, ten samples, everything.
    #[must_use]
    pub fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dtypes: vec![Dtype::Bf16],
            samples: 10,
            quick: false,
            dir,
        }
    }
}
