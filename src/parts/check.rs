//! Whether a finished shard is still what its record says, and its input what it was made from.

use std::path::Path;

use super::directory::Directory;
use super::error::{Error, Problem};
use super::record::{Content, InputRecord, ShardRecord};
use super::settings::Settings;
use crate::checkpoint;
use crate::checksum;
use crate::plan::Plan;
use crate::stop::Stop;

/// What there is of a shard.
#[derive(Debug)]
pub(crate) enum State {
    /// Nothing that is finished.
    Missing,
    /// It is finished, and right.
    Finished(Box<ShardRecord>),
    /// It is recorded, but wrong.
    Wrong(Problem),
}

/// Looks at a shard in a directory of parts. A file that has the time of change of its record is taken for what it was; any
/// other is hashed.
///
/// # Errors
/// [`Error::OtherSettings`] for a shard of another run; [`Error::Damaged`] and [`Error::Manifest`] for a record that cannot be
/// read; [`Error::Stopped`].
pub(crate) fn state(
    plan: &Plan,
    shard: usize,
    settings: &Settings,
    directory: &Directory,
    stop: &Stop,
) -> Result<State, Error> {
    let input = &plan.checkpoint().shards[shard];
    let Some(record) = directory.finished(&input.file_name)? else {
        return Ok(State::Missing);
    };
    let differences = record.settings.differences(settings);
    if !differences.is_empty() {
        return Err(Error::OtherSettings {
            path: directory.record_path(&input.file_name),
            differences,
        });
    }
    if record.input != InputRecord::of(input) {
        return Ok(State::Wrong(Problem::InputHeader));
    }
    let pruned = plan.pruned().filter(|(tensor, _)| tensor.shard == shard);
    let names = pruned.map(|(tensor, _)| tensor.name.as_str());
    if !names.eq(record.tensors.iter().map(|tensor| tensor.name.as_str())) {
        return Ok(State::Wrong(Problem::Tensors));
    }
    if !holds(&input.path, input.modified(), &record.input_content, stop)? {
        return Ok(State::Wrong(Problem::InputBytes));
    }
    let path = directory.shard(&input.file_name);
    let Ok(meta) = path.metadata() else {
        return Ok(State::Wrong(Problem::NoFile));
    };
    if meta.len() != input.len {
        return Ok(State::Wrong(Problem::OutputLength));
    }
    if !holds(&path, modified(&meta), &record.output_content, stop)? {
        return Ok(State::Wrong(Problem::OutputBytes));
    }
    Ok(State::Finished(Box::new(record)))
}

/// Whether a file that was last written to at `modified` has this content.
fn holds(
    path: &Path,
    modified: Option<u64>,
    content: &Content,
    stop: &Stop,
) -> Result<bool, Error> {
    if modified.is_some() && modified == content.modified {
        return Ok(true);
    }
    Ok(sha256(path, stop)? == content.sha256)
}

/// The SHA-256 of a file.
pub(crate) fn sha256(path: &Path, stop: &Stop) -> Result<String, Error> {
    let sum = checksum::of_file(path, stop).map_err(|source| checkpoint::Error::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    sum.ok_or(Error::Stopped)
}

/// When a file was last written to, in nanoseconds since 1970, where the system tells.
pub(crate) fn modified(meta: &std::fs::Metadata) -> Option<u64> {
    let since = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH);
    u64::try_from(since.ok()?.as_nanos()).ok()
}
