//! What a run tells while it is under way.

use std::time::Duration;

use crate::{forward, prune};

/// A phase of a run, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// Measuring the column norms.
    Calibrate,
    /// Counting the scores of all weights, to share the sparsity out over the blocks.
    Allocate,
    /// Pruning.
    Prune,
    /// Holding the output against the original.
    Verify,
    /// Hashing the output.
    Checksum,
    /// Measuring the perplexity of the original.
    EvaluateBefore,
    /// Measuring the perplexity of the output.
    EvaluateAfter,
}

/// What a run tells while it is under way. Events of a phase come between its start and its end; those
/// of pruning come from several threads.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A phase begins.
    Started(Phase),
    /// A phase has succeeded.
    Finished {
        /// Which one.
        phase: Phase,
        /// How long it took.
        elapsed: Duration,
    },
    /// A forward pass went on.
    Forward(forward::Progress),
    /// So many more bytes were scored.
    Scored(u64),
    /// Pruning went on.
    Prune(prune::PruneEvent<'a>),
    /// So many more bytes were compared.
    Compared(u64),
    /// The device has failed: the CPU goes on in its place, or, where it was to run the model, starts again.
    DeviceFailed {
        /// The phase that was under way.
        phase: Phase,
        /// What happened and what was done about it, a sentence or two.
        what: &'a str,
    },
    /// Files of weights that an earlier run has finished are kept.
    Kept {
        /// How many.
        kept: usize,
        /// Of how many that this run is about.
        of: usize,
    },
    /// Something that was found out after the plan was drafted and that a user should know.
    Warning(&'a str),
}
