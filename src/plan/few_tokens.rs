//! Experts that saw few tokens: the mean of their layer stands in for norms that would be chance.
//!
//! A norm is a sum of squares over the tokens that were routed to an expert. Over `t` tokens it is off by about `sqrt(2 /
//! t)` of itself, more where activations have heavy tails: a quarter at 32 tokens, and an eighth once the score takes its
//! root, where the scores of a row spread over orders of magnitude. Below that the layer's mean, which all of its experts'
//! tokens went into, is the better guess: what makes a column of the residual stream large makes it large for most tokens.

use std::collections::{BTreeSet, HashMap};

use super::error::Error;
use super::tensors::PlannedTensor;
use crate::names::grammar::block;
use crate::names::rules::{Input, known};
use crate::norms::{Lookup, Norms};
use crate::targets::Target;

/// An expert that saw fewer tokens than these gets its layer's mean.
pub const FEW_TOKENS: u64 = 32;

/// An input that a block's experts each see a part of: what the block's names begin with, and which.
type SharedInput<'a> = (&'a str, Input);

/// What all experts of a layer saw together.
#[derive(Debug, Default)]
struct Sum {
    squares: Vec<f64>,
    tokens: u64,
}

/// What stands in for the norms of experts that saw few tokens.
#[derive(Debug, Default)]
pub(super) struct StandIns {
    /// By the weight and the expert.
    norms: HashMap<(String, usize), Vec<f32>>,
    /// Experts that saw few, and experts there are.
    pub(super) few: usize,
    pub(super) all: usize,
}

impl StandIns {
    /// Those that these norms need for these tensors; of squares about the mean, each expert's own, if these are wanted.
    pub(super) fn of<'t>(
        norms: &Norms,
        pruned: impl Iterator<Item = (&'t PlannedTensor, &'t Target)> + Clone,
        about_mean: bool,
    ) -> Result<Self, Error> {
        let mut sums: HashMap<SharedInput<'t>, Sum> = HashMap::new();
        let (mut few, mut all) = (BTreeSet::new(), BTreeSet::new());
        let mut missing = Vec::new();
        for (tensor, target) in pruned {
            let Some((input, counted)) = shared_input(&tensor.name) else {
                continue;
            };
            for expert in 0..target.experts {
                let of_several = (target.experts > 1).then_some(expert);
                let own = norms.get(&tensor.name, of_several, target.in_features)?;
                let tokens = norms.tokens(&tensor.name, of_several);
                let number = (input.0, counted.unwrap_or(expert));
                all.insert(number);
                if own == Lookup::Unseen || tokens.is_some_and(|tokens| tokens < FEW_TOKENS) {
                    few.insert(number);
                    missing.push((input, tensor, expert, tokens));
                }
                if let Lookup::Measured(own) = own {
                    let own = if about_mean {
                        norms.about_mean(&tensor.name, of_several, target.in_features)?
                    } else {
                        Some(own.to_vec())
                    };
                    let own = own.unwrap_or_default();
                    let sum = sums.entry(input).or_default();
                    sum.squares.resize(own.len(), 0.0);
                    let squares = sum.squares.iter_mut().zip(own);
                    squares.for_each(|(sum, norm)| *sum += f64::from(norm));
                    sum.tokens += tokens.unwrap_or(1);
                }
            }
        }
        let mut stand_ins = HashMap::new();
        for (input, tensor, expert, tokens) in missing {
            let Some(sum) = sums.get(&input) else {
                // Nothing reached the whole layer.
                continue;
            };
            // As if these tokens had been like the layer's; a score takes no notice of the scale.
            let scale = tokens.unwrap_or(1).max(1) as f64 / sum.tokens.max(1) as f64;
            let mean = sum.squares.iter().map(|&square| (square * scale) as f32);
            stand_ins.insert((tensor.name.clone(), expert), mean.collect());
        }
        Ok(Self {
            norms: stand_ins,
            few: few.len(),
            all: all.len(),
        })
    }

    /// What stands in for the norms of one matrix, where they are of few tokens.
    pub(super) fn get(&self, tensor: &str, expert: usize) -> Option<&[f32]> {
        if self.norms.is_empty() {
            return None;
        }
        let norms = self.norms.get(&(tensor.to_owned(), expert));
        norms.map(Vec::as_slice)
    }
}

/// The input of a weight of experts, and the expert if its name counts them.
fn shared_input(name: &str) -> Option<(SharedInput<'_>, Option<usize>)> {
    let known = known(name)?;
    let input = known.rule.input;
    let tail = block(name)?.tail;
    let of_block = &name[..name.len() - tail.len()];
    matches!(input, Input::Experts | Input::ExpertsDown)
        .then_some(((of_block, input), known.expert))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use std::sync::Arc;

    use super::*;
    use crate::checkpoint::Tensor;
    use crate::dtype::{Dtype, StoredDtype};
    use crate::norms::Provenance;
    use crate::plan::tensors::Action;
    use crate::selection::Selection;
    use crate::targets::Layout;

    fn tensor(name: &str, experts: usize) -> PlannedTensor {
        let target = Target {
            experts,
            out_features: 4,
            in_features: 2,
            layout: Layout::OutIn,
            kind: "w".to_owned(),
        };
        PlannedTensor {
            shard: 0,
            tensor: Arc::new(Tensor {
                name: name.to_owned(),
                dtype: StoredDtype::Bf16,
                shape: vec![4, 2],
                offset: 0,
                len: 16,
            }),
            action: Action::Prune {
                target,
                dtype: Dtype::Bf16,
                selection: Selection::Exact { sparsity: 0.5 },
            },
        }
    }

    fn stand_ins(norms: &Norms, tensors: &[PlannedTensor]) -> StandIns {
        let pruned = tensors.iter().map(|t| (t, t.target().unwrap()));
        StandIns::of(norms, pruned, false).unwrap()
    }

    #[test]
    fn an_expert_that_saw_few_tokens_gets_the_mean_of_its_layer() {
        let name = |block: usize, expert: usize| {
            format!("model.layers.{block}.mlp.experts.{expert}.up_proj.weight")
        };
        let mut norms = Norms::new(Provenance::measured(PathBuf::new(), None));
        for (expert, row, tokens) in [(0, [60.0, 4.0], 70), (1, [10.0, 6.0], 30), (2, [0.0; 2], 0)]
        {
            norms
                .insert_experts(name(0, expert), row.to_vec(), vec![tokens])
                .unwrap();
        }
        norms
            .insert_experts(name(1, 0), vec![0.0; 2], vec![0])
            .unwrap();
        let dense = "model.layers.1.self_attn.o_proj.weight";
        norms.insert(dense, vec![0.0; 2]).unwrap();
        let mut tensors: Vec<_> = (0..3).map(|expert| tensor(&name(0, expert), 1)).collect();
        tensors.push(tensor(&name(1, 0), 1));
        tensors.push(tensor(dense, 1));
        let found = stand_ins(&norms, &tensors);
        assert_eq!((found.few, found.all), (3, 4));
        assert_eq!(found.get(&name(0, 0), 0), None);
        assert_eq!(found.get(&name(0, 1), 0), Some(&[21.0, 3.0][..]));
        assert_eq!(found.get(&name(0, 2), 0), Some(&[0.7, 0.1][..]));
        assert_eq!(
            found.get(&name(1, 0), 0),
            None,
            "nothing reached this layer"
        );
        assert_eq!(found.get(dense, 0), None, "it is no expert");
    }

    #[test]
    fn the_mean_of_a_layer_about_the_mean_is_that_of_each_expert_about_its_own() {
        let name = |expert| format!("model.layers.0.mlp.experts.{expert}.up_proj.weight");
        let mut norms = Norms::new(Provenance::measured(PathBuf::new(), None));
        for (expert, row, tokens) in [(0, [60.0, 4.0], 70), (1, [10.0, 6.0], 30)] {
            norms
                .insert_experts(name(expert), row.to_vec(), vec![tokens])
                .unwrap();
            norms.insert_means(&name(expert), vec![0.5, 0.0]).unwrap();
        }
        let tensors = [0, 1].map(|expert| tensor(&name(expert), 1));
        let pruned = tensors.iter().map(|t| (t, t.target().unwrap()));
        let found = StandIns::of(&norms, pruned, true).unwrap();
        assert_eq!(found.get(&name(1), 0), Some(&[13.5, 3.0][..]));
    }

    #[test]
    fn experts_in_one_tensor_are_told_apart_and_counted_once() {
        let [up, down] = ["gate_up_proj", "down_proj"]
            .map(|layer| format!("model.layers.0.mlp.experts.{layer}"));
        let mut norms = Norms::new(Provenance::measured(PathBuf::new(), None));
        for name in [&up, &down] {
            let rows = vec![8.0, 80.0, 2.0, 1.0];
            norms
                .insert_experts(name.clone(), rows, vec![40, 10])
                .unwrap();
        }
        let found = stand_ins(&norms, &[tensor(&up, 2), tensor(&down, 2)]);
        assert_eq!((found.few, found.all), (1, 2));
        assert_eq!(found.get(&up, 0), None);
        assert_eq!(found.get(&down, 1), Some(&[2.0, 16.2][..]));
    }
}
