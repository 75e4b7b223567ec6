//! The files beside the weights, of an output held against those that pruning copies from its original.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::companions;
use super::error::{Error, Result};
use super::file_names::{self, FileKind};
use super::locate::{Source, Weights, directory_of};
use super::readme::is_extended;
use super::shards::Checkpoint;
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
    let mut comparison = Comparison {
        output: output_dir,
        original: original_dir,
        expected: companions::expected(original_dir, &names(original), index.as_ref())?,
        shards: names(output),
        seen: BTreeSet::new(),
        found: CompanionDifferences::default(),
    };
    comparison.directory(Path::new(""))?;
    let Comparison {
        expected,
        seen,
        mut found,
        ..
    } = comparison;
    let missing = expected.into_iter().filter(|(path, is_directory)| {
        // An empty directory is nothing to miss.
        !*is_directory && !seen.contains(path)
    });
    found.missing = missing.map(|(path, _)| slashed(&path)).collect();
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

struct Comparison<'a> {
    output: &'a Path,
    original: &'a Path,
    /// What pruning copies, and whether it is a directory.
    expected: BTreeMap<PathBuf, bool>,
    /// The output's files of weights.
    shards: Vec<OsString>,
    /// The files of the output that are expected.
    seen: BTreeSet<PathBuf>,
    found: CompanionDifferences,
}

impl Comparison<'_> {
    fn directory(&mut self, within: &Path) -> Result<()> {
        let here = self.output.join(within);
        let is_root = within.as_os_str().is_empty();
        let mut names = Vec::new();
        for entry in fs::read_dir(&here).map_err(Error::io("list", &here))? {
            names.push(entry.map_err(Error::io("list", &here))?.file_name());
        }
        names.sort();
        for name in names {
            // Each run has a report of its own.
            if is_root && (self.shards.contains(&name) || name == file_names::REPORT) {
                continue;
            }
            let (path, within) = (here.join(&name), within.join(&name));
            let is_directory = path.is_dir() && !path.is_symlink();
            match self.expected.get(&within) {
                Some(true) if is_directory => self.directory(&within)?,
                Some(false) if path.is_file() => {
                    if !self.is_alike(&within)? {
                        self.found.changed.push(slashed(&within));
                    }
                    self.seen.insert(within);
                }
                None if path.is_file() && is_litter(&name, is_root) => {}
                None if is_root && name == README && has_only_a_section(&path, None)? => {}
                _ if is_directory => self.found.added.push(slashed(&within) + "/"),
                _ => self.found.added.push(slashed(&within)),
            }
        }
        Ok(())
    }

    /// Whether a file is the original's, but for the section that a README.md gets.
    fn is_alike(&self, within: &Path) -> Result<bool> {
        let (ours, theirs) = (self.output.join(within), self.original.join(within));
        let is_readme = within == Path::new(README);
        Ok(have_equal_bytes(&ours, &theirs)?
            || (is_readme && has_only_a_section(&ours, Some(&theirs))?))
    }
}

fn is_litter(name: &std::ffi::OsStr, is_root: bool) -> bool {
    file_names::kind(&name.to_string_lossy(), !is_root) == FileKind::Litter
}

/// A path within a directory, as messages have it.
fn slashed(within: &Path) -> String {
    let parts: Vec<_> = within.iter().map(|part| part.to_string_lossy()).collect();
    parts.join("/")
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
