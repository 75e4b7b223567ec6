//! Whether a finished shard is still what its record says, and its input what it was made from.

use super::directory::Directory;
use super::error::{Error, Problem};
use super::record::{InputRecord, ShardRecord};
use super::settings::Settings;
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

/// Looks at a shard in a directory of parts. A file whose recorded stamp tells its bytes, and that still has it, is taken for
/// what it was; any other is hashed.
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
    // A rule that goes by scores looks at the weights of all shards.
    let pruned = plan.pruned().filter(|(tensor, _)| tensor.shard == shard);
    let shares = pruned.map(|(tensor, _)| tensor.asked());
    if !shares.eq(record.tensors.iter().map(|tensor| tensor.asked)) {
        return Ok(State::Wrong(Problem::Shares));
    }
    if !record.input_content.is_of(&input.path, stop)? {
        return Ok(State::Wrong(Problem::InputBytes));
    }
    input.check_still_unchanged()?;
    let path = directory.shard(&input.file_name);
    let Ok(meta) = path.metadata() else {
        return Ok(State::Wrong(Problem::NoFile));
    };
    if meta.len() != input.len {
        return Ok(State::Wrong(Problem::OutputLength));
    }
    if !record.output_content.is_of(&path, stop)? {
        return Ok(State::Wrong(Problem::OutputBytes));
    }
    Ok(State::Finished(Box::new(record)))
}
