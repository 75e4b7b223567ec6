//! Reading and writing at a place in a file, without its cursor, so that threads can share one handle.

use std::fs::File;
use std::io;

/// Fills `buffer` with the bytes of `file` from `offset` on.
///
/// # Errors
/// `UnexpectedEof` if the file ends before the buffer is full; the buffer's content is then unspecified.
pub fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::FileExt;
        let (mut buffer, mut offset) = (buffer, offset);
        while !buffer.is_empty() {
            match file.seek_read(buffer, offset) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    buffer = &mut buffer[read..];
                    offset += read as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
    // A browser has no files.
    #[cfg(not(any(unix, windows)))]
    {
        let _ = (file, buffer, offset);
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Tells the system that these bytes will be read soon, so that it can fetch them meanwhile. It costs no memory of the
/// process, and nothing depends on it: a system that has no such call, or that refuses, reads them when they are needed.
pub fn will_need(file: &File, offset: u64, len: u64) {
    #[cfg(target_os = "linux")]
    {
        use std::num::NonZeroU64;

        use rustix::fs::{Advice, fadvise};
        // Linux fetches no more for one call than its read-ahead of the device, which is 128 KiB unless it is set.
        const STEP: u64 = 128 << 10;
        for from in (offset..offset.saturating_add(len)).step_by(STEP as usize) {
            let step = NonZeroU64::new(STEP.min(offset + len - from));
            if fadvise(file, from, step, Advice::WillNeed).is_err() {
                return;
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (file, offset, len);
}

/// Writes all of `bytes` to `file` from `offset` on; a file that is shorter grows.
///
/// # Errors
/// Whatever the operating system says; part of the bytes may then have been written.
pub fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
    }
    #[cfg(windows)]
    {
        use std::os::windows::fs::FileExt;
        let (mut bytes, mut offset) = (bytes, offset);
        while !bytes.is_empty() {
            match file.seek_write(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    bytes = &bytes[written..];
                    offset += written as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
    // A browser has no files.
    #[cfg(not(any(unix, windows)))]
    {
        let _ = (file, bytes, offset);
        Err(io::ErrorKind::Unsupported.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_at_a_place_is_read_at_that_place() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        write_all_at(&file, b"abc", 4).unwrap();
        write_all_at(&file, b"z", 0).unwrap();
        let mut all = [1; 10];
        read_exact_at(&file, &mut all, 0).unwrap();
        assert_eq!(&all, b"z\0\0\0abc\0\0\0");
        let mut some = [0; 2];
        read_exact_at(&file, &mut some, 5).unwrap();
        assert_eq!(&some, b"bc");
    }

    #[test]
    fn a_read_past_the_end_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let mut some = [0; 2];
        assert!(read_exact_at(&file, &mut some, 8).is_ok());
        let error = read_exact_at(&file, &mut some, 9).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn threads_share_one_handle() {
        let file = tempfile::tempfile().unwrap();
        std::thread::scope(|scope| {
            for part in 0..8_u8 {
                let file = &file;
                scope.spawn(move || {
                    for step in 0..64 {
                        write_all_at(file, &[part; 16], (step * 8 + u64::from(part)) * 16).unwrap();
                    }
                });
            }
        });
        let mut all = vec![0; 8 * 64 * 16];
        read_exact_at(&file, &mut all, 0).unwrap();
        assert!(
            all.chunks(16)
                .enumerate()
                .all(|(i, chunk)| chunk == [(i % 8) as u8; 16])
        );
    }
}
