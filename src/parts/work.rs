//! Shards pruned one by one, each flushed, hashed and recorded while the next is pruned.

use std::thread::{self, ScopedJoinHandle};

use super::content::Content;
use super::directory::Directory;
use super::error::Error;
use super::record::{InputRecord, ShardRecord, TensorRecord};
use super::settings::Settings;
use crate::checkpoint::Output;
use crate::device::DeviceInfo;
use crate::plan::Plan;
use crate::prune::ShardOutcome;
use crate::stop::Stop;

/// Prunes `shards` into the directory with `prune`, which is given the number of a shard and its staged output, and tells which
/// device it had. A shard that is there already is replaced. `known` are the contents of the inputs, or nothing.
///
/// # Errors
/// Those of `prune`, and [`Error::Checkpoint`]. What was finished before is recorded.
pub(crate) fn prune_shards<E: From<Error> + Send>(
    plan: &Plan,
    settings: &Settings,
    (directory, known): (&Directory, &[Content]),
    shards: &[usize],
    mut prune: impl FnMut(usize, &Output) -> Result<(ShardOutcome, DeviceInfo), E>,
) -> Result<(), E> {
    thread::scope(|scope| {
        let mut settling: Option<ScopedJoinHandle<'_, Result<(), Error>>> = None;
        for &shard in shards {
            let file = &plan.checkpoint().shards[shard].file_name;
            directory.forget(file)?;
            let path = directory.shard(file);
            let output = Output::create_shard(plan.checkpoint(), shard, &path, true);
            let output = output.map_err(Error::from)?;
            let pruned = prune(shard, &output);
            wait(settling.take())?;
            let pruned = pruned?;
            let known = known.get(shard);
            settling =
                Some(scope.spawn(move || {
                    settle(plan, settings, (directory, known), shard, output, pruned)
                }));
        }
        wait(settling)?;
        Ok(())
    })
}

fn wait(settling: Option<ScopedJoinHandle<'_, Result<(), Error>>>) -> Result<(), Error> {
    match settling.map(ScopedJoinHandle::join) {
        Some(Ok(settled)) => settled,
        Some(Err(panic)) => std::panic::resume_unwind(panic),
        None => Ok(()),
    }
}

/// Flushes a shard and renames it to its name, hashes it and its input, and records it.
fn settle(
    plan: &Plan,
    settings: &Settings,
    (directory, known): (&Directory, Option<&Content>),
    shard: usize,
    output: Output,
    (outcome, device): (ShardOutcome, DeviceInfo),
) -> Result<(), Error> {
    let path = output.finish()?.path;
    let input = &plan.checkpoint().shards[shard];
    // What is finished is kept, also of a run that is asked to stop.
    let never = Stop::new();
    let (input_content, output_content) = thread::scope(|scope| {
        let of_input = scope.spawn(|| Content::of_shard(input, known, &never));
        let of_output = Content::read(&path, &never);
        match of_input.join() {
            Ok(of_input) => (of_input, of_output),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let record = ShardRecord {
        settings: settings.clone(),
        input: InputRecord::of(input),
        input_content: input_content?,
        output_content: output_content?,
        device,
        seconds: outcome.elapsed.as_secs_f64(),
        stages: outcome.stages,
        device_failure: outcome.device_failure.map(|error| error.to_string()),
        tensors: TensorRecord::of_shard(plan, shard, &outcome.counts),
    };
    directory.keep(&input.file_name, &record)
}
