//! Which tensors of a checkpoint are pruned, how they are stored, and why the others are not pruned.
//!
//! Every tensor gets a [`Decision`], and every tensor that is not pruned gets a [`Reason`], which is shown: a tool that
//! silently leaves half of a model alone is worse than one that fails. The default set is the linear weights inside the
//! numbered decoder blocks, known by the table in `src/names`; a tensor whose name is not in it is left alone
//! ([`Reason::UnknownName`]).
//!
//! Users choose by globs over whole tensor names. *Include* globs replace the default set: what matches is pruned if it
//! is a float matrix, embeddings and vision towers too. *Exclude* globs take away. Norms, biases and pieces of
//! quantised tensors are never pruned, whatever the globs say.
//!
//! A tensor that cannot be pruned only because of its dtype is [`Decision::Unsupported`], not skipped: the caller
//! refuses the run, because part of what was asked for would be missing.

mod axis;
mod decision;
mod filter;
mod model;
mod reason;

pub use decision::{Decision, Target, Tensor};
pub(crate) use filter::escaped;
pub use filter::{Error, GlobUse, NameFilter};
pub use model::Model;
pub use reason::Reason;

pub use crate::names::rules::Layout;

use crate::dtype::Dtype;
use crate::names::grammar::kind;
use crate::names::rules::{Stored, known};
use filter::Glob;

/// What is decided for a checkpoint.
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

/// Decides for all tensors of a checkpoint, over all its files at once: one tensor's shape can tell how another is stored.
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
            let (mut all, mut pruned, mut excluded) = (0, 0, 0);
            for (_, decision) in matched {
                all += 1;
                pruned += usize::from(decision.target().is_some());
                let is_excluded = matches!(decision, Decision::Skip(Reason::Excluded { .. }));
                excluded += usize::from(is_excluded);
            }
            GlobUse {
                glob: pattern.glob.clone(),
                matched: all,
                pruned,
                excluded,
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

/// Decides for one tensor alone; [`decide`] may know the axes from other tensors.
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
    if filter.is_default() {
        if let Some(reason) = reason::unless_asked(name, model) {
            return Decision::Skip(reason);
        }
        if rule.is_none() && shape.len() == 2 {
            return Decision::Skip(Reason::UnknownName);
        }
    } else if !filter.includes(name) {
        return Decision::Skip(Reason::NotIncluded);
    }
    let stored = rule.map_or(Stored::Linear, |rule| rule.stored);
    let (experts, first, last) = match (stored, shape) {
        (Stored::Linear | Stored::MaybeConv1d(_), &[first, last]) => (1, first, last),
        (Stored::FusedExperts(_), &[experts, first, last]) => (experts, first, last),
        (Stored::StackedExperts(_), &[rows, last]) => match model.experts {
            Some(experts) if rows.is_multiple_of(experts.get()) => {
                (experts.get(), rows / experts, last)
            }
            _ => return Decision::Skip(Reason::ExpertsUnknown),
        },
        _ => return Decision::Skip(Reason::NotAMatrix),
    };
    if shape.contains(&0) {
        return Decision::Skip(Reason::NotAMatrix);
    }
    // Only now, so that an excluded tensor is one that would be pruned otherwise; before the dtype, so that a tensor of an
    // unsupported dtype can be excluded.
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
