//! A little-endian reader over untrusted bytes.
//!
//! Every length is compared with what is left *before* anything is allocated or sliced. So no file makes the reader panic,
//! or use more memory than a small multiple of the file's size.

use std::path::Path;

use super::error::Error;
use super::provenance::Format;
use crate::untrusted::shown;

/// A position in the bytes of one file.
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    path: &'a Path,
    format: Format,
}

impl<'a> Cursor<'a> {
    /// A cursor at the start of `bytes`; `path` and `format` are for the messages.
    pub(super) fn new(bytes: &'a [u8], path: &'a Path, format: Format) -> Self {
        Self {
            bytes,
            at: 0,
            path,
            format,
        }
    }

    /// Bytes from the start of the file to the cursor.
    pub(super) fn position(&self) -> usize {
        self.at
    }

    /// Bytes left.
    pub(super) fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// An error that says that the file is broken.
    pub(super) fn malformed(&self, what: impl Into<String>) -> Error {
        Error::malformed(self.path, self.format, what)
    }

    /// The next `count` bytes; `what` names them in the error if the file ends first.
    pub(super) fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8], Error> {
        let taken = usize::try_from(count)
            .ok()
            .and_then(|n| self.bytes[self.at..].get(..n))
            .ok_or_else(|| {
                self.malformed(format!(
                    "{what} takes {count} bytes at byte {}, but only {} are left",
                    self.at,
                    self.remaining()
                ))
            })?;
        self.at += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Error> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A signed length: negative ones are an error, not a large number.
    pub(super) fn length(&mut self, what: &str) -> Result<u32, Error> {
        let value = i32::from_le_bytes(self.array(what)?);
        u32::try_from(value).map_err(|_| self.malformed(format!("{what} is negative ({value})")))
    }

    /// `count` bytes of UTF-8.
    pub(super) fn text(&mut self, count: u64, what: &str) -> Result<&'a str, Error> {
        let bytes = self.take(count, what)?;
        std::str::from_utf8(bytes).map_err(|_| {
            let text = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
            self.malformed(format!("{what} is not UTF-8 (`{}`)", shown(&text)))
        })
    }

    /// `count` f32 values.
    pub(super) fn f32s(&mut self, count: u64, what: &str) -> Result<Vec<f32>, Error> {
        // A count times four that does not fit 64 bits does not fit the file either.
        let bytes = self.take(count.saturating_mul(4), what)?;
        Ok(f32s(bytes))
    }
}

/// Little-endian f32 values; a rest of fewer than four bytes is left out.
pub(super) fn f32s(bytes: &[u8]) -> Vec<f32> {
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f32::from_le_bytes(*b))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(bytes: &[u8]) -> Cursor<'_> {
        Cursor::new(bytes, Path::new("f"), Format::Dat)
    }

    #[test]
    fn a_length_beyond_the_end_is_refused_before_it_is_allocated() {
        for count in [5, u64::from(u32::MAX), u64::MAX / 4, u64::MAX] {
            assert!(over(&[0; 4]).take(count, "x").is_err());
            assert!(over(&[0; 4]).f32s(count, "x").is_err());
        }
        assert_eq!(over(&[0; 4]).f32s(1, "x").unwrap(), [0.0]);
    }

    #[test]
    fn a_negative_length_is_an_error() {
        assert!(over(&(-1i32).to_le_bytes()).length("x").is_err());
        assert_eq!(over(&7i32.to_le_bytes()).length("x").unwrap(), 7);
    }
}
