//! SHA-256, written as `sha256sum` writes it: 64 hexadecimal digits in lower case.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use crate::stop::Stop;

/// Bytes that are read at a time.
const BUFFER: usize = 1 << 20;

/// A sum over bytes that come in parts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checksum(Sha256);

impl Checksum {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The sum of all that was given.
    pub(crate) fn finish(self) -> String {
        let digest = self.0.finalize();
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The sum of these bytes.
pub(crate) fn of_bytes(bytes: &[u8]) -> String {
    let mut sum = Checksum::default();
    sum.update(bytes);
    sum.finish()
}

/// The sum of a whole file, which is read a mebibyte at a time; `None` if it was asked to stop meanwhile.
///
/// # Errors
/// When it cannot be opened or read.
pub(crate) fn of_file(path: &Path, stop: &Stop) -> io::Result<Option<String>> {
    let mut sum = Checksum::default();
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BUFFER];
    while !stop.is_requested() {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(Some(sum.finish())),
            Ok(read) => sum.update(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_are_those_of_the_standard() {
        // FIPS 180-2, appendix B, and the sum of nothing.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(of_bytes(b"abc"), abc);
        assert_eq!(
            of_bytes(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(of_file(&path, &Stop::new()).unwrap().unwrap(), abc);
    }

    #[test]
    fn a_sum_that_is_asked_to_stop_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        let stop = Stop::new();
        assert!(of_file(&path, &stop).unwrap().is_some());
        stop.request();
        assert_eq!(of_file(&path, &stop).unwrap(), None);
    }

    #[test]
    fn a_file_longer_than_the_buffer_has_the_sum_of_its_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let bytes: Vec<u8> = (0..2 * BUFFER + 5).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(
            of_file(&path, &Stop::new()).unwrap().unwrap(),
            of_bytes(&bytes)
        );
    }
}
