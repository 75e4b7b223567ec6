//! What a sweep tells while it is under way.

use std::time::Duration;

use crate::forward;
use crate::report::{Quality, SweepCell};

/// What a sweep tells while it is under way.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum SweepEvent<'a> {
    /// The dense model is run.
    Dense,
    /// What the dense model gives; at once where the state file had it.
    DenseMeasured(&'a Quality),
    /// The norms are measured.
    Calibrating,
    /// They are there.
    Calibrated {
        /// How long it took.
        elapsed: Duration,
    },
    /// A cell is begun.
    Started {
        /// Its place, from 0 on.
        index: usize,
        /// What it is, in a few words.
        what: &'a str,
    },
    /// A forward pass went on.
    Forward(forward::Progress),
    /// A cell is there.
    Measured {
        /// Its place, from 0 on.
        index: usize,
        /// What was measured.
        cell: &'a SweepCell,
        /// Whether the state file had it.
        was_known: bool,
        /// What the cells behind it will take, by those that were measured in this run.
        left: Option<Duration>,
    },
    /// The device has failed, and the CPU runs the model in its place.
    DeviceFailed(&'a str),
    /// Something that was found out after the cells were drafted.
    Warning(&'a str),
}
