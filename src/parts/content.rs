//! What is in a file: its SHA-256, and a stamp by which it is known again without being read.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::Error;
use crate::checkpoint::{self, Shard, Stamp};
use crate::checksum;
use crate::stop::Stop;

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub sha256: String,
    /// The stamp that the file had when it was hashed, if it tells the bytes.
    stamp: Option<Stamp>,
}

impl Content {
    /// Hashes a file.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], also for a file that changes meanwhile; [`Error::Stopped`].
    pub(crate) fn read(path: &Path, stop: &Stop) -> Result<Self, Error> {
        let before = stamp(path)?;
        let sha256 = sha256(path, stop)?;
        if stamp(path)? != before {
            let path = path.to_path_buf();
            return Err(checkpoint::Error::Changed { path }.into());
        }
        Ok(Self {
            sha256,
            stamp: before.is_telling().then_some(before),
        })
    }

    /// Hashes a file of weights whose header has been read, unless its content is known.
    ///
    /// # Errors
    /// As [`Content::read`]; [`checkpoint::Error::Changed`] for one that is another file than its header was read from.
    pub(crate) fn of_shard(
        shard: &Shard,
        known: Option<&Self>,
        stop: &Stop,
    ) -> Result<Self, Error> {
        let content = match known.filter(|known| known.stamp == Some(shard.stamp())) {
            Some(known) => known.clone(),
            None => Self::read(&shard.path, stop)?,
        };
        shard.check_still_unchanged()?;
        Ok(content)
    }

    /// Whether a file has these bytes. It is read if its stamp does not tell.
    ///
    /// # Errors
    /// As [`Content::read`].
    pub(crate) fn is_of(&self, path: &Path, stop: &Stop) -> Result<bool, Error> {
        if self.stamp.is_some() && self.stamp == Some(stamp(path)?) {
            return Ok(true);
        }
        Ok(Self::read(path, stop)?.sha256 == self.sha256)
    }
}

fn stamp(path: &Path) -> Result<Stamp, Error> {
    Ok(Stamp::at(path).map_err(|source| checkpoint::Error::Io {
        action: "open",
        path: path.to_path_buf(),
        source,
    })?)
}

/// The SHA-256 of a file.
fn sha256(path: &Path, stop: &Stop) -> Result<String, Error> {
    let sum = checksum::of_file(path, stop).map_err(|source| checkpoint::Error::Io {
        action: "read",
        path: path.to_path_buf(),
        source,
    })?;
    sum.ok_or(Error::Stopped)
}
