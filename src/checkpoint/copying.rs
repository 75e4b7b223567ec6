//! Copying a range of bytes from an input to a staged file, in the kernel where it can.

use std::fs::File;
use std::io;
use std::path::Path;

use super::error::{Error, Result};
use super::positional::{read_exact_at, write_all_at};
use super::staging::{OpenStaged, Staging};

/// Bytes that are copied at a time where the kernel does not copy.
pub(super) const BUFFER: u64 = 1 << 20;

/// A file to copy from.
#[derive(Clone, Copy, Debug)]
pub(super) struct CopySource<'a> {
    /// Any open handle of it; its cursor may be used.
    pub file: &'a File,
    /// Where it lies, to open handles of one's own.
    pub path: &'a Path,
}

/// Copies `len` bytes from `offset` on to the same place of a staged file.
pub(super) fn copy(
    stage: &Staging,
    staged: &OpenStaged<'_>,
    input: CopySource<'_>,
    offset: u64,
    len: u64,
) -> Result<()> {
    if len >= BUFFER && in_kernel(stage, staged, input, offset, len)? {
        return Ok(());
    }
    by_buffer(stage, staged, input, offset, len)
}

/// Lets the kernel copy; false if it has to be done otherwise.
///
/// Between files `io::copy` is `copy_file_range`, which goes by the cursors. Other threads share the cursors of the handles
/// at hand, so it takes two of its own, and makes sure that they are the same files.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) fn in_kernel(
    stage: &Staging,
    staged: &OpenStaged<'_>,
    input: CopySource<'_>,
    offset: u64,
    len: u64,
) -> Result<bool> {
    use std::fs::OpenOptions;
    use std::io::{Read, Seek, SeekFrom};

    let own = |options: &OpenOptions, path: &Path, of: &File| -> io::Result<Option<File>> {
        let mut file = options.open(path)?;
        if !super::destination::same_inode(&file.metadata()?, &of.metadata()?) {
            return Ok(None);
        }
        file.seek(SeekFrom::Start(offset))?;
        Ok(Some(file))
    };
    let from = own(OpenOptions::new().read(true), input.path, input.file);
    let to = own(OpenOptions::new().write(true), staged.path, &staged.file);
    let (Ok(Some(from)), Ok(Some(mut to))) = (from, to) else {
        return Ok(false);
    };
    let copied =
        io::copy(&mut from.take(len), &mut to).map_err(|e| stage.failed(e, staged.path))?;
    if copied < len {
        return Err(Error::Changed {
            path: input.path.to_path_buf(),
        });
    }
    Ok(true)
}

/// No such call here.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
#[allow(clippy::unnecessary_wraps, reason = "the shape of its Linux twin")]
fn in_kernel(_: &Staging, _: &OpenStaged<'_>, _: CopySource<'_>, _: u64, _: u64) -> Result<bool> {
    Ok(false)
}

pub(super) fn by_buffer(
    stage: &Staging,
    staged: &OpenStaged<'_>,
    input: CopySource<'_>,
    offset: u64,
    len: u64,
) -> Result<()> {
    // At most a mebibyte: fits any usize.
    let mut buffer = vec![0; len.min(BUFFER) as usize];
    let (mut at, end) = (offset, offset + len);
    while at < end {
        let part = &mut buffer[..(end - at).min(BUFFER) as usize];
        read_exact_at(input.file, part, at).map_err(|e| match e.kind() {
            io::ErrorKind::UnexpectedEof => Error::Changed {
                path: input.path.to_path_buf(),
            },
            _ => Error::io("read", input.path)(e),
        })?;
        write_all_at(&staged.file, part, at).map_err(|e| stage.failed(e, staged.path))?;
        at += part.len() as u64;
    }
    Ok(())
}
