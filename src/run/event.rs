//! What a run tells while it is under way.

use std::time::Duration;

use crate::{forward, prune};

/// A stage of a run, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Measuring the column norms.
    Calibrate,
    /// Pruning.
    Prune,
    /// Measuring the perplexity of the original.
    EvaluateBefore,
    /// Measuring the perplexity of the output.
    EvaluateAfter,
}

/// What a run tells while it is under way. Events of a stage come between its start and its end; those
/// of pruning come from several threads.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// A stage begins.
    Started(Stage),
    /// A stage has succeeded.
    Finished {
        /// Which one.
        stage: Stage,
        /// How long it took.
        elapsed: Duration,
    },
    /// A forward pass went on.
    Forward(forward::Progress),
    /// Pruning went on.
    Prune(prune::Event<'a>),
    /// Something that was found out after the plan was drafted and that a user should know.
    Warning(&'a str),
}
