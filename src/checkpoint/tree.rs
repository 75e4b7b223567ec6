//! A walk through a directory, in the order of the names: the same every time, on every file system.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};

/// A file or a directory within the one that is walked through.
#[derive(Debug)]
pub(super) struct Entry {
    /// Its path.
    pub path: PathBuf,
    /// Its path within that directory.
    pub within: PathBuf,
    /// Its name, with replacements where it is not Unicode.
    pub name: String,
    /// Directories between the two: 0 for what lies in the first.
    pub depth: usize,
}

impl Entry {
    /// The path within the directory, as messages have it.
    pub(super) fn shown(&self) -> String {
        slashed(&self.within)
    }
}

/// Hands every entry of `dir` to `visit`, which says whether to go into it.
///
/// # Errors
/// What cannot be listed, and those of `visit`.
pub(super) fn walk(dir: &Path, visit: &mut dyn FnMut(Entry) -> Result<bool>) -> Result<()> {
    directory(dir, Path::new(""), 0, visit)
}

fn directory(
    dir: &Path,
    within: &Path,
    depth: usize,
    visit: &mut dyn FnMut(Entry) -> Result<bool>,
) -> Result<()> {
    let here = dir.join(within);
    let mut names = Vec::new();
    for entry in fs::read_dir(&here).map_err(Error::io("list", &here))? {
        names.push(entry.map_err(Error::io("list", &here))?.file_name());
    }
    names.sort();
    for name in names {
        let within = within.join(&name);
        let entry = Entry {
            path: here.join(&name),
            within: within.clone(),
            name: name.to_string_lossy().into_owned(),
            depth,
        };
        if visit(entry)? {
            directory(dir, &within, depth + 1, visit)?;
        }
    }
    Ok(())
}

/// A path within a directory, as messages have it: with `/`.
pub(super) fn slashed(within: &Path) -> String {
    let parts: Vec<_> = within.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
}
