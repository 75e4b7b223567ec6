//! Sketches of the inputs of weights, beside their norms: by name, and read one at a time.
//!
//! A sketch takes `4 rank` bytes a feature, and a layer's input has one for all the weights that read it: at rank 128 about 3 %
//! of a model of dense layers in bf16. So they stay in a file, a norms file or an unnamed one, until a matrix is mended.

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
use crate::untrusted::shown;

/// The sketches of a model's weights.
#[derive(Clone, Debug)]
pub(crate) struct Sketches {
    /// The file, or the model that was measured: for messages.
    path: PathBuf,
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
            rank,
            bytes,
            len: 0,
            entries: BTreeMap::new(),
        }
    }

    /// None yet, to be filled with those of `model`, in an unnamed file of the directory `dir`.
    ///
    /// # Errors
    /// When there is no place for the file.
    #[cfg(feature = "native")]
    pub(crate) fn measured(model: &Path, rank: usize, dir: &Path) -> Result<Self, Error> {
        let file = tempfile::tempfile_in(dir).map_err(|source| Error::Sketches {
            dir: dir.to_path_buf(),
            source,
        })?;
        Ok(Self::of_file(
            model,
            rank,
            Bytes::File(Arc::<File>::new(file)),
        ))
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
                dir: std::env::temp_dir(),
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
