//! Which tensors of a checkpoint are pruned, which way they lie, and why the others are not.
//!
//! Every tensor gets a [`Decision`], and every decision against it a [`Reason`] with a sentence: a tool that leaves half a
//! model alone without a word is worse than one that fails. The default set is the linear weights inside the numbered
//! decoder blocks, known by the table in `src/names`; a name nobody knows is left alone and says so
//! ([`Reason::UnknownName`]).
//!
//! Wishes come as globs over whole tensor names. *Include* globs replace the default set: what matches is pruned if it is
//! a float matrix, embeddings and vision towers too. *Exclude* globs take away. Neither makes a weight out of a norm, a
//! bias or a piece of a quantised tensor.
//!
//! A tensor that would be pruned but for its dtype is [`Decision::Unsupported`], not skipped: the caller refuses the run,
//! as half of it would be missing.

mod axis;
mod decision;
mod filter;
mod model;
mod reason;

pub use decision::{Decision, Target, Tensor};
pub use filter::{Error, GlobUse, NameFilter};
pub use model::Model;
pub use reason::Reason;

pub use crate::names::rules::Layout;

use crate::dtype::Dtype;
use crate::names::grammar::kind;
use crate::names::rules::{Stored, known};
use filter::Glob;

/// The decisions over a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Decisions {
    /// One per tensor, in the order given.
    pub decisions: Vec<Decision>,
    /// The include globs, in the order given.
    pub include: Vec<GlobUse>,
    /// The exclude globs, in the order given.
    pub exclude: Vec<GlobUse>,
}

/// Decides over all tensors of a checkpoint (over all its files at once: they are each other's witnesses).
#[must_use]
pub fn decide(tensors: &[Tensor<'_>], model: &Model, filter: &NameFilter) -> Decisions {
    let mut witnesses = axis::Witnesses::default();
    for tensor in tensors {
        if let Some(known) = known(tensor.name) {
            witnesses.hear(known.rule.stored, tensor.shape, model);
        }
    }
    let decisions: Vec<_> = tensors
        .iter()
        .map(|t| decide_one(t, model, filter, &witnesses))
        .collect();
    let uses = |patterns: &[Glob]| {
        let count = |pattern: &Glob| {
            let matched = tensors
                .iter()
                .zip(&decisions)
                .filter(|(t, _)| pattern.matches(t.name));
            let (mut all, mut pruned) = (0, 0);
            for (_, decision) in matched {
                all += 1;
                pruned += usize::from(decision.target().is_some());
            }
            GlobUse {
                glob: pattern.glob.clone(),
                matched: all,
                pruned,
            }
        };
        patterns.iter().map(count).collect()
    };
    let (include, exclude) = (uses(&filter.include), uses(&filter.exclude));
    Decisions {
        decisions,
        include,
        exclude,
    }
}

/// Decides over one tensor alone. [`decide`] knows more: it may settle by its neighbours what is [`Reason::AxisUnknown`] here.
#[cfg(test)]
fn classify(tensor: &Tensor<'_>, model: &Model, filter: &NameFilter) -> Decision {
    decide_one(tensor, model, filter, &axis::Witnesses::default())
}

fn decide_one(
    tensor: &Tensor<'_>,
    model: &Model,
    filter: &NameFilter,
    witnesses: &axis::Witnesses,
) -> Decision {
    let Tensor { name, dtype, shape } = *tensor;
    if let Some(reason) = reason::never(name) {
        return Decision::Skip(reason);
    }
    let rule = known(name).map(|known| known.rule);
    if filter.include.is_empty() {
        if let Some(reason) = reason::unless_asked(name) {
            return Decision::Skip(reason);
        }
        if rule.is_none() && shape.len() == 2 {
            return Decision::Skip(Reason::UnknownName);
        }
    } else if !filter.include.iter().any(|p| p.matches(name)) {
        return Decision::Skip(Reason::NotIncluded);
    }
    let stored = rule.map_or(Stored::Linear, |rule| rule.stored);
    let (experts, first, last) = match (stored, shape) {
        (Stored::Linear | Stored::MaybeConv1d(_), &[first, last]) => (1, first, last),
        (Stored::FusedExperts(_), &[experts, first, last]) => (experts, first, last),
        _ => return Decision::Skip(Reason::NotAMatrix),
    };
    if shape.contains(&0) {
        return Decision::Skip(Reason::NotAMatrix);
    }
    // Only now: an excluded tensor is one that would have been pruned, and one of a strange dtype may be excluded.
    if let Some(pattern) = filter.exclude.iter().find(|p| p.matches(name)) {
        return Decision::Skip(Reason::Excluded {
            glob: pattern.glob.clone(),
        });
    }
    let kind = kind(name);
    if Dtype::from_stored(dtype).is_none() {
        return Decision::Unsupported { dtype, kind };
    }
    let Some(layout) = axis::layout(stored, shape, model, witnesses) else {
        return Decision::Skip(Reason::AxisUnknown);
    };
    let (out_features, in_features) = match layout {
        Layout::OutIn => (first, last),
        Layout::InOut => (last, first),
    };
    Decision::Prune(Target {
        experts,
        out_features,
        in_features,
        layout,
        kind,
    })
}

#[cfg(test)]
mod tests;
