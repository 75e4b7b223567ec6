//! Runs that are done shard by shard: by several machines, or with interruptions.
//!
//! Once the column norms are there, a shard's output is a function of the shard, the norms and the options. So shards can be
//! pruned anywhere and in any order. Each finished one waits in a directory beside the output (`directory.rs`) with a record of
//! what it was made from (`record.rs`), until all are there and are put together (`merge.rs`). What is there is checked
//! (`check.rs`) before it is believed: a file is known by its bytes (`content.rs`), never by its times.

mod check;
mod content;
mod directory;
mod error;
mod merge;
mod part;
mod record;
mod settings;
mod work;

pub(crate) use check::{State, state};
pub(crate) use content::Content;
pub(crate) use directory::Directory;
pub use error::{Error, Problem};
pub(crate) use merge::{Complete, complete};
pub use part::{NoPart, Part};
pub(crate) use record::{CalibratedRecord, InputRecord, RunRecord};
pub(crate) use settings::Settings;
pub(crate) use work::prune_shards;

/// Reads what a directory of parts has on its run and on the shard `model.safetensors`, as a run that goes on does: for the tests
/// of hostile files. `true` if both can be used.
///
/// # Errors
/// Those of a manifest.
#[doc(hidden)]
pub fn read_records(directory: &std::path::Path) -> Result<bool, Error> {
    let directory = Directory::at(directory);
    let (run, shard) = (directory.run(), directory.finished("model.safetensors"));
    let (Some(run), Some(shard)) = (run?, shard?) else {
        return Ok(false);
    };
    let _ = run.settings.differences(&shard.settings);
    Ok(true)
}
