//! What is timed, and what a timer reports.

use std::time::Duration;

use crate::recipe::Step;

/// One thing that is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timed {
    /// A copy of the weights' bytes from memory to memory of the device: the yardstick.
    Copy,
    /// The sums of `|W|` over the columns.
    WeightSums,
    /// A pass by itself; what it reads was stored by the passes before it.
    Alone(Step),
    /// From weights to the mask as `prune` does it: on an adapter in one dispatch, on the CPU row by row.
    Mask,
}

/// How long some repetitions took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Elapsed {
    /// By the host's clock, from the first submission until the last is done.
    pub wall: Duration,
    /// By the device's own clock, where it has one.
    pub device: Option<Duration>,
}
