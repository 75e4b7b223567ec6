//! Whether a file is still the one whose header was read.
//!
//! A header of one file and the data of another, or of a file that is being written, would make an output that looks right.
//! So a file's length, identity and time of change are kept from when its header was read, and compared when it is opened
//! again and before an output takes its name.

use std::fs::{File, Metadata};
use std::io;
use std::time::SystemTime;

/// What tells a file from another, and from itself before it was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    len: u64,
    modified: Option<SystemTime>,
    /// Device and inode, where there are any.
    inode: Option<(u64, u64)>,
}

impl Stamp {
    /// Of an open file.
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            len: meta.len(),
            modified: meta.modified().ok(),
            inode: inode(&meta),
        })
    }

    /// Of so many bytes that are no file of this system's.
    pub(super) const fn of_bytes(len: u64) -> Self {
        Self {
            len,
            modified: None,
            inode: None,
        }
    }

    /// When the file was last written to, in nanoseconds since 1970, where the system tells.
    pub(super) fn modified(&self) -> Option<u64> {
        let since = self.modified?.duration_since(SystemTime::UNIX_EPOCH);
        u64::try_from(since.ok()?.as_nanos()).ok()
    }
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere there is none")]
fn inode(meta: &Metadata) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    Some((meta.dev(), meta.ino()))
}

#[cfg(not(unix))]
fn inode(_: &Metadata) -> Option<(u64, u64)> {
    None
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_file_that_is_written_to_or_replaced_has_another_stamp_and_one_that_is_read_has_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        fs::write(&path, "12345").unwrap();
        let early = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let mut file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_modified(early).unwrap();
        let stamp = || Stamp::of(&File::open(&path).unwrap()).unwrap();
        let before = stamp();
        fs::read(&path).unwrap();
        assert_eq!(stamp(), before);

        file.write_all(b"6").unwrap();
        drop(file);
        assert_ne!(stamp(), before);
        // Of the same length and the same time, but another file.
        let other = dir.path().join("b");
        fs::write(&other, "12345").unwrap();
        let file = OpenOptions::new().write(true).open(&other).unwrap();
        file.set_modified(early).unwrap();
        fs::rename(&other, &path).unwrap();
        assert_eq!(stamp() == before, cfg!(not(unix)));
    }
}
