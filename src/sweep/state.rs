//! Finished cells in a file: a JSON object a line, appended when a cell is finished.
//!
//! A line that was cut off, because the program was killed while it wrote, is left out and overwritten. Lines of other keys
//! (another model, another text) stay where they are and are not used.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::report::SweepCell;
use crate::untrusted;

/// The longest state file that is read: ten thousand cells and a hundred dense models.
const MAX_STATE: u64 = 256 << 20;

/// A line.
#[derive(Serialize, Deserialize)]
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
        let bytes = match untrusted::read(path, MAX_STATE) {
            Ok(bytes) => bytes,
            Err(error) if error.is_not_found() => Vec::new(),
            Err(error) => return Err(failed("read")(error.to_string())),
        };
        let mut state = Self::default();
        let whole = bytes
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        for line in bytes[..whole].split(|&byte| byte == b'\n') {
            if line.is_empty() {
                continue;
            }
            let line: Line = serde_json::from_slice(line).map_err(|_| {
                failed("use")("it is not a file of finished cells; give another name".to_owned())
            })?;
            if let Some(cell) = line.cell {
                state.cells.insert(line.key, cell);
            } else if let Some(losses) = line.losses {
                state.dense.insert(line.key, losses);
            }
        }
        let is_ours = whole > 0 || bytes.is_empty() || bytes.starts_with(b"{\"key\":");
        if !is_ours {
            let reason = "it is not a file of finished cells; give another name";
            return Err(failed("use")(reason.to_owned()));
        }
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path);
        let cut = |mut file: File| -> std::io::Result<File> {
            file.set_len(whole as u64)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        let file = file
            .and_then(cut)
            .map_err(|error| failed("write")(error.to_string()))?;
        state.file = Some((path.to_path_buf(), file));
        Ok(state)
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
        let Some((path, file)) = &mut self.file else {
            return Ok(());
        };
        let written = serde_json::to_vec(line).map_err(std::io::Error::from);
        let written = written.and_then(|mut json| {
            json.push(b'\n');
            file.write_all(&json)?;
            file.flush()
        });
        written.map_err(|error| Error::State {
            action: "write",
            path: path.clone(),
            reason: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sweep_tests::example;

    #[test]
    fn what_was_kept_is_there_again_to_the_last_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (cell, losses) = (
            example().cells[0].clone(),
            vec![vec![0.1_f32, 1e-7], vec![3.0]],
        );
        let mut state = State::open(Some(&path)).unwrap();
        state.add_dense("d", &losses).unwrap();
        state.add_cell("c", &cell).unwrap();
        let again = State::open(Some(&path)).unwrap();
        assert_eq!(again.cell("c"), Some(&cell));
        assert_eq!(again.dense("d"), Some(&losses));
        assert_eq!((again.cell("d"), again.dense("c")), (None, None));
    }

    #[test]
    fn a_line_that_was_cut_off_is_measured_again_and_the_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let cell = example().cells[0].clone();
        let mut state = State::open(Some(&path)).unwrap();
        state.add_cell("one", &cell).unwrap();
        state.add_cell("two", &cell).unwrap();
        drop(state);
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
        let mut state = State::open(Some(&path)).unwrap();
        assert!(state.cell("one").is_some() && state.cell("two").is_none());
        state.add_cell("three", &cell).unwrap();
        let state = State::open(Some(&path)).unwrap();
        assert!(state.cell("one").is_some() && state.cell("three").is_some());
    }

    #[test]
    fn a_file_of_something_else_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["my notes", "my notes\n", "{\"a\":1}\n"] {
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
