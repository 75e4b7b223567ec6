//! What can be wrong with an output that is verified.

use std::path::PathBuf;

use crate::checkpoint::{self, CompanionDifferences};
use crate::error::Kind;
use crate::untrusted::{shown, shown_path};
use crate::workers::Panicked;

/// Why an output could not be verified.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// One of the files cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The output cannot be opened as the original was: a header or its index is damaged, a file has no place in it.
    #[error(transparent)]
    Damaged(checkpoint::Error),
    /// A thread panicked, which is a bug.
    #[error("a thread panicked: {0}; this is a bug, please report it")]
    Panicked(
        /// What it said.
        String,
    ),
    /// It was asked to stop before all was compared.
    #[error("stopped before all was compared")]
    Stopped,
    /// The output is not what pruning the original gives.
    #[error("{}: {fault}", shown_path(file))]
    Fault {
        /// The output's file.
        file: PathBuf,
        /// What is wrong.
        fault: Fault,
    },
}

impl From<Panicked> for VerifyError {
    fn from(Panicked(message): Panicked) -> Self {
        Self::Panicked(message)
    }
}

impl VerifyError {
    /// Why an output cannot be opened: a damaged one is not what pruning gives, and any other cannot be judged.
    #[must_use]
    pub const fn of_output(error: checkpoint::Error) -> Self {
        match error {
            checkpoint::Error::Io { .. }
            | checkpoint::Error::NoSuchModel { .. }
            | checkpoint::Error::BrokenCache { .. }
            | checkpoint::Error::NotACheckpoint { .. } => Self::Checkpoint(error),
            _ => Self::Damaged(error),
        }
    }

    /// What the error means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Fault { .. } | Self::Damaged(_) => Kind::NotMet,
            Self::Checkpoint(_) | Self::Panicked(_) | Self::Stopped => Kind::Failed,
        }
    }
}

/// What is wrong with an output.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The two have other files of weights.
    #[error("the original has {original} files of weights, the output {output}")]
    Shards {
        /// Files of the original.
        original: usize,
        /// Files of the output.
        output: usize,
    },
    /// A file of weights is called otherwise.
    #[error("the original's file is called {}", shown(original))]
    ShardName {
        /// The name in the original.
        original: String,
    },
    /// The headers differ.
    #[error("its header differs from the original's at byte {byte}")]
    Header {
        /// The first byte that differs, from the start of the file.
        byte: usize,
    },
    /// The files have different lengths.
    #[error("it has {output} bytes, the original {original}")]
    Length {
        /// Bytes of the original.
        original: u64,
        /// Bytes of the output.
        output: u64,
    },
    /// The files beside the weights are not those that pruning leaves.
    #[error("the files beside the weights are not those of the original; {_0}")]
    Companions(CompanionDifferences),
    /// A report says something that does not hold.
    #[error("the report is not true: {_0}")]
    Report(String),
    /// A file of that name stands where the report would, and is none.
    #[error("it stands where the report of the run would, and is none: {_0}")]
    NoReport(String),
    /// A weight that is not finite was changed: those are never pruned.
    #[error(
        "tensor {}, row {row}, column {column}: a NaN or infinity, which is never pruned, was changed",
        shown(tensor)
    )]
    NonFinite {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A tensor that is not pruned has other bytes.
    #[error(
        "tensor {} is not pruned, but differs at byte {byte} of the file",
        shown(tensor)
    )]
    Copied {
        /// The tensor.
        tensor: String,
        /// The first byte that differs, from the start of the file.
        byte: u64,
    },
    /// A weight is neither what it was nor +0.0.
    #[error(
        "tensor {}, row {row}, column {column}: a weight that is not zero was changed",
        shown(tensor)
    )]
    Survivor {
        /// The tensor.
        tensor: String,
        /// Its row: the output neuron, counted over all experts.
        row: usize,
        /// Its column: the input feature.
        column: usize,
    },
    /// A weight was set to -0.0.
    #[error(
        "tensor {}, row {row}, column {column}: a pruned weight is -0.0, not +0.0",
        shown(tensor)
    )]
    NegativeZero {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// Its column.
        column: usize,
    },
    /// A row has another number of zeros than was asked for.
    #[error(
        "tensor {}, row {row}: {zeros} zeros where {asked} were asked for",
        shown(tensor)
    )]
    Row {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// The zeros that it should have.
        asked: usize,
        /// The zeros that it has.
        zeros: usize,
    },
    /// A group of N:M has another number of zeros than was asked for.
    #[error(
        "tensor {}, row {row}, columns from {column}: a group with {zeros} zeros where {asked} were asked for",
        shown(tensor)
    )]
    Group {
        /// The tensor.
        tensor: String,
        /// Its row.
        row: usize,
        /// The group's first column.
        column: usize,
        /// The zeros that it should have.
        asked: usize,
        /// The zeros that it has.
        zeros: usize,
    },
}
