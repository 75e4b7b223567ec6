//! The decision for one tensor.

use super::reason::Reason;
use crate::dtype::StoredDtype;
use crate::names::rules::Layout;

/// A tensor, as its file's header describes it.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// Its full name.
    pub name: &'a str,
    /// How its elements are stored.
    pub dtype: StoredDtype,
    /// Its dimensions, outermost first.
    pub shape: &'a [usize],
}

/// A weight to prune.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Matrices in the tensor, one after another: 1, or the number of experts of a fused tensor.
    pub experts: usize,
    /// Output neurons of one matrix.
    pub out_features: usize,
    /// Input features of one matrix: the length of a comparison group, and of the column norms.
    pub in_features: usize,
    /// Which axis of each matrix the inputs run along.
    pub layout: Layout,
    /// A short label for tables: `q_proj`, `experts.w1`.
    pub kind: String,
}

impl Target {
    /// Rows of all its matrices: output neurons.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.experts as u64 * self.out_features as u64
    }

    /// Weights of all its matrices.
    #[must_use]
    pub const fn weights(&self) -> u64 {
        self.rows() * self.in_features as u64
    }
}

/// What happens to a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// It is pruned.
    Prune(Target),
    /// It would be pruned if its dtype were supported. A run must refuse it, not skip it.
    Unsupported {
        /// How it is stored; only BF16, F16 and F32 can be pruned.
        dtype: StoredDtype,
        /// The label that its target would have.
        kind: String,
    },
    /// Its bytes are copied, for this reason.
    Skip(Reason),
}

impl Decision {
    /// The target, if the tensor is pruned.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Prune(target) => Some(target),
            Self::Unsupported { .. } | Self::Skip(_) => None,
        }
    }
}
