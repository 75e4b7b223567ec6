//! The decoder's weights that stay dense though they are matrices in its blocks: those whose names no rule knows, and those
//! of blocks that predict further tokens.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::tensors::{Action, PlannedTensor};
use crate::dtype::StoredDtype;
use crate::names::grammar::{block, numberless};
use crate::targets::Reason;
use crate::untrusted::named;

/// Why weights of a decoder stay dense that nobody decided to leave so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DenseReason {
    /// No rule knows their names.
    UnknownName,
    /// Their blocks predict further tokens, and no calibration reaches them.
    FurtherPrediction,
}

impl DenseReason {
    const ALL: [Self; 2] = [Self::UnknownName, Self::FurtherPrediction];

    /// Whether this is why a tensor is left.
    fn is_of(self, reason: &Reason) -> bool {
        match self {
            Self::UnknownName => matches!(reason, Reason::UnknownName | Reason::NotAMatrix),
            Self::FurtherPrediction => matches!(reason, Reason::FurtherPrediction),
        }
    }

    /// What the names of such tensors have in common: those of a block for further tokens are one.
    fn pattern(self, name: &str) -> String {
        match (self, block(name)) {
            (Self::FurtherPrediction, Some(block)) => {
                format!("{}*", &name[..name.len() - block.tail.len()])
            }
            _ => numberless(name),
        }
    }
}

impl fmt::Display for DenseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownName => "names that no rule knows",
            Self::FurtherPrediction => {
                "which predicts further tokens, and which no calibration reaches"
            }
        })
    }
}

/// What stays dense of a decoder for one reason.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LeftDense {
    /// Why.
    pub reason: DenseReason,
    /// Weights left dense.
    pub weights: u64,
    /// Weights of all matrices in the decoder's blocks.
    pub of: u64,
    /// Their names, the largest share first.
    pub patterns: Vec<DensePattern>,
}

/// Tensors whose names differ in their numbers alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct DensePattern {
    /// The name with `*` for every number, as in `model.layers.*.attn.proj.weight`, or for all of a block. It is a stranger's text: escape it
    /// before printing.
    pub pattern: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many weights.
    pub weights: u64,
}

impl LeftDense {
    /// What these tensors leave dense, by reason; nothing for a reason that none has.
    pub(super) fn of(tensors: &[PlannedTensor]) -> Vec<Self> {
        let reasons = DenseReason::ALL.into_iter();
        reasons
            .filter_map(|reason| Self::for_reason(reason, tensors))
            .collect()
    }

    fn for_reason(reason: DenseReason, tensors: &[PlannedTensor]) -> Option<Self> {
        let mut patterns: BTreeMap<String, DensePattern> = BTreeMap::new();
        let (mut left, mut of) = (0, 0);
        for tensor in tensors.iter().filter(|tensor| is_matrix(tensor)) {
            let weights = tensor.elements();
            of += weights;
            let Action::Copy(why) = &tensor.action else {
                continue;
            };
            if !reason.is_of(why) {
                continue;
            }
            left += weights;
            let pattern = reason.pattern(&tensor.name);
            let row = patterns.entry(pattern.clone()).or_insert(DensePattern {
                pattern,
                tensors: 0,
                weights: 0,
            });
            row.tensors += 1;
            row.weights += weights;
        }
        let mut patterns: Vec<_> = patterns.into_values().collect();
        patterns.sort_by_key(|row| std::cmp::Reverse(row.weights));
        (left > 0).then_some(Self {
            reason,
            weights: left,
            of,
            patterns,
        })
    }

    /// The share of the decoder's weights, 0 to 1.
    #[must_use]
    pub fn share(&self) -> f64 {
        self.weights as f64 / self.of as f64
    }

    /// How many tensors.
    #[must_use]
    pub fn tensors(&self) -> usize {
        self.patterns.iter().map(|row| row.tensors).sum()
    }
}

impl fmt::Display for LeftDense {
    /// `12.0 % of the decoder's weights, in model.layers.*.attn.proj.weight and 2 more`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:.1} % of the decoder's weights, in ",
            100.0 * self.share()
        )?;
        f.write_str(&named(self.patterns.iter().map(|row| &row.pattern)))
    }
}

/// Whether a tensor is a float matrix in a block, or a stack of them: the shape of a linear layer.
fn is_matrix(tensor: &PlannedTensor) -> bool {
    use StoredDtype::{Bf16, F16, F32, F64};
    matches!(tensor.dtype, Bf16 | F16 | F32 | F64)
        && matches!(tensor.shape.len(), 2 | 3)
        && tensor.shape.iter().all(|&side| side > 1)
        && block(&tensor.name).is_some()
}
