//! Why a run was given up.

use std::ops::Range;

use crate::checkpoint;
use crate::error::Kind;
use crate::untrusted::{shown, shown_path};
#[cfg(feature = "native")]
use crate::workers::Panicked;
use crate::{device, plan};

/// Why a run was given up; the output did not appear.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or writing failed.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The device failed while the work was estimated; in the middle of a run, the CPU goes on.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The norms do not fit the plan.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// What is pruned from a stream to a stream could not be read or written, or not in this way.
    #[error("{0}")]
    Stream(
        /// What is wrong, fit for a terminal.
        String,
    ),
    /// The run was asked to stop.
    #[error("stopped after {pruned} of {tensors} tensors; nothing was written")]
    Stopped {
        /// Tensors that were pruned.
        pruned: usize,
        /// Tensors that were to be pruned.
        tensors: usize,
    },
    /// The rows of a matrix could not be multiplied.
    #[error("the weights that stay could not be compensated: {0}")]
    Compensating(
        /// What the library for products says.
        String,
    ),
    /// A thread panicked, which is a bug.
    #[error("a thread panicked: {0}; this is a bug, please report it")]
    Panicked(
        /// What it said.
        String,
    ),
    /// A target holds NaN or infinity.
    #[error(
        "{}: tensor {} contains NaN or infinity ({count} in rows {}..{}). The checkpoint is damaged, or was saved after \
         training diverged",
        shown_path(file), shown(tensor), rows.start, rows.end
    )]
    NonFinite {
        /// The file.
        file: std::path::PathBuf,
        /// The tensor.
        tensor: String,
        /// How many in these rows.
        count: u64,
        /// Where they were found first.
        rows: Range<usize>,
    },
    /// The device pruned fewer weights than were asked for: a driver that loses work without saying so.
    #[error(
        "tensor {}: the device returned {got} zeros, but at least {asked} were requested. Its results cannot be trusted; use \
         the CPU",
        shown(tensor)
    )]
    TooFewZeros {
        /// The tensor.
        tensor: String,
        /// Zeros that were asked for.
        asked: u64,
        /// Zeros there are.
        got: u64,
    },
}

#[cfg(feature = "native")]
impl From<Panicked> for Error {
    fn from(Panicked(message): Panicked) -> Self {
        Self::Panicked(message)
    }
}

impl Error {
    /// What a stream said when a tensor was read from it.
    pub(super) fn reading_stream(file: &std::path::Path, tensor: &str, reason: String) -> Self {
        let (file, tensor) = (shown_path(file), shown(tensor));
        Self::Stream(format!("cannot read tensor {tensor} of {file}: {reason}"))
    }

    /// What the error means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::TooFewZeros { .. } => Kind::NotMet,
            Self::Plan(error) => error.kind(),
            _ => Kind::Failed,
        }
    }
}
