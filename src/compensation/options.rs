//! What can be asked of compensation.

use serde::{Deserialize, Serialize};

use crate::selection::Selection;

/// How the weights that stay are compensated for those that go.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Compensation {
    /// Columns of the sketch that are used.
    pub rank: usize,
    /// What is added to every column's norm, of the mean norm.
    pub ridge: f64,
    /// Steps of the conjugate gradients.
    pub steps: usize,
    /// Steps of the alternating directions that choose the mask; 0 leaves it to the score.
    pub mask_steps: usize,
}

impl Compensation {
    /// The defaults for a selection, chosen by measurement: docs/quality.md.
    #[must_use]
    pub const fn new(selection: &Selection) -> Self {
        let is_pattern = matches!(selection, Selection::Pattern(_));
        Self {
            rank: if is_pattern { 192 } else { 128 },
            ridge: 0.03,
            steps: if is_pattern { 1 } else { 8 },
            mask_steps: if is_pattern { 4 } else { 0 },
        }
    }
}
