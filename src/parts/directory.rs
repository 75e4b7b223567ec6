//! The directory in which the shards of a run wait until all are there.
//!
//! ```text
//!   NAME.parts/
//!     model-00001-of-00003.safetensors       a finished shard, renamed from a staged one
//!     manifest/run.json                      what run this is: version, options, norms, input
//!     manifest/model-00001-of-00003.safetensors.json    that the shard is finished, and of what
//!     manifest/norms.safetensors             column norms, where the run measured them itself
//!     manifest/calibrated.json               what they were measured on
//!     manifest/merged.json                   run.json, while the directory is removed
//! ```
//!
//! A shard is flushed to the disk, renamed to its name, and then recorded, so that a record tells the truth whatever is killed
//! in between. A file without a record is nothing. When the output is in place, run.json is renamed before anything is removed:
//! a removal that is killed is known by that, and the next command finishes it. The directory has no index and no config.json: nothing takes it for a
//! model.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::Error;
use super::record::{CalibratedRecord, InputRecord, RunRecord, ShardRecord};
use crate::checkpoint::{self, NewFile, same_file};
use crate::untrusted::{self, shown};

/// What is added to the name of the output.
const SUFFIX: &str = ".parts";
/// The directory of the records.
const MANIFEST: &str = "manifest";
const RUN: &str = "run.json";
const NORMS: &str = "norms.safetensors";
const CALIBRATED: &str = "calibrated.json";
const MERGED: &str = "merged.json";
/// The longest record, in bytes.
const MAX_RECORD: u64 = 256 << 20;

/// A directory that holds finished shards.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Directory {
    /// Where the parts of an output are: beside it, with `.parts` added to its name.
    pub(crate) fn of_output(output: &Path) -> Self {
        let mut name = output.file_name().unwrap_or_default().to_os_string();
        name.push(SUFFIX);
        Self {
            path: output.with_file_name(name),
        }
    }

    /// A directory of this path.
    pub(crate) fn at(path: &Path) -> Self {
        let path = path.to_path_buf();
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn shard(&self, file: &str) -> PathBuf {
        self.path.join(file)
    }

    /// Where a run keeps norms that it has measured.
    pub(crate) fn norms(&self) -> PathBuf {
        self.manifest(NORMS)
    }

    fn manifest(&self, name: &str) -> PathBuf {
        self.path.join(MANIFEST).join(name)
    }

    fn record(&self, file: &str) -> PathBuf {
        self.manifest(&format!("{file}.json"))
    }

    /// The run that the parts are of, if there is one.
    pub(crate) fn run(&self) -> Result<Option<RunRecord>, Error> {
        read(&self.manifest(RUN))
    }

    /// The path of the record of the run, for messages.
    pub(crate) fn run_path(&self) -> PathBuf {
        self.manifest(RUN)
    }

    /// What the norms that are kept were measured on, if that is recorded.
    pub(crate) fn calibrated(&self) -> Result<Option<CalibratedRecord>, Error> {
        read(&self.manifest(CALIBRATED))
    }

    /// Forgets the norms that are kept.
    pub(crate) fn forget_norms(&self) -> Result<(), Error> {
        remove_file(&self.norms())
    }

    /// The path of the record of what the norms were measured on, for messages.
    pub(crate) fn calibrated_path(&self) -> PathBuf {
        self.manifest(CALIBRATED)
    }

    /// Records what norms were measured on, before they are kept.
    pub(crate) fn keep_calibrated(&self, record: &CalibratedRecord) -> Result<(), Error> {
        write(&self.calibrated_path(), record, true)
    }

    /// What is recorded of a shard, if it is finished.
    pub(crate) fn finished(&self, file: &str) -> Result<Option<ShardRecord>, Error> {
        read(&self.record(file))
    }

    /// The path of a shard's record, for messages.
    pub(crate) fn record_path(&self, file: &str) -> PathBuf {
        self.record(file)
    }

    /// Makes the directory, if it is not there, so that files can be kept in it.
    ///
    /// # Errors
    /// [`Error::NotParts`] if it holds other things.
    pub(crate) fn make(&self) -> Result<(), Error> {
        let manifest = self.path.join(MANIFEST);
        match fs::create_dir(&self.path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.path.is_dir() => {
                // In this order: another part may make the manifest in between.
                let is_ours =
                    is_empty(&self.path).map_err(io_at("list", &self.path))? || manifest.is_dir();
                if !is_ours {
                    return Err(Error::NotParts {
                        directory: self.path.clone(),
                    });
                }
            }
            Err(error) => return Err(io_at("make", &self.path)(error)),
        }
        match fs::create_dir(&manifest) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(io_at("make", &manifest)(error))
            }
            _ => Ok(()),
        }
    }

    /// Says what run the directory is for, or checks that it is for this one. Several parts may do so at a time: the first
    /// says it.
    ///
    /// # Errors
    /// [`Error::NotParts`], [`Error::OtherSettings`], [`Error::OtherInput`].
    pub(crate) fn begin(&self, run: &RunRecord) -> Result<(), Error> {
        self.make()?;
        if self.run()?.is_none() {
            match write(&self.manifest(RUN), run, false) {
                Err(Error::Checkpoint(checkpoint::Error::OutputExists { .. })) => {}
                written => return written,
            }
        }
        match self.run()? {
            Some(there) => self.same_run(&there, run),
            None => Err(Error::NotParts {
                directory: self.path.clone(),
            }),
        }
    }

    /// Checks that the parts here are of this run.
    ///
    /// # Errors
    /// [`Error::OtherSettings`], [`Error::OtherInput`].
    pub(crate) fn same_run(&self, there: &RunRecord, run: &RunRecord) -> Result<(), Error> {
        let path = self.run_path();
        let differences = there.settings.differences(&run.settings);
        if !differences.is_empty() {
            return Err(Error::OtherSettings { path, differences });
        }
        if there.input == run.input {
            return Ok(());
        }
        let pairs = there.input.iter().zip(&run.input);
        let what = match pairs.clone().find(|(theirs, ours)| theirs != ours) {
            Some((theirs, ours)) if theirs.file != ours.file => format!(
                "it had a file {}, not {}",
                shown(&theirs.file),
                shown(&ours.file)
            ),
            Some((theirs, ours)) if theirs.bytes != ours.bytes => format!(
                "{} had {} bytes, not {}",
                shown(&ours.file),
                theirs.bytes,
                ours.bytes
            ),
            Some((_, ours)) => format!("{} had another header", shown(&ours.file)),
            None => format!(
                "it had {} files of weights, not {}",
                there.input.len(),
                run.input.len()
            ),
        };
        Err(Error::OtherInput { path, what })
    }

    /// Records that a shard is finished.
    pub(crate) fn keep(&self, file: &str, record: &ShardRecord) -> Result<(), Error> {
        write(&self.record(file), record, true)
    }

    /// Forgets a shard: its record first, so that none is left without its file.
    pub(crate) fn forget(&self, file: &str) -> Result<(), Error> {
        remove_file(&self.record(file))?;
        remove_file(&self.shard(file))
    }

    /// Says that the output is in place: [`Self::finish_removal`] removes the parts, in this command or the next.
    pub(crate) fn mark_merged(&self) -> Result<(), Error> {
        let run = self.run_path();
        fs::rename(&run, self.manifest(MERGED)).map_err(io_at("rename", &run))
    }

    /// Removes the parts of an output that is in place, and the directory if nothing else is in it; tells whether there was
    /// anything to remove. If the output is not there,
    /// what is left of the parts is all that there is of it: it is a run's again.
    pub(crate) fn finish_removal(&self, output: &Path) -> Result<bool, Error> {
        let merged = self.manifest(MERGED);
        let Some(run) = read::<RunRecord>(&merged)? else {
            // Two directories are the very last to go, the inner one first; only empty ones can be removed.
            let _ = output.exists() && fs::remove_dir(self.path.join(MANIFEST)).is_ok();
            return Ok(output.exists() && fs::remove_dir(&self.path).is_ok());
        };
        if output.exists() {
            self.clear(&run)?;
            return Ok(true);
        }
        if self.run()?.is_none() {
            fs::rename(&merged, self.run_path()).map_err(io_at("rename", &merged))?;
        }
        Ok(false)
    }

    /// Removes what a run has kept here; that its output is in place is forgotten last.
    fn clear(&self, run: &RunRecord) -> Result<(), Error> {
        for InputRecord { file, .. } in &run.input {
            // The record may be a stranger's, and lead elsewhere.
            if Path::new(file).file_name() == Some(file.as_ref()) {
                self.forget(file)?;
            }
        }
        for name in [NORMS, CALIBRATED, MERGED] {
            remove_file(&self.manifest(name))?;
        }
        for path in [self.path.join(MANIFEST), self.path.clone()] {
            checkpoint::remove_orphans(&path);
            if let Err(error) = fs::remove_dir(&path) {
                log::warn!("{} is left: {error}", untrusted::shown_path(&path));
            }
        }
        Ok(())
    }

    /// Whether another path leads to the same directory.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        same_file(&self.path, &other.path)
    }
}

/// Removes a file, if it is there.
fn remove_file(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at("remove", path)(error)),
        _ => Ok(()),
    }
}

fn is_empty(dir: &Path) -> io::Result<bool> {
    Ok(fs::read_dir(dir)?.next().is_none())
}

fn io_at(action: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_path_buf();
    move |source| {
        Error::Checkpoint(checkpoint::Error::Io {
            action,
            path: path.clone(),
            source,
        })
    }
}

/// Writes a record, which appears whole, and is on the disk then.
fn write(path: &Path, record: &impl Serialize, overwrite: bool) -> Result<(), Error> {
    let json = serde_json::to_vec_pretty(record).map_err(|e| io_at("write", path)(e.into()))?;
    Ok(NewFile::create(path, overwrite)?.write(&json, true)?)
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    let bytes = match untrusted::read(path, MAX_RECORD) {
        Ok(bytes) => bytes,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(reason) => {
            return Err(Error::Manifest {
                path: path.to_path_buf(),
                reason,
            });
        }
    };
    let read = serde_json::from_slice(&bytes);
    read.map(Some).map_err(|error| Error::Damaged {
        path: path.to_path_buf(),
        reason: shown(&error.to_string()).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_that_start_at_the_same_time_agree_on_their_directory() {
        const PARTS: usize = 4;
        let dir = tempfile::tempdir().unwrap();
        let directories: Vec<Directory> = (0..3000)
            .map(|round| Directory::of_output(&dir.path().join(round.to_string())))
            .collect();
        // All parts make a directory at the same moment, round after round.
        let start = std::sync::Barrier::new(PARTS);
        std::thread::scope(|scope| {
            for _ in 0..PARTS {
                scope.spawn(|| {
                    let mut refused = Ok(());
                    for directory in &directories {
                        start.wait();
                        // Not at once: the others would wait for this part for ever.
                        refused = refused.and(directory.make());
                    }
                    refused.unwrap();
                });
            }
        });
    }

    #[test]
    fn a_directory_of_other_things_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let parts = Directory::of_output(&dir.path().join("out"));
        fs::create_dir(parts.path()).unwrap();
        fs::write(parts.path().join("thesis.tex"), "of three years").unwrap();
        assert!(matches!(parts.make(), Err(Error::NotParts { .. })));
    }
}
