//! Why parts of a run do not fit together, or cannot be kept.

use std::path::PathBuf;

use crate::checkpoint;
use crate::error::Kind;
use crate::untrusted::{ReadError, named, shown, shown_path};

/// Why parts of a run cannot be made, kept or merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file of weights, or the output.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// There are no parts.
    #[error(
        "there are no parts of {} in {}",
        shown_path(output),
        shown_path(directory)
    )]
    NoParts {
        /// The output.
        output: PathBuf,
        /// Where its parts would be.
        directory: PathBuf,
    },
    /// Norms for parts that were pruned without any.
    #[error(
        "the parts were pruned without norms, so {} has nothing to do with them",
        shown_path(norms)
    )]
    NormsUnused {
        /// The norms that were given.
        norms: PathBuf,
    },
    /// A directory is in the way.
    #[error(
        "{} is not a directory that holds parts of a run: it has no manifest/run.json, but other files",
        shown_path(directory)
    )]
    NotParts {
        /// The directory.
        directory: PathBuf,
    },
    /// A file of the manifest cannot be read.
    #[error("cannot read {}: {reason}", shown_path(path))]
    Manifest {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: ReadError,
    },
    /// A file of the manifest is not one.
    #[error("{} is damaged, or of another version: {reason}", shown_path(path))]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, as text that may be printed.
        reason: String,
    },
    /// Parts of a run with other options, another version of this program or other norms.
    #[error(
        "{} is of a run with other settings: {}",
        shown_path(path),
        differences.join("; ")
    )]
    OtherSettings {
        /// The file that says so.
        path: PathBuf,
        /// In what it differs, each as text that may be printed.
        differences: Vec<String>,
    },
    /// Parts that were made from another checkpoint.
    #[error("{}: it was made from another input: {what}", shown_path(path))]
    OtherInput {
        /// The file that says so.
        path: PathBuf,
        /// What differs, as text that may be printed.
        what: String,
    },
    /// More parts than shards.
    #[error(
        "the model has {shards} files of weights: it can be cut into {shards} parts at most, not {parts}"
    )]
    TooManyParts {
        /// The parts that were asked for.
        parts: usize,
        /// The files of weights.
        shards: usize,
    },
    /// A model that is one file of weights, without a directory of its own.
    #[error(
        "{} is a single file, which cannot be cut into parts",
        shown_path(path)
    )]
    SingleFile {
        /// The file.
        path: PathBuf,
    },
    /// The part has been made already.
    #[error("{} is finished already", shown_path(path))]
    Finished {
        /// A shard of the part.
        path: PathBuf,
    },
    /// Two directories have the same shard.
    #[error(
        "{} is in {} and in {}: leave one of them out",
        shown(file),
        shown_path(first),
        shown_path(second)
    )]
    Double {
        /// The shard.
        file: String,
        /// The first directory that has it.
        first: PathBuf,
        /// The second.
        second: PathBuf,
    },
    /// Not every shard is there.
    #[error(
        "{} of {shards} files of weights are missing in {}: {}",
        missing.len(),
        shown_path(directory),
        named(missing)
    )]
    Missing {
        /// Where they were looked for.
        directory: PathBuf,
        /// Their names.
        missing: Vec<String>,
        /// How many there should be.
        shards: usize,
    },
    /// A finished shard is not what its record says.
    #[error("{}: {problem}", shown_path(path))]
    Changed {
        /// The shard.
        path: PathBuf,
        /// What is wrong with it.
        problem: Problem,
    },
    /// The output is in place, and so are finished shards of it.
    #[error(
        "{} exists, and {} holds finished files of weights of it: a run was stopped after it had put them together, or another \
         run has written it",
        shown_path(output),
        shown_path(directory)
    )]
    OutputExists {
        /// The output.
        output: PathBuf,
        /// Where its parts are.
        directory: PathBuf,
    },
    /// The output was put together by a run that was killed while it removed the parts; there is nothing left to do.
    #[error(
        "{} is whole: an earlier run has put it together. It was killed while it removed {}, the rest of which is removed now",
        shown_path(output),
        shown_path(directory)
    )]
    Merged {
        /// The output.
        output: PathBuf,
        /// Where its parts were.
        directory: PathBuf,
    },
    /// It was asked to stop while files were hashed.
    #[error("stopped while files were hashed; nothing was changed")]
    Stopped,
}

impl Error {
    /// What the error means for whoever asked.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::TooManyParts { .. } | Self::SingleFile { .. } | Self::NormsUnused { .. } => {
                Kind::Usage
            }
            _ => Kind::Failed,
        }
    }
}

/// What is wrong with a finished shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The input has another length or another header than when the shard was made.
    #[error("the input's header or length is not the one that it was made from")]
    InputHeader,
    /// The input has other bytes than when the shard was made.
    #[error("the input's SHA-256 is not the one that it was made from")]
    InputBytes,
    /// The file of the shard is not there.
    #[error("it is recorded as finished, but the file is missing")]
    NoFile,
    /// The file of the shard has another length.
    #[error("its length is not the one that was written")]
    OutputLength,
    /// The file of the shard has other bytes.
    #[error("its SHA-256 is not the one of what was written")]
    OutputBytes,
    /// The weights of the input, all shards together, give its tensors other shares of the sparsity.
    #[error("its shares of the sparsity are not those that the weights of this input give")]
    Shares,
    /// The record is of other tensors.
    #[error("its record is of other tensors than the input has")]
    Tensors,
}
