//! What can go wrong between a name on the command line and a finished output, in words a user can act on.
//!
//! Every message names the file, and the tensor where there is one, and says the way out. Names come from a
//! stranger's file: `shown` escapes what could steer a terminal and cuts what could flood it, so no variant prints
//! one raw.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use super::header::HeaderError;
use super::index::IndexError;

/// The result of opening a checkpoint or staging its output.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be opened, or its output not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to do something with a file.
    #[error("cannot {action} {}", shown_path(path))]
    Io {
        /// What was tried, as a verb: `open`, `read`, `write` ...
        action: &'static str,
        /// The file or directory it was tried on.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// MODEL is neither a path that exists nor a repository in the local Hugging Face cache.
    #[error("{} is neither a file nor a directory{}", shown(model), in_cache(searched.as_deref()))]
    NoSuchModel {
        /// MODEL as it was given.
        model: String,
        /// Where in the Hugging Face cache it was looked for, if its form is `org/name` and there is a cache.
        searched: Option<PathBuf>,
    },

    /// A repository is in the Hugging Face cache, but not so that one snapshot of it can be told.
    #[error(
        "{}: {problem}; name the snapshot directory itself, or download the model again",
        shown_path(path)
    )]
    BrokenCache {
        /// The file or directory of the cache that is at fault.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// A path exists, but holds no safetensors checkpoint.
    #[error(
        "{} is no safetensors checkpoint: {problem}; name a .safetensors file, a .safetensors.index.json, or a directory \
         with a model.safetensors",
        shown_path(path)
    )]
    NotACheckpoint {
        /// The file or directory.
        path: PathBuf,
        /// What was found there instead (names already escaped).
        problem: String,
    },

    /// A pipe, a device or a directory stands where a regular file is needed.
    #[error(
        "{} is not a regular file; weights are only read from regular files",
        shown_path(path)
    )]
    NotRegular {
        /// The file.
        path: PathBuf,
    },

    /// A safetensors header breaks the format.
    #[error(
        "{}: {problem}; the file is damaged or no safetensors file, get it again",
        shown_path(path)
    )]
    Header {
        /// The safetensors file.
        path: PathBuf,
        /// The rule it breaks.
        problem: HeaderError,
    },

    /// An index of shards is broken, or does not agree with its shards.
    #[error(
        "{}: {problem}; the checkpoint is incomplete or damaged, get it again",
        shown_path(path)
    )]
    Index {
        /// The index file.
        path: PathBuf,
        /// The rule it breaks.
        problem: IndexError,
    },

    /// A config.json lies beside the weights but cannot be used.
    #[error("{}: {problem}; repair it or move it away", shown_path(path))]
    Config {
        /// The config.json.
        path: PathBuf,
        /// What is wrong with it (already escaped).
        problem: String,
    },

    /// An input file ended earlier than when it was opened: something else is writing to it.
    #[error(
        "{} changed while it was read; let whatever writes to it finish, then start again",
        shown_path(path)
    )]
    Changed {
        /// The input file.
        path: PathBuf,
    },

    /// The output is there already.
    #[error(
        "{} exists; give another output, or --force to replace it",
        shown_path(path)
    )]
    OutputExists {
        /// The output.
        path: PathBuf,
    },

    /// The output would replace, hold or lie within what is read. `--force` does not change this.
    #[error(
        "the output {} {relation} the input {}; the input is never written to, give another output",
        shown_path(path),
        shown_path(input)
    )]
    OutputIsInput {
        /// The output.
        path: PathBuf,
        /// How it lies to the input: `is`, `is inside`, `holds` ...
        relation: &'static str,
        /// The file or directory of the input that would be hurt.
        input: PathBuf,
    },

    /// Something is in the way of the output that not even `--force` replaces.
    #[error(
        "{} {problem}; give another output, or move it away yourself",
        shown_path(path)
    )]
    NotReplaceable {
        /// The output.
        path: PathBuf,
        /// What is there, as the end of a sentence: `is a directory, but a file is to be written` ...
        problem: &'static str,
    },

    /// The output path ends in no name, as `/`, `.` or `dir/..` do.
    #[error(
        "the output {} has no name of its own; give a path that ends in a new name",
        shown_path(path)
    )]
    NoOutputName {
        /// The output.
        path: PathBuf,
    },

    /// The directory the output is to lie in does not exist, or is a file.
    #[error(
        "the output's directory {} does not exist or is a file; make it first (mkdir -p)",
        shown_path(parent)
    )]
    NoOutputDirectory {
        /// The missing directory.
        parent: PathBuf,
    },

    /// The disk, the quota or the largest file of the output's file system is too small.
    #[error(
        "no room for the output: {needed} bytes are needed in {}; free some, or give an output on another disk",
        shown_path(directory)
    )]
    NoSpace {
        /// Bytes that the whole output takes.
        needed: u64,
        /// The directory the output was to lie in.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// Bytes were to go outside the data of a shard: a bug of the caller.
    #[error(
        "{len} bytes at {offset} lie outside the data of {} ({data_start} to {end}); this is a bug, please report it",
        shown(shard)
    )]
    OutOfRange {
        /// File name of the shard, or its number where there is no such shard.
        shard: String,
        /// First byte, from the start of the file.
        offset: u64,
        /// Bytes.
        len: u64,
        /// Where the shard's data starts.
        data_start: u64,
        /// Where they end: the file's length.
        end: u64,
    },

    /// The output was to be finished before all its bytes were written: a bug of the caller.
    #[error(
        "{}: {written} of {needed} bytes of data were written; nothing was kept; this is a bug, please report it",
        shown(shard)
    )]
    Incomplete {
        /// File name of the shard.
        shard: String,
        /// Bytes of data written.
        written: u64,
        /// Bytes of data the shard has.
        needed: u64,
    },

    /// The old output was moved away, the new one could not take its place, and the old one could not be moved back.
    #[error(
        "cannot move the output to {}; what was there before is safe in {}",
        shown_path(path),
        shown_path(kept)
    )]
    OldMovedAside {
        /// The output.
        path: PathBuf,
        /// Where the old output lies now.
        kept: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// Names the file in an operating-system error: `.map_err(Error::io("open", path))`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }
}

fn in_cache(searched: Option<&Path>) -> String {
    match searched {
        Some(path) => format!(
            ", and the Hugging Face cache has no {}; check the path, or download the model first (nothing is downloaded here)",
            shown_path(path)
        ),
        None => "; check the path".to_owned(),
    }
}

/// Characters of a name that are shown; a hostile header can hold one of a hundred million bytes.
const SHOWN_CHARS: usize = 256;

/// A stranger's text, fit for a terminal: control and text-direction characters escaped, long texts cut.
pub(crate) fn shown(text: &str) -> impl fmt::Display + '_ {
    Shown(text)
}

/// A path, fit for a terminal, as [`shown`] does it. What is not Unicode is shown as U+FFFD.
pub(crate) fn shown_path(path: &Path) -> String {
    shown(&path.to_string_lossy()).to_string()
}

struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (count, c) in self.0.chars().enumerate() {
            if count == SHOWN_CHARS {
                return f.write_str("...");
            }
            // The direction marks are no control characters to Unicode, yet they reorder what a reader sees.
            let steers = c.is_control()
                || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
            if steers {
                write!(f, "{}", c.escape_unicode())?
            } else {
                f.write_char(c)?
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_of_a_name_are_escaped_in_messages() {
        let error = Error::NotRegular {
            path: PathBuf::from("a\u{1b}[31m\nb\u{202e}c"),
        };
        let message = error.to_string();
        assert!(
            !message.contains(['\u{1b}', '\n', '\u{202e}']),
            "{message:?}"
        );
        assert!(
            message.starts_with("a\\u{1b}[31m\\u{a}b\\u{202e}c is not"),
            "{message}"
        );
    }

    #[test]
    fn ordinary_names_are_shown_as_they_are() {
        assert_eq!(
            shown("modèle 模型 \"x\".safetensors").to_string(),
            "modèle 模型 \"x\".safetensors"
        );
    }

    #[test]
    fn a_very_long_name_is_cut() {
        let long = shown(&"x".repeat(10_000)).to_string();
        assert_eq!(long.len(), SHOWN_CHARS + 3);
        assert_eq!(
            shown(&"x".repeat(SHOWN_CHARS)).to_string().len(),
            SHOWN_CHARS
        );
    }
}
