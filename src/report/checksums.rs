//! The SHA-256 of an output's weight files.

use std::collections::BTreeMap;
use std::path::Path;

use crate::plan::Plan;

/// The SHA-256 of every weight file of an output, by file name.
///
/// # Errors
/// When one cannot be read.
pub fn checksums(plan: &Plan, output: &Path) -> std::io::Result<BTreeMap<String, String>> {
    use sha2::Digest as _;
    let is_directory = output.is_dir();
    let mut sums = BTreeMap::new();
    for shard in &plan.checkpoint().shards {
        let path = if is_directory {
            output.join(&shard.file_name)
        } else {
            output.to_owned()
        };
        let mut hash = sha2::Sha256::new();
        let mut file = std::fs::File::open(&path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = std::io::Read::read(&mut file, &mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        let hex = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        sums.insert(name, hex);
    }
    Ok(sums)
}
