//! Texts, and their tokens.
//!
//! A text may be far longer than what is wanted of it, so only as much of it is encoded (`prefix.rs`).
//!
//! Two texts are built in, both written for this project: one to calibrate on, one to measure perplexity on. They have no
//! sentence in common. `docs/calibration.md` says what is in them and why.

mod prefix;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::checkpoint::{self, Checkpoint};
use crate::checksum;
use crate::untrusted::{self, shown, shown_path};

/// The longest text that is read, in bytes.
pub const MAX_TEXT: u64 = 64 << 20;

/// The longest tokenizer.json that is read, in bytes; the largest in use are 35 MB.
pub const MAX_TOKENIZER: u64 = 256 << 20;

/// Why a text or its tokens could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no tokenizer.json beside the weights.
    #[error("there is no tokenizer.json beside {}", shown_path(_0))]
    NoTokenizer(PathBuf),
    /// A file could not be read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A text or a tokenizer that cannot be used.
    #[error("{}: {problem}", shown_path(path))]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A text has too few tokens.
    #[error(
        "{} has {found} tokens, and {wanted} are the least that say anything: give a longer text",
        shown(text)
    )]
    TooShort {
        /// What the text is called.
        text: String,
        /// How many tokens it has.
        found: usize,
        /// How many it needs at least.
        wanted: usize,
    },
}

/// A text with a name to call it by.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Text {
    /// What messages and reports call it: `built-in calibration text`, or the path of its file. Escape it before printing.
    pub name: String,
    /// The text itself.
    pub content: Cow<'static, str>,
}

impl Text {
    /// A text with a name.
    #[must_use]
    pub fn new(name: impl Into<String>, content: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
        }
    }

    /// The text that calibration takes when none is given.
    #[must_use]
    pub fn calibration() -> Self {
        Self {
            name: "built-in calibration text".to_owned(),
            content: include_str!("builtin.txt").into(),
        }
    }

    /// The text that perplexity is measured on when none is given.
    #[must_use]
    pub fn held_out() -> Self {
        Self {
            name: "built-in held-out text".to_owned(),
            content: include_str!("heldout.txt").into(),
        }
    }

    /// Reads a text file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if it cannot be read, [`Error::Unusable`] if it is empty or not UTF-8.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let bytes = read(path, MAX_TEXT)?;
        let unusable = |problem: &str| Error::Unusable {
            path: path.to_path_buf(),
            problem: problem.to_owned(),
        };
        let content = String::from_utf8(bytes)
            .map_err(|_| unusable("it is not UTF-8 text; convert it first"))?;
        if content.trim().is_empty() {
            return Err(unusable("it is empty"));
        }
        Ok(Self {
            name: path.display().to_string(),
            content: content.into(),
        })
    }

    /// The SHA-256 of its bytes, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        checksum::of_bytes(self.content.as_bytes())
    }
}

/// The first tokens of a text, at most `limit`, including those that the model's tokenizer puts before a text.
///
/// # Errors
/// [`Error::NoTokenizer`], [`Error::Unusable`] for a tokenizer.json that cannot be used, [`Error::Checkpoint`].
pub fn tokenize(checkpoint: &Checkpoint, text: &Text, limit: usize) -> Result<Vec<u32>, Error> {
    let (tokenizer, path) = tokenizer(checkpoint)?;
    prefix::tokens(&tokenizer, &text.content, limit).map_err(|error| unusable(&path, &error))
}

/// Windows of at most `context` tokens from all over a text, `limit` tokens together.
///
/// The text is cut into as many parts of one length as there are windows, at words; a window is the beginning of a part,
/// and begins as a text does, with whatever the tokenizer puts before one. A text that is too short for that gives its
/// first `limit` tokens, cut into windows.
///
/// # Errors
/// Those of [`tokenize`].
pub fn windows(
    checkpoint: &Checkpoint,
    text: &Text,
    limit: usize,
    context: usize,
) -> Result<Vec<Vec<u32>>, Error> {
    let (tokenizer, path) = tokenizer(checkpoint)?;
    prefix::windows(&tokenizer, &text.content, limit, context)
        .map_err(|error| unusable(&path, &error))
}

/// The tokenizer beside the weights, and its file.
fn tokenizer(checkpoint: &Checkpoint) -> Result<(Tokenizer, PathBuf), Error> {
    let weights = checkpoint.source.weights().path().to_path_buf();
    let path = weights.with_file_name("tokenizer.json");
    if !path.exists() {
        return Err(Error::NoTokenizer(weights));
    }
    let bytes = read(&path, MAX_TOKENIZER)?;
    let broken = |error: tokenizers::Error| unusable(&path, &error);
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(broken)?;
    // Padding and truncation are for batches of short texts.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(broken)?;
    Ok((tokenizer, path))
}

fn unusable(path: &Path, error: &tokenizers::Error) -> Error {
    Error::Unusable {
        path: path.to_path_buf(),
        problem: format!(
            "it cannot be used as a tokenizer: {}",
            shown(&error.to_string())
        ),
    }
}

/// A whole file, if it is a regular one of at most `limit` bytes.
fn read(path: &Path, limit: u64) -> Result<Vec<u8>, Error> {
    Ok(untrusted::read(path, limit).map_err(checkpoint::Error::reading(path))?)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fs;

    use super::*;
    use crate::untrusted::tests::{HOSTILE, is_fit_for_a_terminal};

    #[test]
    fn the_two_built_in_texts_have_no_line_in_common() {
        let (calibration, held_out) = (Text::calibration(), Text::held_out());
        let lines = |text: &Text| -> HashSet<String> {
            let long = |line: &&str| line.len() > 20;
            text.content
                .lines()
                .filter(long)
                .map(str::to_owned)
                .collect()
        };
        assert!(lines(&calibration).is_disjoint(&lines(&held_out)));
        assert!((16 << 10..=32 << 10).contains(&calibration.content.len()));
        assert!((16 << 10..=32 << 10).contains(&held_out.content.len()));
    }

    #[test]
    fn no_error_prints_a_name_raw() {
        let (path, name) = (|| PathBuf::from(HOSTILE), || HOSTILE.to_owned());
        let not_regular = checkpoint::Error::NotRegular { path: path() };
        for error in [
            Error::NoTokenizer(path()),
            Error::Checkpoint(not_regular),
            Error::Unusable {
                path: path(),
                problem: "it is empty".to_owned(),
            },
            Error::TooShort {
                text: name(),
                found: 1,
                wanted: 2,
            },
        ] {
            is_fit_for_a_terminal(&error.to_string());
        }
    }

    #[test]
    fn a_text_that_says_nothing_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text.txt");
        for (content, says) in [(&b" \n\t"[..], "it is empty"), (&[0xff, 0xfe], "not UTF-8")] {
            fs::write(&path, content).unwrap();
            let error = Text::read(&path).unwrap_err().to_string();
            assert!(
                error.contains("text.txt") && error.contains(says),
                "{error}"
            );
        }
        let file = fs::File::create(&path).unwrap();
        file.set_len(MAX_TEXT + 1).unwrap();
        let error = Text::read(&path).unwrap_err().to_string();
        assert!(error.contains("too many"), "{error}");
    }
}
