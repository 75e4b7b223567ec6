//! How much of each tensor goes: the request for the whole model, shared out over its decoder blocks.
//!
//! A [rule](Allocation) gives every block a sparsity (`sparsities.rs`), from what the scores of its weights show
//! (`block_scores.rs`) or from its place alone; whole weights a row are made of them so that the total stays what was asked for
//! (`rounding.rs`). Each stack of blocks is shared out by itself, and tensors outside of blocks get what was asked for.

mod block_scores;
mod rounding;
mod rule;
mod sparsities;

pub(crate) use block_scores::ScoreCounts;
pub use block_scores::{BlockScores, OUTLIER};
pub use rule::Allocation;

use super::blocks::{PlannedBlock, weights};
use super::error::Error;
use super::tensors::{Action, PlannedTensor};
use crate::selection::Selection;
use rounding::{Share, settle};
use sparsities::{Signal, sparsities};

/// Checks that the request is one, and that the rule fits it.
pub(super) fn check(selection: Selection, allocation: &Allocation) -> Result<(), Error> {
    check_range(&selection)?;
    let out_of_range = |what, value, range| Err(Error::OutOfRange { what, value, range });
    match allocation.spread() {
        Some(spread) if !(0.0..=0.5).contains(&spread) => {
            return out_of_range("spread", spread, "between 0 and 0.5");
        }
        _ => {}
    }
    if let Allocation::Given { sparsities: table } = allocation
        && let Some(&wrong) = table.values().find(|p| !(0.0..=1.0).contains(*p))
    {
        return out_of_range("sparsity", wrong, "between 0 and 1");
    }
    match (allocation, with_sparsity(selection, 0.0)) {
        (Allocation::Uniform, _) | (_, Some(_)) => Ok(()),
        (_, None) => Err(Error::NothingToAllocate {
            allocation: allocation.name(),
            selection: match selection {
                Selection::Pattern(_) => "an N:M pattern",
                _ => "a fixed lambda",
            },
        }),
    }
}

fn check_range(selection: &Selection) -> Result<(), Error> {
    match *selection {
        Selection::Ewma { sparsity, .. } | Selection::Exact { sparsity }
            if !(0.0..=1.0).contains(&sparsity) =>
        {
            Err(Error::OutOfRange {
                what: "sparsity",
                value: sparsity,
                range: "between 0 and 1",
            })
        }
        Selection::Lambda { lambda, .. } if !(lambda > -16.0 && lambda < 16.0) => {
            Err(Error::OutOfRange {
                what: "lambda",
                value: lambda,
                range: "between -16 and 16",
            })
        }
        _ => Ok(()),
    }
}

/// The same rule for another fraction of each row; `None` for a rule that has none.
fn with_sparsity(selection: Selection, sparsity: f64) -> Option<Selection> {
    match selection {
        Selection::Ewma { ewma, .. } => Some(Selection::Ewma { sparsity, ewma }),
        Selection::Exact { .. } => Some(Selection::Exact { sparsity }),
        Selection::Lambda { .. } | Selection::Pattern(_) => None,
    }
}

/// Gives each tensor its own selection, where all of them have the one that was asked for. `scores` are those of the blocks,
/// for a rule that needs them. Returns the spread that was taken where it is less than was asked for.
pub(super) fn allocate(
    allocation: &Allocation,
    tensors: &mut [PlannedTensor],
    blocks: &[PlannedBlock],
    scores: &[BlockScores],
) -> Result<Option<f64>, Error> {
    if let Allocation::Given { sparsities: table } = allocation {
        for tensor in tensors {
            let name = tensor.name.clone();
            if let Action::Prune { selection, .. } = &mut tensor.action {
                let own = table.get(&name).and_then(|&p| with_sparsity(*selection, p));
                let missing = || Error::NotGiven {
                    tensor: name.clone(),
                };
                *selection = own.ok_or_else(missing)?;
            }
        }
        return Ok(None);
    }
    let Some(spread) = allocation.spread() else {
        return Ok(None);
    };
    let mut least = spread;
    let mut rest = blocks;
    while let Some(first) = rest.first() {
        let others = rest.iter().position(|block| block.stack != first.stack);
        let (stack, behind) = rest.split_at(others.unwrap_or(rest.len()));
        let signals: Vec<Signal> = (blocks.len() - rest.len()..)
            .zip(stack)
            .map(|(index, block)| Signal {
                weights: block.weights,
                value: signal(allocation, block, scores.get(index)),
            })
            .collect();
        least = least.min(share_out(tensors, stack, &signals, spread));
        rest = behind;
    }
    Ok((least < spread).then_some(least))
}

/// What a rule goes by.
fn signal(
    allocation: &Allocation,
    block: &PlannedBlock,
    scores: Option<&BlockScores>,
) -> Option<f64> {
    let scores = scores.filter(|scores| scores.weights > 0);
    match allocation {
        Allocation::Owl { .. } => Some(-scores?.outliers),
        Allocation::Dlp { .. } => Some(scores?.median),
        Allocation::Atp { .. } => Some(block.number as f64),
        Allocation::Uniform | Allocation::Given { .. } => None,
    }
}

/// Shares out over the blocks of one stack what its tensors ask for; returns the spread that was taken.
fn share_out(
    tensors: &mut [PlannedTensor],
    stack: &[PlannedBlock],
    signals: &[Signal],
    spread: f64,
) -> f64 {
    let of_stack = || stack.iter().flat_map(|block| block.tensors.iter().copied());
    // As many as the same share of every tensor makes, rounded row by row.
    let total: u64 = of_stack().map(|index| zeros(&tensors[index])).sum();
    let all: u64 = of_stack().map(|index| weights(&tensors[index])).sum();
    let mean = total as f64 / all.max(1) as f64;
    let (sparsities, taken) = sparsities(signals, mean, spread);
    let mut shares = Vec::new();
    for (block, sparsity) in stack.iter().zip(sparsities) {
        // Among equals the first gets one more: the first by name, whichever file it is in, and wherever in it.
        let mut by_name = block.tensors.clone();
        by_name.sort_by(|&a, &b| tensors[a].name.cmp(&tensors[b].name));
        for index in by_name {
            let target = tensors[index].target();
            let (rows, in_features) =
                target.map_or((0, 0), |target| (target.rows(), target.in_features));
            let asked = sparsity * in_features as f64;
            shares.push((
                index,
                Share {
                    rows,
                    in_features,
                    asked,
                },
            ));
        }
    }
    let settled = settle(
        &shares.iter().map(|(_, share)| *share).collect::<Vec<_>>(),
        total,
    );
    for ((index, share), per_row) in shares.into_iter().zip(settled) {
        if let Action::Prune { selection, .. } = &mut tensors[index].action
            && let Some(own) =
                with_sparsity(*selection, per_row as f64 / share.in_features.max(1) as f64)
        {
            *selection = own;
        }
    }
    taken
}

/// Weights that go of a tensor.
fn zeros(tensor: &PlannedTensor) -> u64 {
    match &tensor.action {
        Action::Prune {
            target, selection, ..
        } => target.rows() * selection.k(target.in_features).unwrap_or(0) as u64,
        Action::Copy(_) => 0,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::options::{NormsSource, Options};
    use super::super::{Draft, PlannedTensor};
    use super::*;
    use crate::checkpoint::{Checkpoint, Header, TensorSpec};
    use crate::dtype::StoredDtype;

    /// What is asked of every tensor of a small model whose file has its tensors in this order.
    fn asked(order: impl Fn(&mut Vec<(String, Vec<usize>)>)) -> BTreeMap<String, Option<f64>> {
        let names = [
            "self_attn.q",
            "self_attn.k",
            "self_attn.v",
            "self_attn.o",
            "mlp.gate",
            "mlp.up",
        ];
        let mut tensors = Vec::new();
        // Blocks of several sizes: else the last weights would go to whole blocks.
        for block in 0..3 {
            for name in &names[..4 + block] {
                let name = format!("model.layers.{block}.{name}_proj.weight");
                tensors.push((name, vec![24, 24]));
            }
        }
        order(&mut tensors);
        let specs: Vec<TensorSpec> = (tensors.iter())
            .map(|(name, shape)| TensorSpec::new(name, StoredDtype::Bf16, shape.clone()))
            .collect();
        let header = Header::new(&specs, &BTreeMap::new()).unwrap();
        let checkpoint = Checkpoint::of_header("model.safetensors", header, None).unwrap();
        let mut options = Options::new(Selection::Exact { sparsity: 0.55 });
        options.score = crate::scores::Score::by_name("magnitude");
        options.allocation = Allocation::Atp { spread: 0.13 };
        let draft = Draft::new(checkpoint, options, NormsSource::None).unwrap();
        let of = |tensor: &PlannedTensor| (tensor.name.clone(), tensor.asked());
        draft.tensors().iter().map(of).collect()
    }

    #[test]
    fn shares_do_not_depend_on_the_order_of_the_tensors_in_their_file() {
        let sorted = asked(|tensors| tensors.sort());
        // In the middle, some tensors got one more and some of their equals did not.
        let middle = || sorted.iter().filter(|(name, _)| name.contains(".1."));
        assert!(middle().any(|(_, p)| Some(p) != middle().next().map(|(_, p)| p)));
        assert_eq!(asked(|tensors| tensors.reverse()), sorted);
        assert_eq!(asked(|tensors| tensors.rotate_left(7)), sorted);
        assert_eq!(
            asked(|tensors| tensors.sort_by_key(|(name, _)| name.chars().rev().collect::<String>())),
            sorted
        );
    }
}
