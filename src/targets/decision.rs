//! What is decided for a tensor.

use super::reason::Reason;
use crate::dtype::StoredDtype;
use crate::names::rules::Layout;

/// A tensor, as its file's header describes it.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// The full name.
    pub name: &'a str,
    /// The type of its elements.
    pub dtype: StoredDtype,
    /// Its dimensions, slowest first.
    pub shape: &'a [usize],
}

/// A weight to prune.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Target {
    /// Matrices in the tensor, one behind the other: 1, or the experts of a fused tensor.
    pub experts: usize,
    /// Output neurons of one matrix.
    pub out_features: usize,
    /// Input features of one matrix: the length of a comparison group, and of the column norms.
    pub in_features: usize,
    /// How each matrix lies.
    pub layout: Layout,
    /// A short label for tables: `q_proj`, `experts.w1`.
    pub kind: String,
}

/// What becomes of a tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Decision {
    /// It is pruned.
    Prune(Target),
    /// It would be pruned, but for its dtype. A run must not go on as if it were not there.
    Unsupported {
        /// The dtype; BF16, F16 and F32 can be pruned.
        dtype: StoredDtype,
        /// The label its target would have.
        kind: String,
    },
    /// It is copied as it is.
    Skip(Reason),
}

impl Decision {
    /// The target, of a tensor that is pruned.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Self::Prune(target) => Some(target),
            Self::Unsupported { .. } | Self::Skip(_) => None,
        }
    }
}
