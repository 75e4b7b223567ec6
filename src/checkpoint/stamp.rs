//! Whether a file is still the one whose header was read.
//!
//! A header of one file and the data of another, or of a file that is being written, would make an output that looks right.
//! So a file's length, identity and times are kept from when its header was read, and compared when it is opened again and
//! before an output takes its name.
//!
//! Between runs a stamp stands for a file's bytes only if it [tells](Stamp::is_telling) them. The mtime does not: programs set
//! it, and in a Nix store or a reproducible archive all files have the same. The ctime is the kernel's own. Every write sets it,
//! and so does setting the mtime back; no program can set it.

use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

/// What tells a file from another, and from itself before it was written to. Times are in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    len: u64,
    modified: Option<i64>,
    /// The ctime, where there is one.
    changed: Option<i64>,
    /// Device and inode, where there are any.
    inode: Option<(u64, u64)>,
}

/// How much older than the hash of a file its ctime must be: a write within the same tick of the kernel's clock, which is ten
/// milliseconds at most, would not change it.
const SETTLED: i64 = 100_000_000;

/// What a ctime is a multiple of where the file system keeps whole milliseconds, or coarser times: those of images of file
/// systems, in which it was set like any other byte, are whole seconds.
const COARSE: i64 = 1_000_000;

impl Stamp {
    /// Of an open file.
    pub(crate) fn of(file: &File) -> io::Result<Self> {
        Ok(Self::of_metadata(&file.metadata()?))
    }

    /// Of the file at a path.
    pub(crate) fn at(path: &Path) -> io::Result<Self> {
        Ok(Self::of_metadata(&fs::metadata(path)?))
    }

    fn of_metadata(meta: &Metadata) -> Self {
        Self {
            len: meta.len(),
            modified: meta.modified().ok().and_then(nanoseconds),
            changed: changed(meta),
            inode: inode(meta),
        }
    }

    /// Of so many bytes that are no file of this system's.
    pub(crate) const fn of_bytes(len: u64) -> Self {
        Self {
            len,
            modified: None,
            changed: None,
            inode: None,
        }
    }

    /// Whether a file that has this stamp later has the bytes that it has now. Where the system has no ctime, or only a coarse
    /// one, and of a file that was written to a moment ago, the bytes have to be read to know.
    pub(crate) fn is_telling(&self) -> bool {
        let now = nanoseconds(SystemTime::now());
        match (self.changed, self.inode, now) {
            (Some(changed), Some(_), Some(now)) => {
                changed % COARSE != 0 && now.saturating_sub(changed) > SETTLED
            }
            _ => false,
        }
    }
}

fn nanoseconds(time: SystemTime) -> Option<i64> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_nanos()).ok()
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

#[cfg(unix)]
fn changed(meta: &Metadata) -> Option<i64> {
    use std::os::unix::fs::MetadataExt;
    let seconds = meta.ctime().checked_mul(1_000_000_000)?;
    seconds.checked_add(meta.ctime_nsec())
}

#[cfg(not(unix))]
fn changed(_: &Metadata) -> Option<i64> {
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

    #[cfg(unix)]
    #[test]
    fn bytes_that_change_under_the_same_length_and_mtime_change_the_stamp() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let early = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
        let write = |text: &str| {
            let mut file = File::create(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.set_modified(early).unwrap();
            drop(file);
            Stamp::at(&path).unwrap()
        };
        let before = write("12345");
        // Longer than a tick of the kernel's clock.
        std::thread::sleep(Duration::from_millis(50));
        assert_ne!(write("54321"), before);
    }

    #[cfg(unix)]
    #[test]
    fn a_stamp_tells_the_bytes_only_with_a_fine_ctime_that_is_some_time_ago() {
        let now = nanoseconds(SystemTime::now()).unwrap() / COARSE * COARSE;
        let stamp = |changed| Stamp {
            len: 5,
            modified: Some(1_000_000_000),
            changed,
            inode: Some((1, 2)),
        };
        assert!(stamp(Some(now - 2 * SETTLED + 1)).is_telling());
        for changed in [
            None,
            Some(1_000_000_000),
            Some(now + 1),
            Some(now - 2 * SETTLED),
        ] {
            assert!(!stamp(changed).is_telling(), "{changed:?}");
        }
        let no_inode = Stamp {
            inode: None,
            ..stamp(Some(now - 2 * SETTLED + 1))
        };
        assert!(!no_inode.is_telling());
    }
}
