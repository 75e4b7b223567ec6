//! What a plain copy of the weights takes where the output is: what pruning is measured against.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Instant;

use serde::Serialize;

/// The most bytes that are copied to measure it.
const BYTES: u64 = 256 << 20;

/// How long a plain copy took.
#[derive(Clone, Copy, Debug, Serialize)]
#[non_exhaustive]
pub struct CopyReport {
    /// Bytes that were copied: the first of the first weight file.
    pub bytes: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Copies the beginning of a file into an unnamed one in `dir`, as `cp` does.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn plain_copy(file: &Path, dir: &Path) -> io::Result<CopyReport> {
    let mut from = File::open(file)?.take(BYTES);
    let mut to = tempfile::tempfile_in(dir)?;
    let start = Instant::now();
    let bytes = io::copy(&mut from, &mut to)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok(CopyReport { bytes, seconds })
}
