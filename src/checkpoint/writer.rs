//! Writing a safetensors file with a header of its own, in the same transaction as any output.
//!
//! [`Header::new`] lays tensors out, a [`Writer`] stages a file with that header and takes the data tensor by tensor, from
//! any number of threads. What is written is a function of what is given: the same tensors in the same order with the same
//! metadata make the same bytes.

use std::path::{Path, PathBuf};

use super::destination::{Destination, Form};
use super::error::{Error, Result};
use super::header::Header;
use super::options::OutputOptions;
use super::staging::{FileSpec, Staging};

/// A safetensors file that is being written, invisible until it is finished; dropped before that, it leaves nothing.
#[derive(Debug)]
pub struct Writer {
    stage: Staging,
    header: Header,
}

impl Writer {
    /// Stages the file that is to appear at `path`, at its full length.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::NotReplaceable`], [`Error::NoOutputName`] and [`Error::NoOutputDirectory`] for a
    /// place that cannot be taken; [`Error::NoSpace`] and [`Error::Io`].
    pub fn create(path: &Path, header: Header, options: &OutputOptions) -> Result<Self> {
        let destination = Destination::new(path, Form::File, options.overwrite)?;
        let spec = FileSpec {
            name: path.file_name().unwrap_or_default().to_os_string(),
            header: header.raw(),
            len: header.file_len(),
            like: None,
        };
        let stage = Staging::file(destination, &spec, options.sync)?;
        Ok(Self { stage, header })
    }

    /// The header; tensors are known by their numbers in it.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// Writes bytes of the tensor with this number, from its byte `first` on. Each byte is to be written once.
    ///
    /// # Errors
    /// [`Error::OutsideTensor`] and [`Error::OutOfRange`] for what is not the tensor's; [`Error::NoSpace`] and
    /// [`Error::Io`].
    pub fn write(&self, tensor: usize, first: u64, bytes: &[u8]) -> Result<()> {
        let len = bytes.len() as u64;
        let Some(tensor) = self.header.tensors().get(tensor) else {
            return Err(Error::OutOfRange {
                shard: format!("tensor {tensor}"),
                offset: first,
                len,
                data_start: 0,
                end: 0,
            });
        };
        if first.checked_add(len).is_none_or(|end| end > tensor.len) {
            return Err(Error::OutsideTensor {
                path: self.stage.path().to_path_buf(),
                tensor: tensor.name.clone(),
                first,
                len,
                tensor_len: tensor.len,
            });
        }
        self.stage.write_at(0, bytes, tensor.offset + first)
    }

    /// Puts the file in place, and tells where that is.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if data are missing; [`Error::OutputExists`] or [`Error::NotReplaceable`] if something has
    /// come in the way meanwhile; [`Error::Io`]. The staged file is then gone, and what was there before is still there.
    pub fn finish(self) -> Result<PathBuf> {
        self.stage.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::super::header::TensorSpec;
    use super::*;
    use crate::dtype::StoredDtype;

    fn header() -> Header {
        let tensors = [
            TensorSpec::new("b \"quoted\"\n", StoredDtype::F32, vec![2, 2]),
            TensorSpec::new("empty", StoredDtype::U8, vec![0]),
            TensorSpec::new("a", StoredDtype::Bf16, vec![3]),
        ];
        let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
        Header::new(&tensors, &metadata).unwrap()
    }

    #[test]
    fn a_file_is_what_was_written_and_the_safetensors_crate_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out.safetensors");
        let writer = Writer::create(&path, header(), &OutputOptions::new()).unwrap();
        writer.write(2, 2, &[5, 6, 7, 8]).unwrap();
        writer.write(0, 0, &[1; 16]).unwrap();
        writer.write(2, 0, &[3, 4]).unwrap();
        assert!(!path.exists());
        assert_eq!(writer.finish().unwrap(), path);
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len() as u64, header().file_len());
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(tensors.tensor("a").unwrap().data(), [3, 4, 5, 6, 7, 8]);
        assert_eq!(tensors.tensor("b \"quoted\"\n").unwrap().shape(), [2, 2]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_with_missing_bytes_does_not_appear() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let writer = Writer::create(&path, header(), &OutputOptions::new()).unwrap();
        writer.write(0, 0, &[1; 16]).unwrap();
        assert!(matches!(
            writer.finish(),
            Err(Error::Incomplete {
                written: 16,
                needed: 22,
                ..
            })
        ));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_tensor_takes_only_its_own_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("out");
        let writer = Writer::create(&path, header(), &OutputOptions::new()).unwrap();
        for (tensor, first, len) in [(0, 0, 17), (0, 16, 1), (2, u64::MAX, 1)] {
            let error = writer.write(tensor, first, &vec![0; len]).unwrap_err();
            assert!(matches!(error, Error::OutsideTensor { .. }), "{error:?}");
        }
        let error = writer.write(3, 0, &[0]).unwrap_err();
        assert!(matches!(error, Error::OutOfRange { .. }), "{error:?}");
    }

    #[test]
    fn a_file_is_replaced_only_where_the_options_say_so() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("norms");
        fs::write(&path, "old").unwrap();
        let create =
            |options| Writer::create(&path, Header::new(&[], &BTreeMap::new()).unwrap(), &options);
        assert!(matches!(
            create(OutputOptions::new()),
            Err(Error::OutputExists { .. })
        ));
        let writer = create(OutputOptions::new().overwrite(true)).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        writer.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap()[8..], *b"{}      ");
    }

    #[cfg(unix)]
    #[test]
    fn a_new_file_has_the_mode_bits_of_any_new_file() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let like = dir.path().join("like");
        fs::write(&like, "").unwrap();
        let path = dir.path().join("out");
        let header = Header::new(&[], &BTreeMap::new()).unwrap();
        let writer = Writer::create(&path, header, &OutputOptions::new().sync(true)).unwrap();
        writer.finish().unwrap();
        let mode = |path| fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode(&path), mode(&like));
    }
}
