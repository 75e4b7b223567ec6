//! The selection rule as the report has it.

use serde::Serialize;

use crate::plan::Allocation;
use crate::selection::{Ewma, Selection};

/// The rule, with its constants; what a rule does not have is left out.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SelectionReport {
    /// `ewma`, `exact`, `lambda` or `pattern`.
    pub rule: &'static str,
    /// Fraction of each row asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// The open loop's lambda.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// `N:M`, N kept of M.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Columns an EWMA block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// The EWMA's gain, as a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<String>,
    /// The rule that shared it out over the blocks; none where all got the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocation: Option<&'static str>,
    /// Half of the distance between the least and the most pruned block, as it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spread: Option<f64>,
}

impl SelectionReport {
    /// The rule, and how it was shared out.
    #[must_use]
    pub fn allocated(selection: &Selection, allocation: &Allocation) -> Self {
        Self {
            allocation: (*allocation != Allocation::Uniform).then_some(allocation.name()),
            spread: allocation.spread(),
            ..Self::from(selection)
        }
    }
}

impl From<&Selection> for SelectionReport {
    fn from(selection: &Selection) -> Self {
        let of_ewma = |ewma: Ewma| Self {
            block_size: Some(ewma.block_size()),
            gain: Some(format!("1/{}", 1 << ewma.gain_shift())),
            ..Self::default()
        };
        match *selection {
            Selection::Ewma { sparsity, ewma } => Self {
                rule: "ewma",
                sparsity: Some(sparsity),
                ..of_ewma(ewma)
            },
            Selection::Exact { sparsity } => Self {
                rule: "exact",
                sparsity: Some(sparsity),
                ..Self::default()
            },
            Selection::Lambda { lambda, ewma } => Self {
                rule: "lambda",
                lambda: Some(lambda),
                ..of_ewma(ewma)
            },
            Selection::Pattern(pattern) => Self {
                rule: "pattern",
                pattern: Some(pattern.to_string()),
                ..Self::default()
            },
        }
    }
}
