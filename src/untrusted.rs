//! Text and files from strangers: how they are shown, and how much of them is read.
//!
//! A checkpoint's names, a config's words and a file's path reach the terminal in tables and messages. A name that holds
//! an escape sequence could repaint the screen, one with a right-to-left mark could make it read as another name, and one
//! of a hundred million bytes could flood it. So everything of that kind is printed through [`shown`], a path through
//! [`shown_path`], and no other module decides what a dangerous character is.
//!
//! A file that somebody else wrote is read whole only through [`read`], which refuses what is not a regular file (to open
//! a pipe can mean to wait for ever), stops at a limit, also when the file grows while it is read, and tells a Git LFS
//! pointer from the file it stands for.

use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use serde::Serialize;

/// Characters of a text that are shown.
const SHOWN_CHARS: usize = 256;

/// A text from a stranger, fit for a terminal: dangerous characters escaped as `\u{1b}`, long texts cut at their end.
pub fn shown(text: &str) -> impl fmt::Display + '_ {
    Shown(text)
}

/// The first of some names, as [`shown`], and how many more there are: `a, b, c, d and 3 more`.
#[must_use]
pub fn named(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const NAMED: usize = 4;
    let mut names = names.into_iter();
    let first: Vec<String> = (names.by_ref().take(NAMED))
        .map(|name| shown(name.as_ref()).to_string())
        .collect();
    match names.count() {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// A path, fit for a terminal, as [`shown`] does it; a long one is cut at its start, because its end names the file. What
/// is not Unicode is shown as U+FFFD.
#[must_use]
pub fn shown_path(path: &Path) -> String {
    let text = path.to_string_lossy();
    let count = text.chars().count();
    if count <= SHOWN_CHARS {
        return Escaped(&text).to_string();
    }
    let end = text.char_indices().nth(count - SHOWN_CHARS);
    format!("...{}", Escaped(&text[end.map_or(0, |(at, _)| at)..]))
}

/// A text in which nothing can steer a terminal, at its full length: for lines that this program has put together.
pub fn escaped(text: &str) -> impl fmt::Display + '_ {
    Escaped(text)
}

/// The same for text of several lines, whose ends stay.
pub fn escaped_lines(text: &str) -> impl fmt::Display + '_ {
    fmt::from_fn(move |f| {
        for (number, line) in text.split('\n').enumerate() {
            if number > 0 {
                f.write_char('\n')?;
            }
            write!(f, "{}", Escaped(line))?;
        }
        Ok(())
    })
}

/// A value as JSON for humans, in which the same characters are escaped as JSON does it: `\u009b`. A reader gets what was given.
///
/// # Errors
/// As [`serde_json::to_string_pretty`].
pub fn json(value: &impl Serialize) -> serde_json::Result<String> {
    let plain = serde_json::to_string_pretty(value)?;
    let mut json = String::with_capacity(plain.len() + 1);
    for c in plain.chars() {
        // Outside of strings there is nothing but ASCII, and in strings no raw end of line.
        if c != '\n' && (is_dangerous(c) || is_joiner(c)) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(json, "\\u{unit:04x}");
            }
        } else {
            json.push(c);
        }
    }
    json.push('\n');
    Ok(json)
}

struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_CHARS) {
            Some((end, _)) => write!(f, "{}...", Escaped(&self.0[..end])),
            None => Escaped(self.0).fmt(f),
        }
    }
}

struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut before = None;
        let mut rest = self.0.chars();
        while let Some(c) = rest.next() {
            // A joiner within a word of a script that has them decides how the word is written; elsewhere it is just unseen.
            let after = || rest.clone().next();
            let is_unseen = is_joiner(c) && !(joins(before) && joins(after()));
            if is_dangerous(c) || is_unseen {
                write!(f, "{}", c.escape_unicode())?;
            } else {
                f.write_char(c)?;
            }
            before = Some(c);
        }
        Ok(())
    }
}

/// Whether a character can steer a terminal, change the order of what a reader sees, or be there unseen.
fn is_dangerous(c: char) -> bool {
    c.is_control()
        // No-break spaces and the like look like a space, or like nothing at the end of a name.
        || (c.is_whitespace() && c != ' ')
        || matches!(
            c,
            '\u{ad}'                     // soft hyphen
            | '\u{34f}'                  // grapheme joiner
            | '\u{61c}'                  // Arabic letter mark
            | '\u{115f}' | '\u{1160}'    // Hangul fillers
            | '\u{17b4}' | '\u{17b5}'    // Khmer vowels that are not seen
            | '\u{180b}'..='\u{180f}'    // Mongolian variation selectors and vowel separator
            | '\u{200b}'                 // zero-width space
            | '\u{200e}' | '\u{200f}'    // direction marks
            | '\u{2028}'..='\u{202e}'    // line and paragraph separators, direction embeddings and overrides
            | '\u{2060}'..='\u{206f}'    // invisible operators, direction isolates
            | '\u{2800}'                 // Braille blank
            | '\u{3164}' | '\u{ffa0}'    // Hangul fillers
            | '\u{fe00}'..='\u{fe0f}'    // variation selectors
            | '\u{feff}'                 // byte order mark
            | '\u{fff0}'..='\u{fffb}'    // unassigned and not seen, interlinear annotations
            | '\u{1bca0}'..='\u{1bca3}'  // shorthand format controls
            | '\u{1d173}'..='\u{1d17a}'  // musical format controls
            | '\u{e0000}'..='\u{e0fff}'  // tags, variation selectors
        )
}

/// Zero-width joiner and non-joiner.
fn is_joiner(c: char) -> bool {
    matches!(c, '\u{200c}' | '\u{200d}')
}

/// Whether a joiner means something beside this character.
fn joins(c: Option<char>) -> bool {
    c.is_some_and(|c| !c.is_ascii() && !is_dangerous(c) && !is_joiner(c))
}

/// Why a file was not opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The operating system refused.
    #[error("it cannot be {}", match action { &"open" => "opened", _ => "read" })]
    Io {
        /// What was tried: `open` or `read`.
        action: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// It is a directory, a pipe or a device.
    #[error("it is not a regular file")]
    NotRegular,
    /// It is a Git LFS pointer, a few lines in place of the file.
    #[error("it is a Git LFS pointer, not the file itself; run `git lfs pull`")]
    LfsPointer,
    /// It is longer than the limit.
    #[error("{len} bytes are too many, the limit is {limit}")]
    TooLong {
        /// Its length in bytes; of a file that has grown meanwhile, what was read of it.
        len: u64,
        /// The most that is read, in bytes.
        limit: u64,
    },
}

impl ReadError {
    /// Whether there is no such file.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// Opens a file for reading if it is a regular one, or a link to one, and tells its length in bytes.
///
/// # Errors
/// [`ReadError::NotRegular`] and [`ReadError::Io`].
pub fn open_regular(path: &Path) -> Result<(File, u64), ReadError> {
    let failed = |source| ReadError::Io {
        action: "open",
        source,
    };
    // Asked before it is opened: to open a pipe is to wait for ever.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(ReadError::NotRegular);
    }
    let file = File::open(path).map_err(failed)?;
    // And after: it may have been replaced.
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(ReadError::NotRegular);
    }
    Ok((file, meta.len()))
}

/// Reads a whole regular file of at most `limit` bytes.
///
/// # Errors
/// Every variant of [`ReadError`].
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ReadError> {
    let (file, len) = open_regular(path)?;
    if len > limit {
        return Err(ReadError::TooLong { len, limit });
    }
    let bytes = read_up_to(file, limit)?;
    if is_lfs_pointer(&bytes) {
        return Err(ReadError::LfsPointer);
    }
    Ok(bytes)
}

/// What every Git LFS pointer starts with.
pub(crate) const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1";

/// Whether these are the first bytes of a Git LFS pointer.
pub(crate) fn is_lfs_pointer(bytes: &[u8]) -> bool {
    bytes.starts_with(LFS_POINTER)
}

/// Reads to the end, which must come within `limit` bytes whatever the length was when it was asked.
fn read_up_to(file: impl io::Read, limit: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|source| ReadError::Io {
            action: "read",
            source,
        })?;
    let len = bytes.len() as u64;
    if len > limit {
        return Err(ReadError::TooLong { len, limit });
    }
    Ok(bytes)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A name with one dangerous character of each kind.
    pub(crate) const HOSTILE: &str = "a\u{1b}[2J\r\n\u{7}\u{7f}\u{9b}\u{a0}\u{ad}\u{61c}\u{200b}\u{200c}\u{200e}\u{2028}\u{202e}\u{2066}\u{3164}\u{fe0f}\u{feff}\u{fff9}\u{e0041}\u{e0101}b";

    /// Fails if a message holds a character that [`shown`] escapes, or more than a terminal should get.
    #[track_caller]
    pub(crate) fn is_fit_for_a_terminal(message: &str) {
        assert!(
            !message.chars().any(|c| is_dangerous(c) || is_joiner(c)),
            "a raw character: {message:?}"
        );
        assert!(message.len() < 4096, "{} bytes", message.len());
    }

    #[test]
    fn dangerous_characters_are_escaped() {
        assert_eq!(
            shown("a\u{1b}[31m\nb\u{202e}c").to_string(),
            "a\\u{1b}[31m\\u{a}b\\u{202e}c"
        );
        for text in [
            shown(HOSTILE).to_string(),
            escaped(HOSTILE).to_string(),
            shown_path(Path::new(HOSTILE)),
        ] {
            assert!(text.is_ascii(), "{text}");
            is_fit_for_a_terminal(&text);
        }
    }

    #[test]
    fn lines_stay_lines_and_nothing_else_passes() {
        let text = format!("one\n{HOSTILE}");
        let shown = escaped_lines(&text).to_string();
        let (first, rest) = shown.split_once('\n').unwrap();
        assert_eq!(first, "one");
        let rest = rest.replace('\n', "");
        is_fit_for_a_terminal(&rest);
    }

    #[test]
    fn json_has_the_same_value_and_no_raw_character() {
        let value =
            serde_json::json!({"a\u{202e}": [HOSTILE, "modèle 模型 \u{1f600}", 0.1], "b": {}});
        let text = json(&value).unwrap();
        is_fit_for_a_terminal(&text.replace('\n', ""));
        assert!(
            text.contains("\\u009b") && text.contains("\\udb40\\udc41"),
            "{text}"
        );
        assert!(text.contains("modèle 模型 \u{1f600}"), "{text}");
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&text).unwrap(),
            value
        );
        let plain = serde_json::json!({"name": "model.norm.weight", "list": [1, 2]});
        assert_eq!(json(&plain).unwrap(), format!("{plain:#}\n"));
    }

    #[test]
    fn a_joiner_is_shown_as_it_is_only_within_a_word_that_has_joiners() {
        assert_eq!(
            shown("config\u{200d}.json").to_string(),
            "config\\u{200d}.json"
        );
        assert_eq!(shown("می\u{200c}").to_string(), "می\\u{200c}");
        assert_eq!(
            shown("می\u{200c}\u{200c}خ").to_string(),
            "می\\u{200c}\\u{200c}خ"
        );
    }

    #[test]
    fn ordinary_names_are_shown_as_they_are() {
        for name in [
            "modèle 模型 \"x\".safetensors",
            "model.layers.0.mlp.down_proj.weight",
            "می\u{200c}خواهم",
        ] {
            assert_eq!(shown(name).to_string(), name);
            assert_eq!(shown_path(Path::new(name)), name);
        }
    }

    #[test]
    fn a_very_long_name_is_cut_at_its_end_and_a_path_at_its_start() {
        let long = "ж".repeat(10_000);
        let cut = shown(&long).to_string();
        assert_eq!(cut.chars().count(), SHOWN_CHARS + 3);
        assert!(cut.ends_with("ж..."));
        let just = "x".repeat(SHOWN_CHARS);
        assert_eq!(shown(&just).to_string(), just);
        let path = shown_path(&Path::new(&long).join("model.safetensors"));
        assert_eq!(path.chars().count(), SHOWN_CHARS + 3);
        assert!(path.starts_with("...ж") && path.ends_with("model.safetensors"));
        assert_eq!(escaped(&long).to_string(), long);
    }

    #[test]
    fn a_file_is_read_up_to_the_limit_and_refused_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        assert!(matches!(
            read(&path, 4),
            Err(ReadError::TooLong { len: 5, limit: 4 })
        ));
        assert!(
            read(&dir.path().join("none"), 4)
                .unwrap_err()
                .is_not_found()
        );
    }

    #[test]
    fn a_git_lfs_pointer_is_told_from_the_file_it_stands_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n";
        fs::write(&path, pointer).unwrap();
        let error = read(&path, 1 << 10).unwrap_err();
        assert!(matches!(error, ReadError::LfsPointer), "{error:?}");
        assert!(error.to_string().contains("git lfs pull"), "{error}");
    }

    #[test]
    fn a_file_that_grows_is_refused_as_well() {
        // Its length was asked before; this is what follows.
        assert!(matches!(
            read_up_to(io::repeat(1), 100),
            Err(ReadError::TooLong {
                len: 101,
                limit: 100
            })
        ));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            open_regular(dir.path()),
            Err(ReadError::NotRegular)
        ));
        #[cfg(unix)]
        {
            assert!(matches!(
                read(Path::new("/dev/zero"), 9),
                Err(ReadError::NotRegular)
            ));
            let link = dir.path().join("link");
            fs::write(dir.path().join("file"), "x").unwrap();
            std::os::unix::fs::symlink("file", &link).unwrap();
            assert_eq!(read(&link, 9).unwrap(), b"x");
        }
    }
}
