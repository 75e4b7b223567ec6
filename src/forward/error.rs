//! Why a forward pass failed.

use std::path::PathBuf;

use crate::checkpoint;
use crate::device;
use crate::products;
use crate::untrusted::{shown, shown_path};

/// Why a forward pass failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Whoever watched it did not let it go on.
    #[error("stopped")]
    Stopped,
    /// A file could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The tokenizer and the model are of different sizes.
    #[error(
        "token {token} is outside the embedding of {vocab_size} rows: tokenizer.json belongs to another model than the weights"
    )]
    TokenOutOfRange {
        /// The token.
        token: u32,
        /// Rows of the embedding.
        vocab_size: usize,
    },
    /// The model has learned where only so many tokens stand.
    #[error(
        "a window of {tokens} tokens is longer than the {positions} positions that the model knows"
    )]
    NoPosition {
        /// Tokens of the window.
        tokens: usize,
        /// Rows of the embedding of positions.
        positions: usize,
    },
    /// A window is longer than the model's rotary embedding is known for.
    #[error(
        "a window of {tokens} tokens is too long: the rotary embedding scales dynamically beyond {longest}, which is not supported; shorter ones would fit"
    )]
    TooLong {
        /// Tokens of the window.
        tokens: usize,
        /// The most there may be.
        longest: usize,
    },
    /// Block by block on pruned weights, the hidden states of all windows are in memory at once.
    #[error(
        "{tokens} tokens are too many to calibrate block by block on pruned weights: their hidden states take {bytes} bytes, and \
         at most {limit} are held; at most {fit} tokens would fit"
    )]
    TooManyTokens {
        /// What was to be run.
        tokens: usize,
        /// What their hidden states take.
        bytes: usize,
        /// What may be held.
        limit: usize,
        /// Tokens that would fit.
        fit: usize,
    },
    /// A weight is no number, and so is what comes of it.
    #[error(
        "{}: tensor {} holds NaN or infinities, so that the activations are not finite from there on",
        shown_path(file),
        shown(tensor)
    )]
    NotFiniteWeight {
        /// The file that holds it.
        file: PathBuf,
        /// The first such tensor in the order of the pass.
        tensor: String,
    },
    /// The activations are no numbers any more, though all weights are.
    #[error(
        "the activations at {} are not finite, though all weights are: they are of another model than config.json, or too large \
         for f32",
        shown(at)
    )]
    NotFinite {
        /// The weight whose input it is, or the head.
        at: String,
    },
    /// The adapter failed.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// Weights that were to take the place of those in the files could not be made.
    #[error("the weights of {} could not be made: {reason}", shown(tensor))]
    Overlay {
        /// The tensor.
        tensor: String,
        /// Why: an error of whoever makes them.
        reason: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The library that computes refused, or the adapter has less than the model needs.
    #[error("the forward pass failed: {_0}")]
    Engine(String),
}

impl From<products::Error> for Error {
    fn from(error: products::Error) -> Self {
        Self::Engine(error.to_string())
    }
}

impl From<rayon::ThreadPoolBuildError> for Error {
    fn from(error: rayon::ThreadPoolBuildError) -> Self {
        Self::Engine(error.to_string())
    }
}
