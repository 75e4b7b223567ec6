//! What a killed run leaves behind, and how a living run keeps what it stages.
//!
//! A run that is killed by SIGKILL, or by a loss of power, leaves what it has staged: `.NAME.xxxxxx.swiftprune.tmp`, as
//! large as the output. The next run to the same place removes it. What a living run stages is locked, and the kernel
//! gives a lock up when its process ends, however it ends. Where a file system has no locks, nothing is removed.
//!
//! A run may take for an orphan what another has made and not locked yet. So whoever makes something looks, once it is
//! locked, whether it is still there, and makes another one if it is not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::destination::same_inode;
use crate::untrusted::shown_path;

/// How the name of everything that is staged ends.
pub(super) const SUFFIX: &str = ".swiftprune.tmp";

/// Letters and digits between the prefix and the suffix of a staged name.
const RANDOM: usize = 6;

/// Keeps what is staged from being taken for an orphan.
#[derive(Debug)]
pub(super) struct Lock(
    /// Held for its lock; `None` where there are no locks.
    #[expect(dead_code, reason = "it is there to be dropped")]
    Option<File>,
);

/// Locks a new file or directory; `None` if another run has taken it for an orphan.
pub(super) fn lock(path: &Path) -> Option<Lock> {
    if cfg!(not(unix)) {
        // Directories cannot be opened there, and a locked file cannot be renamed.
        return Some(Lock(None));
    }
    let file = File::open(path).ok()?;
    match file.try_lock() {
        Ok(()) => is_still_there(&file, path).then_some(Lock(Some(file))),
        Err(fs::TryLockError::WouldBlock) => None,
        Err(fs::TryLockError::Error(_)) => Some(Lock(None)),
    }
}

/// Removes what killed runs have staged in `parent` under names that start with `prefix`; tells what.
pub(super) fn remove(parent: &Path, prefix: &str) -> Vec<PathBuf> {
    if cfg!(not(unix)) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let entries = entries.flatten();
    let staged = entries.filter(|entry| is_staged(&entry.file_name().to_string_lossy(), prefix));
    staged
        .map(|entry| entry.path())
        .filter(|path| remove_one(path))
        .collect()
}

/// Whether something of this name was staged by a run to the place that the prefix is of.
fn is_staged(name: &str, prefix: &str) -> bool {
    let random = name
        .strip_prefix(prefix)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    random.is_some_and(|text| {
        text.len() == RANDOM && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn remove_one(path: &Path) -> bool {
    let Ok(meta) = path.symlink_metadata() else {
        return false;
    };
    if !(meta.is_file() || meta.is_dir()) {
        return false;
    }
    // Held until it is gone, so that its maker, if there is one, notices.
    let Ok(file) = File::open(path) else {
        return false;
    };
    if file.try_lock().is_err() || !is_still_there(&file, path) {
        return false;
    }
    let removed = match meta.is_dir() {
        true => fs::remove_dir_all(path),
        false => fs::remove_file(path),
    };
    match removed {
        Ok(()) => {
            log::warn!("removed {}, which a killed run had left", shown_path(path));
            true
        }
        Err(_) => false,
    }
}

fn is_still_there(file: &File, path: &Path) -> bool {
    matches!((file.metadata(), fs::metadata(path)), (Ok(open), Ok(there)) if same_inode(&open, &there))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let strangers = [
            ".out.abc123.tmp",
            ".out.abc12.swiftprune.tmp",
            ".out.abc1234.swiftprune.tmp",
            ".out.abc12-.swiftprune.tmp",
            ".other.abc123.swiftprune.tmp",
            "out",
        ];
        for name in strangers {
            fs::write(at(name), "mine").unwrap();
        }
        fs::write(at(".out.aaaaaa.swiftprune.tmp"), "orphan").unwrap();
        fs::create_dir(at(".out.bbbbbb.swiftprune.tmp")).unwrap();
        fs::write(at(".out.bbbbbb.swiftprune.tmp/x"), "orphan").unwrap();
        let held = at(".out.cccccc.swiftprune.tmp");
        fs::create_dir(&held).unwrap();
        let lock_of_held = lock(&held).unwrap();

        assert_eq!(remove(dir.path(), ".out.").len(), 2);
        assert!(held.exists());
        for name in strangers {
            assert!(at(name).exists(), "{name}");
        }
        drop(lock_of_held);
        assert_eq!(remove(dir.path(), ".out."), [held]);
    }

    #[test]
    fn what_was_taken_away_before_it_was_locked_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("staged");
        assert!(lock(&path).is_none());
        fs::write(&path, "").unwrap();
        let other = File::open(&path).unwrap();
        other.try_lock().unwrap();
        assert!(lock(&path).is_none());
    }
}
