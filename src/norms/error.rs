//! What can be wrong with a file of column norms.
//!
//! Every message names the file, the tensor where there is one, and what to do. Names are kept as they are in the file and
//! escaped when they are printed; a text that was put together (`what`) holds names that are escaped already.

use std::path::{Path, PathBuf};

use super::provenance::Format;
use crate::checkpoint;
use crate::untrusted::{shown, shown_path};

/// Why column norms could not be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read the file.
    #[error("cannot use the norms file {}", shown_path(path))]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A norms file could not be written.
    #[error(transparent)]
    Write(#[from] checkpoint::Error),
    /// Sketches could not be kept for the time of the run.
    #[error("cannot keep sketches in a temporary file in {}", shown_path(dir))]
    Sketches {
        /// The directory.
        dir: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is larger than any that is read.
    #[error(
        "{}: {bytes} bytes is too large for a file of column norms (at most {limit}). Is it the model itself? Use a norms file or a llama.cpp importance matrix",
        shown_path(path)
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        bytes: u64,
        /// The longest file that is read, in bytes.
        limit: u64,
    },
    /// The file does not contain norms.
    #[error(
        "{}: not a file of column norms: {what}. Use a norms file (one f32 vector per weight) or a llama.cpp importance matrix (.gguf or .dat)",
        shown_path(path)
    )]
    NotNorms {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as that can be told; fit for a terminal.
        what: String,
    },
    /// The file starts like a file of norms, and then breaks its format: it is damaged, cut short or hostile.
    #[error(
        "{}: damaged {format}: {what}. Fetch or write the file again",
        shown_path(path)
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format it starts like.
        format: Format,
        /// What is broken, and where; fit for a terminal.
        what: String,
    },
    /// A value is negative or not finite, so it is not a sum of squares.
    #[error(
        "{}: `{}`: {value} in column {column} is not a sum of squares (which is finite and not negative). Measure the norms again",
        shown_path(path),
        shown(tensor)
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor in it.
        tensor: String,
        /// The index of the value; experts follow one another.
        column: usize,
        /// What the file says.
        value: f32,
    },
    /// There are no means of the inputs beside the norms, or it is not known of how many tokens they are.
    #[error(
        "{}: there are norms for `{}`, but not the means of its inputs and the number of tokens",
        shown_path(path),
        shown(weight)
    )]
    NoMeans {
        /// The file.
        path: PathBuf,
        /// The weight they were asked for.
        weight: String,
    },
    /// A mean is not finite.
    #[error(
        "{}: the mean of column {column} of `{}` is not finite. Measure the norms again",
        shown_path(path),
        shown(weight)
    )]
    Mean {
        /// The file.
        path: PathBuf,
        /// The weight.
        weight: String,
        /// The index of the value.
        column: usize,
    },
    /// The norms of the weight do not have the length of its input.
    #[error(
        "{}: `{}` holds {found} column norms, but `{}` has {wanted} input features. The norms probably belong to another model; use norms of this model",
        shown_path(path),
        shown(tensor),
        shown(weight)
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// The tensor in it.
        tensor: String,
        /// The weight the norms were asked for.
        weight: String,
        /// Norms found; those of one expert, if the tensor says where one ends.
        found: usize,
        /// Input features of the weight.
        wanted: usize,
    },
    /// The norms and the weight disagree on the experts.
    #[error(
        "{}: `{}` holds norms of {found} expert(s), but {} was asked for `{}`. The norms probably belong to another model; use norms of this model",
        shown_path(path),
        shown(tensor),
        match wanted { Some(e) => format!("expert {e} (counted from 0)"), None => "one matrix without experts".into() },
        shown(weight)
    )]
    Experts {
        /// The file.
        path: PathBuf,
        /// The tensor in it.
        tensor: String,
        /// The weight the norms were asked for.
        weight: String,
        /// The number of experts that the tensor has norms of.
        found: usize,
        /// The expert asked for.
        wanted: Option<usize>,
    },
}

impl Error {
    pub(super) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn not_norms(path: &Path, what: impl Into<String>) -> Self {
        Self::NotNorms {
            path: path.to_owned(),
            what: what.into(),
        }
    }

    pub(super) fn malformed(path: &Path, format: Format, what: impl Into<String>) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            format,
            what: what.into(),
        }
    }
}
