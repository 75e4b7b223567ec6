//! Why a model cannot be run.

use std::path::PathBuf;

use crate::checkpoint;
use crate::untrusted::{shown, shown_path};

/// Why a model cannot be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no config.json beside the weights.
    #[error("there is no config.json beside {}", shown_path(_0))]
    NoConfig(PathBuf),
    /// The forward pass has no code for it: what it is, and which architectures are supported.
    #[error("{_0}")]
    Unsupported(String),
    /// A tensor that the decoder needs is in no file of weights.
    #[error(transparent)]
    Incomplete(#[from] checkpoint::Error),
    /// config.json cannot be right.
    #[error("config.json: {_0}")]
    Config(String),
    /// config.json and the tensors disagree.
    #[error("{}: tensor {} {problem}", shown_path(file), shown(tensor))]
    Tensor {
        /// The file of weights, or where it should have been.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no block of a number, and there are others of higher ones.
    #[error(
        "{}: the weights of block {} are missing, though there are blocks of higher numbers",
        shown_path(file),
        shown(block)
    )]
    BlockMissing {
        /// The file that lists the weights.
        file: PathBuf,
        /// The name of its stack and its number.
        block: String,
    },
}
