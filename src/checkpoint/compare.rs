//! The files beside the weights, of an output held against those of its original.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use super::error::{Error, Result};
use super::file_names::{self, FileKind};
use super::locate::{Source, directory_of};
use super::readme::is_extended;
use super::shards::Checkpoint;
use crate::untrusted::{self, ReadError, open_regular};

/// How many directories deep is looked.
const MAX_DEPTH: usize = 8;

/// The file that `prune` adds a section to.
const README: &str = "README.md";

/// The longest one that is looked into, in bytes.
const MAX_README: u64 = 16 << 20;

/// Files without which a model is not loaded as its original was.
const NEEDED: [&str; 2] = ["config.json", "tokenizer.json"];

/// The first file of an output directory, by its name there, that the original has with other bytes, or a needed one that is
/// missing; `None` for an output that is a single file.
///
/// # Errors
/// [`Error::Io`] for what cannot be listed or read.
pub(crate) fn differing_companion(
    original: &Checkpoint,
    output: &Checkpoint,
) -> Result<Option<String>> {
    if matches!(output.source, Source::File(_)) {
        return Ok(None);
    }
    let (weights, beside) = (output.source.weights(), original.source.weights());
    let (output_dir, original_dir) = (directory_of(weights.path()), directory_of(beside.path()));
    for name in NEEDED {
        if original_dir.join(name).is_file() && !output_dir.join(name).is_file() {
            return Ok(Some(name.to_owned()));
        }
    }
    let is_shard = |name: &str| output.shards.iter().any(|shard| shard.file_name == name);
    directory(output_dir, original_dir, "", 0, &is_shard)
}

fn directory(
    output: &Path,
    original: &Path,
    prefix: &str,
    depth: usize,
    is_shard: &dyn Fn(&str) -> bool,
) -> Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(output).map_err(Error::io("list", output))? {
        names.push(entry.map_err(Error::io("list", output))?.file_name());
    }
    names.sort();
    for name in names {
        let (ours, theirs) = (output.join(&name), original.join(&name));
        let shown = format!("{prefix}{}", name.to_string_lossy());
        let differs = if ours.is_dir() && theirs.is_dir() && depth < MAX_DEPTH {
            directory(&ours, &theirs, &format!("{shown}/"), depth + 1, is_shard)?
        } else if depth == 0
            && (is_shard(&shown) || file_names::kind(&shown, false) == FileKind::Report)
        {
            // Each run has a report of its own.
            None
        } else if ours.is_file() && theirs.is_file() {
            let is_readme = depth == 0 && shown == README;
            let is_alike = have_equal_bytes(&ours, &theirs)?
                || (is_readme && has_only_a_section_more(&ours, &theirs)?);
            (!is_alike).then_some(shown)
        } else {
            None
        };
        if differs.is_some() {
            return Ok(differs);
        }
    }
    Ok(None)
}

/// Whether a README.md is the original's and what `prune` adds to it.
fn has_only_a_section_more(ours: &Path, theirs: &Path) -> Result<bool> {
    let text = |path: &Path| match untrusted::read(path, MAX_README) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(ReadError::TooLong { .. }) => Ok(None),
        Err(error) => Err(Error::reading(path)(error)),
    };
    let (ours, theirs) = (text(ours)?, text(theirs)?);
    Ok((ours.zip(theirs)).is_some_and(|(ours, theirs)| is_extended(&ours, &theirs)))
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
