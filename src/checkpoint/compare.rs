//! The files beside the weights, of an output held against those that pruning copies from its original.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::companions::{self, Fate};
use super::error::{Error, Result};
use super::file_names::{self, FileKind};
use super::locate::{Source, Weights, directory_of};
use super::readme::is_extended;
use super::shards::Checkpoint;
use super::tree::{slashed, walk};
use crate::untrusted::{self, ReadError, open_regular, shown};

/// The file that `prune` adds a section to.
const README: &str = "README.md";

/// The longest one that is looked into, in bytes.
const MAX_README: u64 = 16 << 20;

/// In what the files beside the weights are not those that pruning leaves; names are relative to the directory, with `/`, and
/// sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompanionDifferences {
    /// Files of the original that are not there.
    pub missing: Vec<String>,
    /// Files and directories that the original does not have, or that pruning leaves out.
    pub added: Vec<String>,
    /// Files with other bytes.
    pub changed: Vec<String>,
}

impl CompanionDifferences {
    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.added.is_empty() && self.changed.is_empty()
    }
}

/// All of them by name: `missing: a, b; added: c`.
impl fmt::Display for CompanionDifferences {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [
            ("missing", &self.missing),
            ("added", &self.added),
            ("changed", &self.changed),
        ];
        let kinds = kinds.iter().filter(|(_, names)| !names.is_empty());
        for (index, (what, names)) in kinds.enumerate() {
            let names: Vec<String> = names.iter().map(|name| shown(name).to_string()).collect();
            let gap = if index == 0 { "" } else { "; " };
            write!(f, "{gap}{what}: {}", names.join(", "))?;
        }
        Ok(())
    }
}

/// Holds an output directory against what pruning `original` leaves in it: the same companions with the same bytes, and nothing
/// else that a loader could find. The report of the run and what an operating system leaves are not looked at, nor is anything
/// where the output is a single file.
///
/// # Errors
/// [`Error::Io`] for what cannot be listed or read.
pub(crate) fn companion_differences(
    original: &Checkpoint,
    output: &Checkpoint,
) -> Result<CompanionDifferences> {
    if matches!(output.source, Source::File(_)) {
        return Ok(CompanionDifferences::default());
    }
    let (weights, beside) = (output.source.weights(), original.source.weights());
    let (output_dir, original_dir) = (directory_of(weights.path()), directory_of(beside.path()));
    let index = match &beside {
        Weights::Sharded(path) => path.file_name().map(OsString::from),
        Weights::Single(_) => None,
    };
    // What pruning copies, and whether it is a directory.
    let mut expected = BTreeMap::new();
    for (entry, fate) in companions::list(original_dir, &names(original), index.as_ref())? {
        match fate {
            Fate::Directory => expected.insert(entry.within, true),
            Fate::Copied => expected.insert(entry.within, false),
            Fate::LeftOut(_) => None,
        };
    }
    let shards = names(output);
    let mut found = CompanionDifferences::default();
    walk(output_dir, &mut |entry| {
        let (path, within, is_root) = (&entry.path, &entry.within, entry.depth == 0);
        // Each run has a report of its own.
        let is_ours = entry.name == file_names::REPORT
            || shards.iter().any(|name| within.as_os_str() == name);
        if is_root && is_ours {
            return Ok(false);
        }
        let is_directory = path.is_dir() && !path.is_symlink();
        match expected.get(within) {
            Some(true) if is_directory => return Ok(true),
            Some(false) if path.is_file() => {
                expected.remove(within);
                if !is_alike(path, &original_dir.join(within), within)? {
                    found.changed.push(entry.shown());
                }
            }
            None if path.is_file() && is_litter(&entry.name, is_root) => {}
            None if is_root && entry.name == README && has_only_a_section(path, None)? => {}
            _ if is_directory => found.added.push(entry.shown() + "/"),
            _ => found.added.push(entry.shown()),
        }
        Ok(false)
    })?;
    // An empty directory is nothing to miss.
    let missing = expected.iter().filter(|(_, is_directory)| !**is_directory);
    found.missing = missing.map(|(path, _)| slashed(path)).collect();
    Ok(found)
}

/// The names of the files of weights.
fn names(checkpoint: &Checkpoint) -> Vec<OsString> {
    let names = checkpoint
        .shards
        .iter()
        .map(|shard| shard.path.file_name().unwrap_or_default().to_os_string());
    names.collect()
}

/// Whether a file is the original's, but for the section that a README.md gets.
fn is_alike(ours: &Path, theirs: &Path, within: &Path) -> Result<bool> {
    let is_readme = within == Path::new(README);
    Ok(have_equal_bytes(ours, theirs)? || (is_readme && has_only_a_section(ours, Some(theirs))?))
}

fn is_litter(name: &str, is_root: bool) -> bool {
    file_names::kind(name, !is_root) == FileKind::Litter
}

/// Whether a README.md is the original's, or an empty one where there is none, and what `prune` adds to it.
fn has_only_a_section(ours: &Path, theirs: Option<&Path>) -> Result<bool> {
    let text = |path: &Path| match untrusted::read(path, MAX_README) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(ReadError::TooLong { .. } | ReadError::NotRegular) => Ok(None),
        Err(error) => Err(Error::reading(path)(error)),
    };
    let theirs = match theirs {
        Some(theirs) => text(theirs)?,
        None => Some(String::new()),
    };
    Ok((text(ours)?.zip(theirs)).is_some_and(|(ours, theirs)| is_extended(&ours, &theirs)))
}

fn have_equal_bytes(ours: &Path, theirs: &Path) -> Result<bool> {
    let open = |path: &Path| open_regular(path).map_err(Error::reading(path));
    let ((mut ours_file, len), (mut theirs_file, other_len)) = (open(ours)?, open(theirs)?);
    if len != other_len {
        return Ok(false);
    }
    let (mut one, mut other) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(one.len());
        let read = |file: &mut fs::File, bytes: &mut [u8], path: &Path| {
            file.read_exact(bytes).map_err(Error::io("read", path))
        };
        read(&mut ours_file, &mut one[..part], ours)?;
        read(&mut theirs_file, &mut other[..part], theirs)?;
        if one[..part] != other[..part] {
            return Ok(false);
        }
        left -= part as u64;
    }
    Ok(true)
}
