//! A temporary checkpoint of random weights.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::Error;
use super::synthetic::{self, Shape};
use crate::checkpoint::Checkpoint;
use crate::untrusted::shown_path;

/// Its directory.
const MODEL: &str = "model";

/// The temporary checkpoint; it goes with this.
pub(super) struct TemporaryModel {
    dir: TempDir,
    /// What it is called in a record.
    pub(super) of: String,
    /// Of its weights file.
    pub(super) bytes: u64,
    /// Weights that are pruned.
    pub(super) weights: u64,
}

impl TemporaryModel {
    /// Writes it into a directory of its own within `dir`.
    pub(super) fn generate(dir: &Path, shape: &Shape, of: String) -> Result<Self, Error> {
        let failed = in_directory(dir);
        let dir = tempfile::Builder::new()
            .prefix("swiftprune-bench-")
            .tempdir_in(dir)
            .map_err(&failed)?;
        let bytes = synthetic::generate(&dir.path().join(MODEL), shape).map_err(&failed)?;
        Ok(Self {
            dir,
            of,
            bytes: bytes as u64,
            weights: shape.linear_weights() as u64,
        })
    }

    /// Its directory.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.path().join(MODEL)
    }

    /// A place beside it, for what is made of it.
    pub(super) fn beside(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn open(&self) -> Result<Checkpoint, Error> {
        Ok(Checkpoint::open(self.path().join("model.safetensors"))?)
    }

    /// The error of a file beside it.
    pub(super) fn failed(&self) -> impl Fn(std::io::Error) -> Error + use<> {
        in_directory(self.dir.path())
    }
}

/// The error of a file in this directory.
fn in_directory(dir: &Path) -> impl Fn(std::io::Error) -> Error + use<> {
    let dir = shown_path(dir);
    move |error| Error::Temporary {
        dir: dir.clone(),
        error,
    }
}
