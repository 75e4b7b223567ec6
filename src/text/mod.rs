//! Texts, and their tokens.
//!
//! A text may be far longer than what is wanted of it, so only as much of it is encoded (`first_tokens.rs`). A model sees its
//! tokens in windows, each behind what its tokenizer puts before a text (`tokens.rs`).
//!
//! Two texts are built in, both written for this project: one to calibrate on, one to measure perplexity on. They have no
//! sentence in common. `docs/calibration.md` says what is in them and why.

mod bounds;
mod first_tokens;
mod tokens;

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

pub use tokens::{Prefix, Tokens, windows_of, windows_said};

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
    /// A text, or what has to be read of it for the tokens that are wanted, is longer than can be made into tokens in bounded
    /// memory.
    #[error(
        "{bytes} bytes of text are too many to be made into tokens at once ({most} are the most): ask for fewer tokens (--tokens), or give a shorter text",
        most = bounds::MOST_AT_ONCE
    )]
    TooLong {
        /// Its length in bytes.
        bytes: usize,
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
    /// The file that it was read from, if it was.
    pub(crate) path: Option<PathBuf>,
}

impl Text {
    /// A text with a name.
    #[must_use]
    pub fn new(name: impl Into<String>, content: impl Into<Cow<'static, str>>) -> Self {
        Self {
            name: name.into(),
            content: content.into(),
            path: None,
        }
    }

    /// The text that calibration takes when none is given.
    #[must_use]
    pub fn calibration() -> Self {
        Self {
            name: "built-in calibration text".to_owned(),
            content: include_str!("builtin.txt").into(),
            path: None,
        }
    }

    /// The text that perplexity is measured on when none is given.
    #[must_use]
    pub fn held_out() -> Self {
        Self {
            name: "built-in held-out text".to_owned(),
            content: include_str!("heldout.txt").into(),
            path: None,
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
            path: Some(path.to_path_buf()),
        })
    }

    /// The SHA-256 of its bytes, in hexadecimal.
    #[must_use]
    pub fn sha256(&self) -> String {
        checksum::of_bytes(self.content.as_bytes())
    }
}

/// The first tokens of a text, at most `limit`, and those that the model's tokenizer puts before a text.
///
/// # Errors
/// [`Error::NoTokenizer`], [`Error::Unusable`] for a tokenizer.json that cannot be used, [`Error::Checkpoint`].
pub fn tokenize(checkpoint: &Checkpoint, text: &Text, limit: usize) -> Result<Tokens, Error> {
    with_tokenizer(checkpoint, |tokenizer| {
        Ok(Tokens {
            prefix: first_tokens::prefix(tokenizer)?,
            ids: first_tokens::tokens(tokenizer, &text.content, limit)?,
        })
    })
}

/// What `work` makes of the tokenizer beside the weights.
fn with_tokenizer<T: Send>(
    checkpoint: &Checkpoint,
    work: impl FnOnce(&Tokenizer) -> Result<T, tokenizers::Error> + Send,
) -> Result<T, Error> {
    let weights = checkpoint.source.weights().path().to_path_buf();
    let path = weights.with_file_name("tokenizer.json");
    if !path.exists() {
        return Err(Error::NoTokenizer(weights));
    }
    let bytes = read(&path, MAX_TOKENIZER)?;
    let unusable = |error: &str| Error::Unusable {
        path: path.clone(),
        problem: format!("it cannot be used as a tokenizer: {}", shown(error)),
    };
    let made = apart(|| {
        bounds::check(&bytes)?;
        let mut tokenizer = Tokenizer::from_bytes(&bytes)?;
        // Padding and truncation are for batches of short texts.
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None)?;
        work(&tokenizer)
    });
    match made {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error)) => Err(match error.downcast_ref() {
            Some(&bounds::TooLong { bytes }) => Error::TooLong { bytes },
            None => unusable(&error.to_string()),
        }),
        Err(panicked) => Err(unusable(&format!(
            "the tokenizers library gave up on it ({panicked}); it is damaged, so download it again"
        ))),
    }
}

/// The name of the thread that runs the tokenizers library. Its panics are turned into errors here: a program that prints
/// panics may leave those of this thread out (`std::panic::set_hook`), which is not for a library to do.
pub const TOKENIZER_THREAD: &str = "tokenizer";

/// The stack of that thread, in bytes: what a main thread usually has.
const STACK: usize = 8 << 20;

/// Runs something in a thread of its own, where a panic of a dependency ends the thread and no more. The error is what the
/// panic said.
fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name(TOKENIZER_THREAD.to_owned())
            .stack_size(STACK)
            .spawn_scoped(scope, work)
            .map_err(|error| error.to_string())?;
        thread.join().map_err(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
            text.unwrap_or("it did not say why").to_owned()
        })
    })
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
    fn the_built_in_texts_are_byte_for_byte_those_that_were_measured_with() {
        for (text, sum) in [
            (
                Text::calibration(),
                "c1cca48bde9d2f12e189f253fc885072417c2f612fdbfb6fb0aae44aeae15c70",
            ),
            (
                Text::held_out(),
                "442da0dc10603395bb72456a9afee54d9ff199c8d477d46176654dc081c8ce21",
            ),
        ] {
            assert_eq!(
                text.sha256(),
                sum,
                "the {} was changed: was it checked out with other line ends?",
                text.name
            );
        }
    }

    /// The example model with its tokenizer.json edited.
    fn with_edited_tokenizer(edit: impl FnOnce(&str) -> String) -> (tempfile::TempDir, Checkpoint) {
        let dir = tempfile::tempdir().unwrap();
        let example = Path::new("examples/tiny-llama");
        for name in ["config.json", "model.safetensors"] {
            fs::copy(example.join(name), dir.path().join(name)).unwrap();
        }
        let tokenizer = fs::read_to_string(example.join("tokenizer.json")).unwrap();
        fs::write(dir.path().join("tokenizer.json"), edit(&tokenizer)).unwrap();
        let checkpoint = Checkpoint::open(dir.path().to_str().unwrap()).unwrap();
        (dir, checkpoint)
    }

    #[test]
    fn a_panic_of_the_tokenizers_library_is_an_error_that_names_the_file() {
        // The library takes whatever is in a decoder for granted, and panics on what is no JSON.
        for damage in [
            r#""decoder":{]"#,
            r#""decoder":{"type":"x"}"#,
            r#""decoder":7"#,
        ] {
            let (_dir, checkpoint) = with_edited_tokenizer(|json| {
                assert_eq!(json.matches("\"decoder\":").count(), 1);
                json.replacen("\"decoder\":", &format!("{damage},\"old\":"), 1)
            });
            let error = tokenize(&checkpoint, &Text::new("t", "some text"), 100).unwrap_err();
            assert!(
                matches!(&error, Error::Unusable { path, .. } if path.ends_with("tokenizer.json")),
                "{damage}: {error}"
            );
        }
        let gave_up = apart(|| panic!("a dependency did {}", "this"));
        let gave_up: Result<(), String> = gave_up;
        assert_eq!(gave_up, Err("a dependency did this".to_owned()));
    }

    #[test]
    fn a_tokenizer_that_is_a_git_lfs_pointer_is_called_one() {
        let (_dir, checkpoint) =
            with_edited_tokenizer(|_| "version https://git-lfs.github.com/spec/v1\n".to_owned());
        let error = tokenize(&checkpoint, &Text::new("t", "x"), 100).unwrap_err();
        assert!(error.to_string().contains("git lfs pull"), "{error}");
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
