//! Reading a checkpoint's data: every file checked at the start, every tensor found by its name.
//!
//! Reads go by offset and use no cursor, so any number of threads may share a [`Reader`], which has a few files open at a time.
//! Nothing is cached: a tensor that
//! is read twice is read from the file twice. A file that was replaced or written to since its header was read gives
//! [`Error::Changed`]; what else goes wrong names the file and the tensor.

use std::fs::File;
use std::io;
use std::sync::Arc;

use super::catalog::{Catalog, Place};
use super::error::{Error, Result};
use super::handles::Handles;
use super::positional::{read_exact_at, will_need};
use super::shards::Checkpoint;
use crate::untrusted::open_regular;

/// An open checkpoint whose data can be read.
#[derive(Debug)]
pub struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    catalog: Catalog<'a>,
    /// By the numbers of the shards.
    files: Handles,
}

impl<'a> Reader<'a> {
    /// Opens each shard, so that one that cannot be read is noticed before any work.
    ///
    /// # Errors
    /// [`Error::NotRegular`] and [`Error::Io`], for the first that cannot be opened; [`Error::Changed`].
    pub fn open(checkpoint: &'a Checkpoint) -> Result<Self> {
        let reader = Self {
            checkpoint,
            catalog: Catalog::of(checkpoint),
            files: Handles::default(),
        };
        // From the last one on: the first ones, which are read first, stay open.
        for shard in (0..checkpoint.shards.len()).rev() {
            reader.file(shard)?;
        }
        Ok(reader)
    }

    /// Checks that nobody has written to the files since their headers were read: what was read is of one state.
    ///
    /// # Errors
    /// [`Error::Changed`] and [`Error::Io`].
    pub fn check_unchanged(&self) -> Result<()> {
        let mut shards = self.checkpoint.shards.iter().enumerate();
        shards.try_for_each(|(number, shard)| match self.files.kept(number) {
            Some(file) => shard.check_unchanged(&file),
            None => shard.check_still_unchanged(),
        })
    }

    /// The tensors by name.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog<'a> {
        &self.catalog
    }

    /// Where the tensor of this name is.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`].
    pub fn find(&self, name: &str) -> Result<Place<'a>> {
        self.catalog.get(name).ok_or_else(|| Error::NoSuchTensor {
            path: self.checkpoint.source.weights().path().to_path_buf(),
            tensor: name.to_owned(),
        })
    }

    /// The bytes of a whole tensor, as they are stored.
    ///
    /// # Errors
    /// [`Error::NoSuchTensor`], [`Error::Changed`] and [`Error::Io`]; [`Error::OutsideTensor`] for one that does not fit
    /// this machine's memory addresses.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let place = self.find(name)?;
        let Ok(len) = usize::try_from(place.tensor.len) else {
            return Err(outside(&place, 0, place.tensor.len));
        };
        let mut bytes = vec![0; len];
        self.read_range(&place, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` with those of a tensor from its byte `first` on.
    ///
    /// # Errors
    /// [`Error::OutsideTensor`] for a range that is not the tensor's, [`Error::Changed`] and [`Error::Io`].
    pub fn read_range(&self, place: &Place<'_>, first: u64, bytes: &mut [u8]) -> Result<()> {
        let len = bytes.len() as u64;
        let end = first.checked_add(len);
        if end.is_none_or(|end| end > place.tensor.len) {
            return Err(outside(place, first, len));
        }
        self.read_at(place.shard, place.tensor.offset + first, bytes)
    }

    /// Tells the system that a tensor will be read soon.
    pub fn will_read(&self, place: &Place<'_>) {
        let tensor = place.tensor;
        // Nothing depends on it: what is wrong with the file is said where it is read.
        if let Ok(file) = self.file(place.shard) {
            will_need(&file, tensor.offset, tensor.len);
        }
    }

    /// Fills `bytes` with those of a shard's file from `offset` on, counted from the start of the file.
    ///
    /// # Errors
    /// [`Error::Changed`] if the file has become shorter, or was replaced; [`Error::ReadTensor`] for what the operating system
    /// says, and [`Error::Io`] where it cannot be opened.
    ///
    /// # Panics
    /// If there is no shard of this number.
    pub fn read_at(&self, shard: usize, offset: u64, bytes: &mut [u8]) -> Result<()> {
        read_exact_at(&*self.file(shard)?, bytes, offset)
            .map_err(|source| self.failed(shard, offset, source))
    }

    /// The open file of a shard, which is the one whose header was read.
    ///
    /// # Errors
    /// [`Error::NotRegular`], [`Error::Io`] and [`Error::Changed`].
    ///
    /// # Panics
    /// If there is no shard of this number.
    pub(crate) fn file(&self, shard: usize) -> Result<Arc<File>> {
        let of = &self.checkpoint.shards[shard];
        self.files.get(shard, || {
            let (file, _) = open_regular(&of.path).map_err(Error::reading(&of.path))?;
            of.check_unchanged(&file)?;
            Ok(file)
        })
    }

    fn failed(&self, shard: usize, offset: u64, source: io::Error) -> Error {
        let shard = &self.checkpoint.shards[shard];
        let path = shard.path.clone();
        if source.kind() == io::ErrorKind::UnexpectedEof {
            return Error::Changed { path };
        }
        // The last that begins at or before the offset; tensors lie in the order of their bytes.
        let tensors = shard.header().tensors();
        let behind = tensors.partition_point(|tensor| tensor.offset <= offset);
        match tensors[..behind].last() {
            Some(tensor) => Error::ReadTensor {
                path,
                tensor: tensor.name.clone(),
                source,
            },
            None => Error::Io {
                action: "read",
                path,
                source,
            },
        }
    }
}

fn outside(place: &Place<'_>, first: u64, len: u64) -> Error {
    Error::OutsideTensor {
        path: place.path.to_path_buf(),
        tensor: place.tensor.name.clone(),
        first,
        len,
        tensor_len: place.tensor.len,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{open, sharded};
    use super::*;

    #[test]
    fn readers_are_shared_by_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Reader<'_>>();
    }

    #[test]
    fn a_tensor_is_read_whole_or_in_part_from_its_shard() {
        let (_root, dir) = sharded();
        let checkpoint = open(&dir).unwrap();
        let reader = Reader::open(&checkpoint).unwrap();
        // Byte `i` of the data of each shard is `i`.
        assert_eq!(reader.read("y").unwrap(), [44, 45, 46, 47, 48]);
        assert_eq!(reader.read("z").unwrap()[69], 69);
        let mut two = [0; 2];
        let place = reader.find("y").unwrap();
        reader.read_range(&place, 3, &mut two).unwrap();
        assert_eq!(two, [47, 48]);
        reader.read_range(&place, 5, &mut []).unwrap();
    }

    #[test]
    fn a_name_or_a_range_that_is_not_there_is_an_error_that_names_it() {
        let (_root, dir) = sharded();
        let checkpoint = open(&dir).unwrap();
        let reader = Reader::open(&checkpoint).unwrap();
        let error = reader.read("w").unwrap_err();
        assert!(
            matches!(&error, Error::NoSuchTensor { tensor, .. } if tensor == "w"),
            "{error:?}"
        );
        let place = reader.find("y").unwrap();
        for (first, len) in [(4, 2), (6, 0), (u64::MAX, 1)] {
            let error = reader
                .read_range(&place, first, &mut vec![0; len])
                .unwrap_err();
            let message = error.to_string();
            assert!(
                message.contains("`y`") && message.contains("a-1.safetensors"),
                "{message}"
            );
        }
    }

    #[test]
    fn a_file_that_has_become_shorter_has_changed() {
        let (_root, dir) = sharded();
        let checkpoint = open(&dir).unwrap();
        let reader = Reader::open(&checkpoint).unwrap();
        let shard = &checkpoint.shards[0];
        let file = File::options().write(true).open(&shard.path).unwrap();
        file.set_len(shard.len - 1).unwrap();
        assert!(reader.read("x").is_ok());
        assert!(matches!(reader.read("y"), Err(Error::Changed { .. })));
    }

    #[test]
    fn a_failed_read_names_the_tensor() {
        let (_root, dir) = sharded();
        let checkpoint = open(&dir).unwrap();
        let reader = Reader::open(&checkpoint).unwrap();
        let failed = |offset| reader.failed(0, offset, io::ErrorKind::Other.into());
        let header = checkpoint.shards[0].header();
        for (offset, name) in [(0, "x"), (299, "x"), (300, "y")] {
            let error = failed(header.data_start() + offset);
            assert!(
                matches!(&error, Error::ReadTensor { tensor, .. } if tensor == name),
                "{error:?}"
            );
        }
        assert!(matches!(failed(0), Error::Io { .. }));
    }
}
