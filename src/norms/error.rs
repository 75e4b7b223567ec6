//! What can be wrong with a file of column norms.
//!
//! Every message names the file, the tensor where there is one, and the way out. Names and values out of a file are a
//! stranger's: they pass through [`printable`] before they enter a message.

use std::path::{Path, PathBuf};

use super::Format;

/// Why column norms could not be read, written or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a read or a write.
    #[error("cannot use the norms file {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The file is larger than any file of norms.
    #[error(
        "{}: {bytes} bytes are too many for a file of column norms (at most {limit}): is it the model itself? \
         Pass a norms file or a llama.cpp importance matrix",
        path.display()
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its length, in bytes.
        bytes: u64,
        /// The longest file that is read, in bytes.
        limit: u64,
    },
    /// The file is readable, but is something else.
    #[error(
        "{}: not a file of column norms: {what}. Pass a norms file (one f32 vector a weight), or a llama.cpp importance \
         matrix (imatrix, .gguf or .dat)",
        path.display()
    )]
    NotNorms {
        /// The file.
        path: PathBuf,
        /// What it is instead, as far as that can be told.
        what: String,
    },
    /// The file starts like its format and then breaks it: damaged, cut short, or hostile.
    #[error("{}: damaged {format}: {what}. Fetch or write the file again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// The format it starts like.
        format: Format,
        /// What is broken, and where.
        what: String,
    },
    /// A norm is not a finite number, or is negative: no sum of squares.
    #[error(
        "{}: `{tensor}`: {value} in column {column} is not a sum of squares (finite, not negative). The norms were \
         measured on a broken run; measure them again",
        path.display()
    )]
    Value {
        /// The file.
        path: PathBuf,
        /// The tensor in it.
        tensor: String,
        /// The index of the value; per expert, experts lie one behind the other.
        column: usize,
        /// The value.
        value: f32,
    },
    /// There are norms for the weight, of another length than its input.
    #[error(
        "{}: `{tensor}` holds {found} column norms, but `{weight}` has {wanted} input features. The norms are probably \
         those of another model; pass the ones measured on this model",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// The tensor in it.
        tensor: String,
        /// The weight the norms were asked for.
        weight: String,
        /// Norms found (for one expert, where the tensor says where one ends).
        found: usize,
        /// Input features of the weight.
        wanted: usize,
    },
    /// The norms and the weight disagree on the experts.
    #[error(
        "{}: `{tensor}` holds norms of {found} expert(s), but {} was asked for `{weight}`. The norms are probably those \
         of another model; pass the ones measured on this model",
        path.display(),
        match wanted { Some(e) => format!("expert {e} (counted from 0)"), None => "one matrix without experts".into() }
    )]
    Experts {
        /// The file.
        path: PathBuf,
        /// The tensor in it.
        tensor: String,
        /// The weight the norms were asked for.
        weight: String,
        /// Experts the tensor has norms of.
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

/// A stranger's text, fit for a terminal: control and formatting characters escaped, at most 120 characters of it.
pub(super) fn printable(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut out: String = text
        .chars()
        .take(LONGEST)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        out.push_str("...");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_the_terminal_or_flood_it() {
        let shown = printable("a\u{1b}[2J\u{202e}b\n");
        assert!(shown.chars().all(|c| c.is_ascii_graphic()), "{shown}");
        assert!(printable(&"x".repeat(10_000)).len() < 200);
        assert_eq!(
            printable("model.layers.0.mlp.down_proj.weight"),
            "model.layers.0.mlp.down_proj.weight"
        );
    }
}
