//! What a killed run leaves behind, and how a living run keeps what it stages.
//!
//! A run that is killed by SIGKILL, or by a loss of power, leaves what it has staged:
//! `.NAME.HOST-BOOT-PROCESS.xxxxxx.swiftprune.tmp`, as large as the output. The next run to the same place removes it, where it
//! is sure that its maker is gone. What a living run stages is locked, and the kernel gives a lock up when its process ends,
//! however it ends. But a lock may be known to its own host alone, as on NFS. So the name says which host has made it, and
//! since which start: what another host has made is never removed, nor what this host has made before its last start, unless
//! the file system is one that no other host can write to. Where a file system has no locks, nothing is removed.
//!
//! A run may take for an orphan what another has made and not locked yet. So whoever makes something looks, once it is
//! locked, whether it is still there, and makes another one if it is not.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use super::destination::same_inode;
use crate::untrusted::shown_path;

/// How the name of everything that is staged ends.
pub(super) const SUFFIX: &str = ".swiftprune.tmp";

/// Letters and digits between the maker and the suffix of a staged name.
const RANDOM: usize = 6;

/// The most characters of a host's name that are in a staged name.
const HOST: usize = 32;

/// Who has staged something.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Maker {
    /// The name of the host, of letters, digits and `_`.
    host: String,
    /// What tells one start of the host from another, and from a host of the same name; `0` where it is not known.
    boot: String,
}

impl Maker {
    fn new(host: &str, boot: &str) -> Self {
        let plain = |text: &str, most| -> String {
            let letters = text.chars().take(most);
            letters
                .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
                .collect()
        };
        Self {
            host: plain(host, HOST),
            boot: plain(boot, 8),
        }
    }

    /// This run.
    fn here() -> &'static Self {
        static HERE: LazyLock<Maker> = LazyLock::new(|| {
            let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id");
            Maker::new(&host_name(), boot.as_deref().unwrap_or("0"))
        });
        &HERE
    }

    /// Whether nobody but runs of this host, which hold a lock while they live, can have made what is in a directory.
    fn is_bound_by_locks(&self, dir: &Path) -> bool {
        let here = Self::here();
        self.host == here.host && (self.boot == here.boot || is_of_one_host(dir))
    }
}

#[cfg(unix)]
fn host_name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Nothing is removed there.
#[cfg(not(unix))]
fn host_name() -> String {
    String::new()
}

/// Whether a directory is on a file system that one host alone has mounted. Known of the usual ones of Linux.
fn is_of_one_host(dir: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        // ext2 to ext4, XFS, Btrfs, F2FS, tmpfs.
        const LOCAL: [i64; 5] = [0xef53, 0x5846_5342, 0x9123_683e, 0xf2f5_2010, 0x0102_1994];
        #[allow(
            clippy::unnecessary_cast,
            reason = "its width differs from one machine to another; all of these fit 32 bits"
        )]
        rustix::fs::statfs(dir)
            .is_ok_and(|found| LOCAL.contains(&((found.f_type as i64) & 0xffff_ffff)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        false
    }
}

/// What the name of something that this run stages begins with, for a place whose staged names all begin with `prefix`.
pub(super) fn prefix_here(prefix: &str) -> String {
    let Maker { host, boot } = Maker::here();
    format!("{prefix}{host}-{boot}-{}.", std::process::id())
}

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
    remove_staged(parent, |name| maker(name.strip_prefix(prefix)?))
}

/// Removes what killed runs have staged in a directory, whatever it was to become; tells what.
pub(crate) fn remove_all(dir: &Path) -> Vec<PathBuf> {
    remove_staged(dir, |name| {
        let (before, _random) = name.strip_suffix(SUFFIX)?.rsplit_once('.')?;
        let (prefix, _maker) = before.rsplit_once('.')?;
        maker(&name[prefix.len() + 1..])
    })
}

/// `who` says who has staged something of this name, if it was staged.
fn remove_staged(parent: &Path, who: impl Fn(&str) -> Option<Maker>) -> Vec<PathBuf> {
    if cfg!(not(unix)) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut removed = Vec::new();
    for entry in entries.flatten() {
        let (path, Some(maker)) = (entry.path(), who(&entry.file_name().to_string_lossy())) else {
            continue;
        };
        if !maker.is_bound_by_locks(parent) {
            log::warn!(
                "{} is of a run on {}, which may still live; remove it if it does not",
                shown_path(&path),
                maker.host
            );
        } else if remove_one(&path) {
            removed.push(path);
        }
    }
    removed
}

/// Who has staged something, by what its name goes on with behind the prefix of its place: `HOST-BOOT-PROCESS.xxxxxx` and the
/// suffix.
fn maker(rest: &str) -> Option<Maker> {
    let (maker, random) = rest.strip_suffix(SUFFIX)?.split_once('.')?;
    let is_plain = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let mut words = maker.split('-');
    let (host, boot, process) = (words.next()?, words.next()?, words.next()?);
    let is_one = words.next().is_none() && random.len() == RANDOM;
    let words = [host, boot, process, random];
    (is_one && words.into_iter().all(is_plain)).then(|| Maker::new(host, boot))
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
    let removed = if meta.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
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

    /// The name of something that a host has staged for `out`, since some start of it.
    fn staged(Maker { host, boot }: &Maker, random: &str) -> String {
        format!(".out.{host}-{boot}-123.{random}{SUFFIX}")
    }

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let here = Maker::here();
        let strangers = [
            ".out.abc123.tmp".to_owned(),
            ".out.abc123.swiftprune.tmp".to_owned(),
            staged(here, "abc12"),
            staged(here, "abc1234"),
            staged(here, "abc12-"),
            staged(here, "abc123").replace(".out.", ".other."),
            "out".to_owned(),
        ];
        for name in &strangers {
            fs::write(at(name), "mine").unwrap();
        }
        fs::write(at(&staged(here, "aaaaaa")), "orphan").unwrap();
        fs::create_dir(at(&staged(here, "bbbbbb"))).unwrap();
        fs::write(at(&staged(here, "bbbbbb")).join("x"), "orphan").unwrap();
        let held = at(&staged(here, "cccccc"));
        fs::create_dir(&held).unwrap();
        let lock_of_held = lock(&held).unwrap();

        assert_eq!(remove(dir.path(), ".out.").len(), 2);
        assert!(held.exists());
        for name in &strangers {
            assert!(at(name).exists(), "{name}");
        }
        drop(lock_of_held);
        assert_eq!(remove(dir.path(), ".out."), [held]);
        // Whatever it was to become.
        let other = at(&strangers[5]);
        assert_eq!(remove_all(dir.path()), [other]);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 6);
    }

    #[test]
    fn what_another_host_has_staged_is_left_though_nobody_here_holds_it() {
        let dir = tempfile::tempdir().unwrap();
        let here = Maker::here();
        let other = Maker::new("another-host.example", &here.boot);
        let name = staged(&other, "aaaaaa");
        assert_eq!(maker(name.strip_prefix(".out.").unwrap()), Some(other));
        fs::create_dir(dir.path().join(&name)).unwrap();
        assert!(remove(dir.path(), ".out.").is_empty());
        assert!(remove_all(dir.path()).is_empty());
        assert!(dir.path().join(&name).exists());
        // One of the same name, or this host before its last start: gone where no other host can write.
        let before = Maker::new(&here.host, "01234567");
        fs::create_dir(dir.path().join(staged(&before, "bbbbbb"))).unwrap();
        let removed = remove(dir.path(), ".out.").len();
        assert_eq!(removed, usize::from(is_of_one_host(dir.path())));
    }

    #[test]
    fn the_name_of_what_is_staged_says_who_has_staged_it() {
        let name = prefix_here(".out.") + "abcdef" + SUFFIX;
        assert_eq!(
            maker(name.strip_prefix(".out.").unwrap()).as_ref(),
            Some(Maker::here())
        );
        assert!(name.contains(&std::process::id().to_string()));
        assert!(!Maker::here().host.is_empty());
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
