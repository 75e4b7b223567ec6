//! What one part of a run has done.

use std::path::PathBuf;

use serde::Serialize;

/// What one part of a run has done.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PartReport {
    /// Version of this program.
    pub version: &'static str,
    /// Which part, as K/N.
    pub part: String,
    /// Where its files wait to be merged.
    pub directory: PathBuf,
    /// Its files of weights.
    pub files: Vec<String>,
    /// How many of them were finished before, and kept.
    pub kept: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Wall time in seconds, hashing and flushing included.
    pub seconds: f64,
}
