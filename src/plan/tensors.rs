//! The rows of a plan: a tensor each, with what happens to it.

use std::ops::Deref;
use std::sync::Arc;

use crate::checkpoint::Tensor;
use crate::dtype::Dtype;
use crate::selection::Selection;
use crate::targets::{Reason, Target};

/// What happens to a tensor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// It is pruned.
    Prune {
        /// Its matrices and how they lie.
        target: Target,
        /// How its weights are stored.
        dtype: Dtype,
        /// How many of its weights go, and by which rule.
        selection: Selection,
    },
    /// Its bytes are copied.
    Copy(Reason),
}

/// One tensor of the plan, which reads as the [`Tensor`] of the file that it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedTensor {
    /// The shard that holds it.
    pub shard: usize,
    /// What happens to it.
    pub action: Action,
    pub(super) tensor: Arc<Tensor>,
}

impl Deref for PlannedTensor {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.tensor
    }
}

impl PlannedTensor {
    /// Elements of its shape, which are its weights if it is a matrix or a stack of them.
    #[must_use]
    pub fn elements(&self) -> u64 {
        self.shape.iter().map(|&side| side as u64).product()
    }

    /// Its matrices, if it is pruned.
    #[must_use]
    pub const fn target(&self) -> Option<&Target> {
        match &self.action {
            Action::Prune { target, .. } => Some(target),
            Action::Copy(_) => None,
        }
    }

    /// The sparsity that is asked of it: 0 for a copied tensor, `None` where a fixed lambda decides.
    #[must_use]
    pub fn asked(&self) -> Option<f64> {
        match &self.action {
            Action::Prune {
                target, selection, ..
            } => selection.target(target.in_features),
            Action::Copy(_) => Some(0.0),
        }
    }
}
