//! The SHA-256 of an output's weight files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::checksum;
use crate::plan::Plan;
use crate::stop::Stop;

/// The SHA-256 of every weight file of an output, by file name; `None` if it was asked to stop.
///
/// # Errors
/// When one cannot be read.
pub fn checksums(
    plan: &Plan,
    output: &Path,
    stop: &Stop,
) -> std::io::Result<Option<BTreeMap<String, String>>> {
    let is_directory = output.is_dir();
    let mut sums = BTreeMap::new();
    for shard in &plan.checkpoint().shards {
        let path = if is_directory {
            output.join(&shard.file_name)
        } else {
            output.to_owned()
        };
        let Some(sum) = checksum::of_file(&path, stop)? else {
            return Ok(None);
        };
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        sums.insert(name, sum);
    }
    Ok(Some(sums))
}
