//! From the name of a model to the file that lists its weights.
//!
//! A model is a `.safetensors` file, a `.safetensors.index.json`, a Hugging Face model directory, or `org/name`, which is
//! looked up in the local Hugging Face cache (`hub_cache.rs`). A path that exists always wins over the cache. Nothing is
//! ever downloaded.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::file_names::{
    ADAPTER_CONFIG, INDEX_SUFFIX, SINGLE_FILE, WEIGHTS_SUFFIX, holds_other_weights,
};
use super::hub_cache::{self, Snapshot};
use crate::untrusted::named;

/// Where a checkpoint was found, and so what form its output takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// One file of weights, alone; the output is one file.
    File(PathBuf),
    /// An index of shards; the output is a directory, like the one that contains the index.
    Index(PathBuf),
    /// A model directory; the output is a directory.
    Directory {
        /// The model directory.
        dir: PathBuf,
        /// The file in it that lists the weights.
        weights: Weights,
    },
    /// A snapshot in the Hugging Face cache, given as `org/name` or by its path; the output is a directory outside the
    /// cache.
    Cache {
        /// The repository: `org/name`.
        id: String,
        /// The `models--org--name` directory, which holds snapshots and blobs.
        repository: PathBuf,
        /// The snapshot directory.
        dir: PathBuf,
        /// The file in it that lists the weights.
        weights: Weights,
    },
}

/// The file that lists the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// All weights are in this `.safetensors` file.
    Single(PathBuf),
    /// This `.safetensors.index.json` names the shards beside it.
    Sharded(PathBuf),
}

impl Source {
    /// The file that lists the weights.
    #[must_use]
    pub fn weights(&self) -> Weights {
        match self {
            Self::File(path) => Weights::Single(path.clone()),
            Self::Index(path) => Weights::Sharded(path.clone()),
            Self::Directory { weights, .. } | Self::Cache { weights, .. } => weights.clone(),
        }
    }

    /// The path that leads to the same model in the same form: the directory of a model directory, whose one file of weights
    /// alone would be another model.
    pub(crate) fn path(&self) -> &Path {
        match self {
            Self::File(path) | Self::Index(path) => path,
            Self::Directory { dir, .. } | Self::Cache { dir, .. } => dir,
        }
    }

    /// The directory whose other files are copied to the output; `None` for a single file.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::File(_) => None,
            Self::Index(path) => Some(directory_of(path)),
            Self::Directory { dir, .. } | Self::Cache { dir, .. } => Some(dir),
        }
    }
}

impl Weights {
    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Single(path) | Self::Sharded(path) => path,
        }
    }
}

/// Finds the checkpoint that `model` means.
///
/// # Errors
/// [`Error::NoSuchModel`] if nothing is found, [`Error::NotACheckpoint`] if what is found is not a checkpoint, and
/// [`Error::BrokenCache`] if the cache does not say which snapshot is current.
pub fn locate(model: &Path) -> Result<Source> {
    locate_with(model, hub_cache::directory().as_deref())
}

/// The checkpoint at a path: one that is not looked up in the cache, and need not be Unicode.
///
/// # Errors
/// [`Error::NotACheckpoint`] and [`Error::Io`].
pub(super) fn locate_path(path: &Path) -> Result<Source> {
    let meta = fs::metadata(path).map_err(Error::io("open", path))?;
    if meta.is_file() {
        return at_file(path);
    }
    let (dir, weights) = (path.to_path_buf(), in_directory(path)?);
    Ok(Source::Directory { dir, weights })
}

/// [`locate`] with the cache's `hub` directory given.
fn locate_with(path: &Path, hub: Option<&Path>) -> Result<Source> {
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let (dir, weights) = (path.to_path_buf(), in_directory(path)?);
            Ok(match hub_cache::repository_of(path) {
                Some(repository) => Source::Cache {
                    id: repository.id,
                    repository: repository.dir,
                    dir,
                    weights,
                },
                None => Source::Directory { dir, weights },
            })
        }
        Ok(_) => at_file(path),
        Err(error) if nothing_there(&error) => match hub {
            // A dangling link exists as a path, so it wins over the cache.
            _ if path.symlink_metadata().is_ok() => Err(Error::io("open", path)(error)),
            Some(hub) => {
                let Snapshot {
                    id,
                    repository,
                    dir,
                } = hub_cache::snapshot(path, hub)?;
                Ok(Source::Cache {
                    id,
                    repository,
                    weights: in_directory(&dir)?,
                    dir,
                })
            }
            None => Err(Error::NoSuchModel {
                model: path.to_owned(),
                searched: None,
            }),
        },
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

/// `path` without its last name; `.` where that leaves nothing.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether the error says that the path leads nowhere (a part of it missing, or a file; or no path at all).
fn nothing_there(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | NotADirectory | InvalidFilename | InvalidInput
    )
}

fn at_file(path: &Path) -> Result<Source> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(INDEX_SUFFIX) {
        Ok(Source::Index(path.to_path_buf()))
    } else if name.ends_with(WEIGHTS_SUFFIX) {
        Ok(Source::File(path.to_path_buf()))
    } else {
        Err(Error::NotACheckpoint {
            path: path.to_path_buf(),
            problem: "its name ends in neither .safetensors nor .safetensors.index.json".to_owned(),
        })
    }
}

fn in_directory(dir: &Path) -> Result<Weights> {
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
        return Ok(Weights::Sharded(index));
    }
    let single = dir.join(SINGLE_FILE);
    if single.exists() {
        return Ok(Weights::Single(single));
    }

    let is_adapter = dir.join(ADAPTER_CONFIG).exists();
    let mut weights = Vec::new();
    let mut others = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(WEIGHTS_SUFFIX) && !(is_adapter && name.starts_with("adapter_")) {
            weights.push(entry.path())
        } else {
            others.push(name)
        }
    }
    weights.sort();
    others.sort();
    let problem = match weights.as_slice() {
        [only] => return Ok(Weights::Single(only.clone())),
        [] if is_adapter => "it is an adapter (adapter_config.json), a change to another model and not a model; merge it \
                             into its base model first, and prune that"
            .to_owned(),
        [] if others.is_empty() => "the directory is empty".to_owned(),
        // Weights in other formats are named before config files: they are what the user has to convert.
        [] => match others
            .iter()
            .filter(|name| holds_other_weights(name))
            .collect::<Vec<_>>()
        {
            known if known.is_empty() => format!("it has only {}", named(&others)),
            known => format!(
                "its weights are in {}, which this program cannot read; convert them to safetensors",
                named(known)
            ),
        },
        several => {
            let names = several
                .iter()
                .filter_map(|path| path.file_name())
                .map(|n| n.to_string_lossy());
            format!(
                "it has several .safetensors files ({}) but no model.safetensors.index.json",
                named(names)
            )
        }
    };
    Err(Error::NotACheckpoint {
        path: dir.to_path_buf(),
        problem,
    })
}

#[cfg(test)]
mod tests;
