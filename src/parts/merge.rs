//! Finished shards put together to the output of one run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{State, state};
use super::directory::Directory;
use super::error::{Error, Problem};
use super::record::ShardRecord;
use super::settings::Settings;
use crate::checkpoint::{Output, OutputOptions};
use crate::device::DeviceInfo;
use crate::plan::Plan;
use crate::prune::{Outcome, Stages};
use crate::stop::Stop;

/// A run whose shards are all finished.
#[derive(Debug)]
pub(crate) struct Complete {
    /// The files of the shards, in their order.
    files: Vec<PathBuf>,
    /// What is recorded of them.
    records: Vec<ShardRecord>,
    device: DeviceInfo,
}

/// Looks for every shard in the directories, and checks it.
///
/// # Errors
/// [`Error::Missing`], [`Error::Double`], [`Error::Changed`], and those of [`state`].
pub(crate) fn complete(
    plan: &Plan,
    settings: &Settings,
    directories: &[Directory],
    stop: &Stop,
) -> Result<Complete, Error> {
    let shards = &plan.checkpoint().shards;
    let (mut files, mut records, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for (shard, input) in shards.iter().enumerate() {
        let mut found: Option<&Directory> = None;
        for directory in directories {
            match state(plan, shard, settings, directory, stop)? {
                State::Missing => {}
                State::Wrong(problem) => {
                    return Err(Error::Changed {
                        path: directory.shard(&input.file_name),
                        problem,
                    });
                }
                State::Finished(record) => {
                    if let Some(first) = found {
                        return Err(Error::Double {
                            file: input.file_name.clone(),
                            first: first.path().to_path_buf(),
                            second: directory.path().to_path_buf(),
                        });
                    }
                    found = Some(directory);
                    files.push(directory.shard(&input.file_name));
                    records.push(*record);
                }
            }
        }
        if found.is_none() {
            missing.push(input.file_name.clone());
        }
    }
    match device_of(&records) {
        Some(device) if missing.is_empty() => Ok(Complete {
            files,
            records,
            device,
        }),
        _ => {
            let first = directories.first();
            Err(Error::Missing {
                directory: first.map_or_else(PathBuf::new, |first| first.path().to_path_buf()),
                shards: shards.len(),
                missing,
            })
        }
    }
}

/// The device of all records; of several, the first under the names of all.
fn device_of(records: &[ShardRecord]) -> Option<DeviceInfo> {
    let mut device = records.first()?.device.clone();
    let mut names: Vec<&str> = Vec::new();
    for record in records {
        if !names.contains(&record.device.name.as_str()) {
            names.push(&record.device.name);
        }
    }
    device.name = names.join(", ");
    Some(device)
}

impl Complete {
    /// Makes the output: the shards, the index and everything else of the model directory. It appears whole or not at all; the
    /// parts stay.
    ///
    /// # Errors
    /// [`Error::Checkpoint`].
    pub(crate) fn assemble(
        &self,
        plan: &Plan,
        output: &Path,
        options: &OutputOptions,
    ) -> Result<Outcome, Error> {
        let finished = Output::assemble(plan.checkpoint(), output, options, &self.files)?;
        let recorded = self.records.iter().flat_map(|record| &record.tensors);
        let recorded: BTreeMap<&str, _> = recorded
            .map(|tensor| (tensor.name.as_str(), tensor.counts))
            .collect();
        let mut stages = Stages::default();
        for record in &self.records {
            stages += record.stages;
        }
        let seconds: f64 = self.records.iter().map(|record| record.seconds).sum();
        let tensors = plan.tensors().iter();
        Ok(Outcome {
            counts: tensors
                .map(|tensor| recorded.get(tensor.name.as_str()).copied())
                .collect(),
            elapsed: Duration::try_from_secs_f64(seconds).unwrap_or_default(),
            stages,
            finished,
            device_failure: None,
        })
    }

    /// The device that pruned; of several, the first under the names of all.
    pub(crate) const fn device(&self) -> &DeviceInfo {
        &self.device
    }

    /// What devices failed at.
    pub(crate) fn device_failures(&self) -> Vec<String> {
        let failures = self.records.iter();
        failures
            .filter_map(|record| record.device_failure.clone())
            .collect()
    }

    /// Checks that files of weights of the output, by their names, have the SHA-256 that was recorded when they were written.
    ///
    /// # Errors
    /// [`Error::Changed`].
    pub(crate) fn check(
        &self,
        output: &Path,
        checksums: &BTreeMap<String, String>,
    ) -> Result<(), Error> {
        for record in &self.records {
            let file = &record.input.file;
            if checksums.get(file) != Some(&record.output_content.sha256) {
                return Err(Error::Changed {
                    path: output.join(file),
                    problem: Problem::OutputBytes,
                });
            }
        }
        Ok(())
    }
}
