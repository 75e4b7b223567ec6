//! Sketches of the inputs of weights, beside their norms: by name, and read one at a time.
//!
//! A sketch takes `4 rank` bytes a feature, and a layer's input has one for all the weights that read it: at rank 128 about 3 %
//! of a model of dense layers in bf16. So they stay in a file, a norms file or an unnamed one, until a matrix is compensated.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::bytes::Bytes;
use super::cursor::f32s;
use super::error::Error;
use super::provenance::Format;
use crate::sketch::Sketch;
use crate::untrusted::{shown, shown_path};

/// The sketches of a model's weights.
#[derive(Clone, Debug)]
pub(crate) struct Sketches {
    /// The file, or the model that was measured: for messages.
    path: PathBuf,
    /// The directory of an unnamed file.
    dir: PathBuf,
    /// Columns of each.
    rank: usize,
    bytes: Bytes,
    /// Bytes written, of an unnamed file.
    len: u64,
    pub(super) entries: BTreeMap<String, Places>,
}

/// Where the sketches of one weight lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Places {
    pub(super) in_features: usize,
    /// Where each expert's begins; one for a weight without experts.
    pub(super) offsets: Vec<u64>,
}

impl PartialEq for Sketches {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank && self.entries == other.entries
    }
}

impl Sketches {
    /// Those of a norms file.
    pub(super) fn of_file(path: &Path, rank: usize, bytes: Bytes) -> Self {
        Self {
            path: path.to_path_buf(),
            dir: PathBuf::new(),
            rank,
            bytes,
            len: 0,
            entries: BTreeMap::new(),
        }
    }

    /// None yet, to be filled with those of `model`, in an unnamed file: of the directory `beside`, where the run writes its output
    /// and there is a disk with room, or else of one for temporary files.
    ///
    /// # Errors
    /// When there is no place for the file.
    #[cfg(feature = "native")]
    pub(crate) fn measured(
        model: &Path,
        rank: usize,
        beside: Option<&Path>,
    ) -> Result<Self, Error> {
        let dir = beside.map_or_else(directory_on_disk, Path::to_path_buf);
        let file = tempfile::tempfile_in(&dir).map_err(|source| Error::Sketches {
            dir: dir.clone(),
            source,
        })?;
        let bytes = Bytes::File(Arc::<File>::new(file));
        Ok(Self {
            dir,
            ..Self::of_file(model, rank, bytes)
        })
    }

    /// Columns of each.
    pub(crate) const fn rank(&self) -> usize {
        self.rank
    }

    /// Whether there is one for this weight, or for its expert.
    pub(crate) fn has(&self, weight: &str, expert: usize, in_features: usize) -> bool {
        let places = self.entries.get(weight);
        places.is_some_and(|places| {
            places.in_features == in_features && expert < places.offsets.len()
        })
    }

    /// Where that sketch lies: the same for all weights that read one input.
    pub(crate) fn place(&self, weight: &str, expert: usize, in_features: usize) -> Option<u64> {
        let has = self.has(weight, expert, in_features);
        has.then(|| self.entries[weight].offsets[expert])
    }

    /// Adds the sketch of an input to each weight that reads it: `[in_features, rank]`, row-major. Experts of one weight come
    /// in their order.
    pub(crate) fn add(&mut self, readers: &[String], values: &[f32]) -> Result<(), Error> {
        let bytes: Vec<u8> = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        self.bytes
            .write(&bytes, self.len)
            .map_err(|source| Error::Sketches {
                dir: self.dir.clone(),
                source,
            })?;
        for reader in readers {
            let places = self
                .entries
                .entry(reader.clone())
                .or_insert_with(|| Places {
                    in_features: values.len() / self.rank,
                    offsets: Vec::new(),
                });
            places.offsets.push(self.len);
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// The sketch of a weight's input, of its expert's where it has several; `None` where there is none.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Malformed`] for one that is not finite.
    pub(crate) fn get(
        &self,
        weight: &str,
        expert: usize,
        in_features: usize,
    ) -> Result<Option<Sketch>, Error> {
        if !self.has(weight, expert, in_features) {
            return Ok(None);
        }
        let bytes = self.read(self.entries[weight].offsets[expert], in_features);
        let values = f32s(&bytes.map_err(|source| Error::io(&self.path, source))?);
        if !values.iter().all(|value| value.is_finite()) {
            return Err(Error::malformed(
                &self.path,
                Format::Safetensors,
                format!("the sketch of `{}` is not finite", shown(weight)),
            ));
        }
        Ok(Some(Sketch {
            in_features,
            rank: self.rank,
            values,
        }))
    }

    /// The bytes of one sketch.
    pub(super) fn read(&self, offset: u64, in_features: usize) -> io::Result<Vec<u8>> {
        self.bytes.read(offset, 4 * self.rank * in_features)
    }
}

/// A directory for temporary files that are too large for memory. On many systems `/tmp` is memory, and `/var/tmp` is not.
#[cfg(feature = "native")]
fn directory_on_disk() -> PathBuf {
    let usual = std::env::temp_dir();
    if !is_in_memory(&usual) {
        return usual;
    }
    let other = PathBuf::from("/var/tmp");
    if other.is_dir() && !is_in_memory(&other) {
        return other;
    }
    log::warn!(
        "sketches are kept in {}, which is memory: set TMPDIR to a directory on a disk",
        shown_path(&usual)
    );
    usual
}

/// Whether the files of a directory lie in memory, as far as the system tells.
#[cfg(feature = "native")]
fn is_in_memory(dir: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        const TMPFS: u64 = 0x0102_1994;
        const RAMFS: u64 = 0x8584_58f6;
        // The type of the number is another one on each architecture.
        #[allow(
            clippy::cast_sign_loss,
            clippy::unnecessary_cast,
            reason = "of 32 bits"
        )]
        let kind = rustix::fs::statfs(dir).map(|of| of.f_type as u64 & 0xffff_ffff);
        matches!(kind, Ok(TMPFS | RAMFS))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sketches_lie_beside_the_output_or_on_a_disk() {
        let dir = tempfile::tempdir().unwrap();
        let beside = Sketches::measured(Path::new("m"), 2, Some(dir.path())).unwrap();
        assert_eq!(beside.dir, dir.path());
        let elsewhere = Sketches::measured(Path::new("m"), 2, None).unwrap();
        let has_disk = [std::env::temp_dir(), PathBuf::from("/var/tmp")]
            .iter()
            .any(|dir| dir.is_dir() && !is_in_memory(dir));
        assert_eq!(is_in_memory(&elsewhere.dir), !has_disk);
        // A directory that every Linux has in memory.
        let shared = Path::new("/dev/shm");
        if cfg!(target_os = "linux") && shared.is_dir() {
            assert!(is_in_memory(shared));
        }
        let gone = dir.path().join("gone");
        let error = Sketches::measured(Path::new("m"), 2, Some(&gone)).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
