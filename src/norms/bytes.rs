//! The bytes of a norms file, read where they are wanted: sketches are large, and stay in the file until a matrix needs one.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::checkpoint::{read_exact_at, write_all_at};

/// The most bytes of norms that are read: 2 GiB, about what a mixture of experts with 10^12 weights needs. Sketches do not
/// count, as they are read one at a time. Only regular files are read.
pub const MAX_FILE: u64 = 2 << 30;

/// A file that is open, or its bytes in memory. Clones are the same bytes.
#[derive(Clone, Debug)]
pub(super) enum Bytes {
    File(Arc<File>),
    Memory(Arc<[u8]>),
}

impl Bytes {
    /// The `len` bytes from `offset` on, of which the caller knows that there are so many.
    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        match self {
            Self::File(file) => read_exact_at(file, &mut bytes, offset)?,
            Self::Memory(all) => {
                let range = usize::try_from(offset).ok().and_then(|first| {
                    let end = first.checked_add(len)?;
                    all.get(first..end)
                });
                bytes.copy_from_slice(range.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
        }
        Ok(bytes)
    }

    /// Writes bytes at `offset`; memory is not written to.
    pub(super) fn write(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => write_all_at(file, bytes, offset),
            Self::Memory(_) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
        }
    }
}
