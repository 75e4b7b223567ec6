//! The decoder's weights that nobody decided to leave dense: matrices in the blocks whose names no rule knows.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::tensors::{Action, PlannedTensor};
use crate::dtype::StoredDtype;
use crate::names::grammar::{block, numberless};
use crate::targets::Reason;
use crate::untrusted::shown;

/// Names that a message lists before it says how many more there are.
const NAMED: usize = 4;

/// What stays dense of a decoder because no rule knows its names.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LeftDense {
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
    /// The name with `*` for every number, as in `model.layers.*.attn.proj.weight`. It is a stranger's text: escape it
    /// before printing.
    pub pattern: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many weights.
    pub weights: u64,
}

impl LeftDense {
    /// What these tensors leave dense, if anything.
    pub(super) fn of(tensors: &[PlannedTensor]) -> Option<Self> {
        let mut patterns: BTreeMap<String, DensePattern> = BTreeMap::new();
        let (mut left, mut of) = (0, 0);
        for tensor in tensors.iter().filter(|tensor| is_matrix(tensor)) {
            let weights = tensor.shape.iter().product::<usize>() as u64;
            of += weights;
            if !matches!(
                tensor.action,
                Action::Copy(Reason::UnknownName | Reason::NotAMatrix)
            ) {
                continue;
            }
            left += weights;
            let pattern = numberless(&tensor.name);
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
        for (index, row) in self.patterns.iter().take(NAMED).enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{}", shown(&row.pattern))?;
        }
        match self.patterns.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
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
