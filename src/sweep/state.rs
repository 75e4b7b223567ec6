//! Finished cells in a file: a JSON object a line, appended when a cell is finished.
//!
//! Several sweeps may use one file at a time. Lines are only ever appended, whole and under a lock, so that none is lost where
//! the file system has locks. A line that cannot be read (cut off, because a program was killed while it wrote, or damaged) is
//! skipped, with a warning, and stays where it is, as do lines of other keys (another model, another text). A file without a
//! line of this kind is somebody else's and is not written to.

use std::collections::HashMap;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::checkpoint::read_exact_at;
use crate::report::SweepCell;
use crate::untrusted::{self, open_regular, shown_path};

/// The longest state file that is read: ten thousand cells and a hundred dense models.
const MAX_STATE: u64 = 256 << 20;

/// How every line begins, before the digits of its key.
const START: &[u8] = b"{\"key\":\"";
/// Hexadecimal digits of a key.
const KEY: usize = 64;

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cell: Option<SweepCell>,
    /// The losses of the dense model, window by window, in nats.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    losses: Option<Vec<Vec<f32>>>,
}

/// What is known already, and where new cells go.
#[derive(Debug, Default)]
pub(super) struct State {
    cells: HashMap<String, SweepCell>,
    dense: HashMap<String, Vec<Vec<f32>>>,
    file: Option<(PathBuf, File)>,
    /// Lines that could not be read.
    skipped: usize,
}

impl State {
    /// Reads the file, if there is one, and opens it for more; without a path, nothing is kept.
    ///
    /// # Errors
    /// [`Error::State`], also for a file that is something else: it is not written to.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, Error> {
        let Some(path) = path else {
            return Ok(Self::default());
        };
        let failed = |action: &'static str| {
            move |reason: String| Error::State {
                action,
                path: path.to_path_buf(),
                reason,
            }
        };
        let mut state = Self::default();
        // A line that another sweep is appending would look cut off.
        let lock = match open_regular(path) {
            Ok((file, _)) => Some(Lock::of(file).map_err(|e| failed("lock")(e.to_string()))?),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(failed("read")(error.to_string())),
        };
        let bytes = if lock.is_some() {
            untrusted::read(path, MAX_STATE).map_err(|e| failed("read")(e.to_string()))?
        } else {
            Vec::new()
        };
        drop(lock);
        for line in bytes.split(|&byte| byte == b'\n') {
            if !line.is_empty() && !state.take(line) {
                state.skipped += 1;
            }
        }
        let is_known = !state.cells.is_empty() || !state.dense.is_empty();
        if !is_known && !is_one_cut_off(&bytes) {
            let reason = "it is not a file of finished cells; give another name";
            return Err(failed("use")(reason.to_owned()));
        }
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(path);
        let file = file.map_err(|error| failed("write")(error.to_string()))?;
        state.file = Some((path.to_path_buf(), file));
        Ok(state)
    }

    /// Takes over what a line says; false if it is none of ours.
    fn take(&mut self, line: &[u8]) -> bool {
        let Ok(Line { key, cell, losses }) = serde_json::from_slice(line) else {
            return false;
        };
        if key.len() != KEY || !key.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return false;
        }
        match (cell, losses) {
            (Some(cell), None) => {
                self.cells.insert(key, cell);
            }
            (None, Some(losses)) => {
                self.dense.insert(key, losses);
            }
            _ => return false,
        }
        true
    }

    /// What a user should know of the file.
    pub(super) fn warning(&self) -> Option<String> {
        let (path, _) = self.file.as_ref()?;
        let lines = match self.skipped {
            0 => return None,
            1 => "a line".to_owned(),
            n => format!("{n} lines"),
        };
        let path = shown_path(path);
        Some(format!(
            "{lines} of the state file {path} cannot be read: skipped, and measured again if asked for"
        ))
    }

    /// The cell of this key, if it was finished.
    pub(super) fn cell(&self, key: &str) -> Option<&SweepCell> {
        self.cells.get(key)
    }

    /// The losses of the dense model of this key.
    pub(super) fn dense(&self, key: &str) -> Option<&Vec<Vec<f32>>> {
        self.dense.get(key)
    }

    /// Keeps a cell.
    pub(super) fn add_cell(&mut self, key: &str, cell: &SweepCell) -> Result<(), Error> {
        self.add(&Line {
            key: key.to_owned(),
            cell: Some(cell.clone()),
            losses: None,
        })
    }

    /// Keeps the losses of the dense model.
    pub(super) fn add_dense(&mut self, key: &str, losses: &[Vec<f32>]) -> Result<(), Error> {
        self.add(&Line {
            key: key.to_owned(),
            cell: None,
            losses: Some(losses.to_vec()),
        })
    }

    fn add(&mut self, line: &Line) -> Result<(), Error> {
        let Some((path, file)) = &self.file else {
            return Ok(());
        };
        append(file, line).map_err(|error| Error::State {
            action: "write",
            path: path.clone(),
            reason: error.to_string(),
        })
    }
}

/// Appends a line, under a lock; behind one that was cut off, on a line of its own.
fn append(mut file: &File, line: &Line) -> io::Result<()> {
    let mut json = serde_json::to_vec(line)?;
    json.push(b'\n');
    let lock = Lock::of(file.try_clone()?)?;
    if let Some(last) = file.metadata()?.len().checked_sub(1) {
        let mut byte = [0];
        read_exact_at(file, &mut byte, last)?;
        if byte != *b"\n" {
            json.insert(0, b'\n');
        }
    }
    file.write_all(&json)?;
    drop(lock);
    Ok(())
}

/// Whether these bytes are a first line that was cut off while it was written, or none at all.
fn is_one_cut_off(bytes: &[u8]) -> bool {
    let (start, rest) = bytes.split_at(bytes.len().min(START.len()));
    let key = &rest[..rest.len().min(KEY)];
    START.starts_with(start) && key.iter().all(u8::is_ascii_hexdigit) && !bytes.contains(&b'\n')
}

/// Holds the lock of a file; where there are no locks, it holds nothing.
struct Lock(File);

impl Lock {
    /// Waits for the lock.
    fn of(file: File) -> io::Result<Self> {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => file.lock()?,
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        Ok(Self(file))
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sweep_tests::example;

    /// A key that ends in these digits.
    fn key(digits: &str) -> String {
        format!("{digits:0>64}")
    }

    #[test]
    fn what_was_kept_is_there_again_to_the_last_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (cell, losses) = (
            example().cells[0].clone(),
            vec![vec![0.1_f32, 1e-7], vec![3.0]],
        );
        let (c, d) = (&key("c"), &key("d"));
        let mut state = State::open(Some(&path)).unwrap();
        state.add_dense(d, &losses).unwrap();
        state.add_cell(c, &cell).unwrap();
        let again = State::open(Some(&path)).unwrap();
        assert_eq!(again.cell(c), Some(&cell));
        assert_eq!(again.dense(d), Some(&losses));
        assert_eq!((again.cell(d), again.dense(c)), (None, None));
        assert_eq!(again.warning(), None);
    }

    #[test]
    fn a_line_that_was_cut_off_is_measured_again_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let cell = example().cells[0].clone();
        let (one, two, three) = (&key("1"), &key("2"), &key("3"));
        let mut state = State::open(Some(&path)).unwrap();
        state.add_cell(one, &cell).unwrap();
        state.add_cell(two, &cell).unwrap();
        drop(state);
        let bytes = std::fs::read(&path).unwrap();
        // Anywhere, also in the first line, which is then the only one.
        for cut in [bytes.len() - 9, bytes.len() / 2 - 9, 40, 3] {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let mut state = State::open(Some(&path)).unwrap();
            assert_eq!(state.cell(one).is_some(), cut > bytes.len() / 2);
            assert!(state.cell(two).is_none());
            assert!(state.warning().unwrap().starts_with("a line of "), "{cut}");
            state.add_cell(three, &cell).unwrap();
            let again = State::open(Some(&path)).unwrap();
            assert_eq!(again.cell(one), state.cell(one));
            assert!(again.cell(three).is_some(), "{cut}");
        }
    }

    #[test]
    fn a_line_that_is_damaged_is_skipped_and_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let cell = example().cells[0].clone();
        let mut state = State::open(Some(&path)).unwrap();
        for digits in ["1", "2", "3"] {
            state.add_cell(&key(digits), &cell).unwrap();
        }
        let lines: Vec<String> = (std::fs::read_to_string(&path).unwrap().lines())
            .map(str::to_owned)
            .collect();
        for damaged in 0..3 {
            let mut lines = lines.clone();
            lines[damaged].replace_range(80..81, "\u{0}");
            std::fs::write(&path, lines.join("\n") + "\n").unwrap();
            let state = State::open(Some(&path)).unwrap();
            for (at, digits) in ["1", "2", "3"].into_iter().enumerate() {
                assert_eq!(state.cell(&key(digits)).is_some(), at != damaged);
            }
            assert!(state.warning().is_some());
        }
    }

    #[test]
    fn several_that_append_at_a_time_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let cell = example().cells[0].clone();
        std::thread::scope(|scope| {
            for sweep in 0..4 {
                let (path, cell) = (&path, &cell);
                scope.spawn(move || {
                    let mut state = State::open(Some(path)).unwrap();
                    assert_eq!(state.warning(), None);
                    for at in 0..50 {
                        state
                            .add_cell(&key(&format!("{sweep}{at:02}")), cell)
                            .unwrap();
                    }
                });
            }
        });
        let state = State::open(Some(&path)).unwrap();
        assert_eq!((state.cells.len(), state.skipped), (200, 0));
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let cell = serde_json::to_string(&example().cells[0]).unwrap();
        let with_more = format!("{{\"key\":\"{}\",\"cell\":{cell},\"mine\":1}}\n", key("1"));
        let with_another_key = format!("{{\"key\":\"mine\",\"cell\":{cell}}}\n");
        let texts = [
            "my notes",
            "my notes\n",
            "\n",
            "{\"a\":1}\n",
            "{\"key\":\"my own\"}\n",
            "{\"key\":\"my own, without a line's end\"",
            &with_more,
            &with_another_key,
        ];
        for text in texts {
            let path = dir.path().join("notes");
            std::fs::write(&path, text).unwrap();
            assert!(
                matches!(State::open(Some(&path)), Err(Error::State { .. })),
                "{text}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
