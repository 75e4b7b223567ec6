//! The decoder blocks that a plan prunes in.

use super::tensors::{Action, PlannedTensor};
use crate::names::grammar::{block, stack};
use crate::targets::Target;

/// The tensors of one decoder block that are pruned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedBlock {
    /// The name of its stack and its number, `model.layers.3`. It is a stranger's text: escape it before printing.
    pub name: String,
    /// Its tensors, as indices into [`Draft::tensors`](super::Draft::tensors).
    pub tensors: Vec<usize>,
    /// Weights of these tensors.
    pub weights: u64,
    /// The blocks it is one of, and which.
    pub(super) stack: String,
    pub(super) number: usize,
}

impl PlannedBlock {
    /// The sparsity that is asked of it; `None` where a fixed lambda decides.
    #[must_use]
    pub fn asked(&self, tensors: &[PlannedTensor]) -> Option<f64> {
        let mut zeros = 0.0;
        for &index in &self.tensors {
            let tensor = &tensors[index];
            zeros += tensor.asked()? * weights(tensor) as f64;
        }
        Some(zeros / self.weights.max(1) as f64)
    }
}

/// Weights of a tensor that is pruned.
pub(super) fn weights(tensor: &PlannedTensor) -> u64 {
    tensor.target().map_or(0, Target::weights)
}

/// The blocks of some tensors, stack by stack in the order of their names, and in a stack by number.
pub(super) fn blocks(tensors: &[PlannedTensor]) -> Vec<PlannedBlock> {
    let mut found = std::collections::BTreeMap::new();
    for (index, tensor) in tensors.iter().enumerate() {
        let Action::Prune { .. } = tensor.action else {
            continue;
        };
        let (Some(block), Some(stack)) = (block(&tensor.name), stack(&tensor.name)) else {
            continue;
        };
        // Numbers too long for a usize are no model's.
        let Ok(number) = block.number.parse::<usize>() else {
            continue;
        };
        let of_block = found
            .entry((stack, number))
            .or_insert_with(|| PlannedBlock {
                name: format!("{stack}.{}", block.number),
                tensors: Vec::new(),
                weights: 0,
                stack: stack.to_owned(),
                number,
            });
        of_block.tensors.push(index);
        of_block.weights += weights(tensor);
    }
    found.into_values().collect()
}
