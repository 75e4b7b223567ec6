//! The transaction that makes an output appear whole or not at all.
//!
//! A [`Staging`] is a temporary file or directory beside the place where the output will be. Each staged file has its full
//! length and its header from the start; its data come from any number of threads, each byte once. [`Staging::finish`] refuses
//! while bytes are missing, then renames. A stage that is dropped instead, by an error or a panic, removes what it made. A
//! process that is killed leaves `.NAME.HOST-BOOT-PROCESS.xxxxxx.swiftprune.tmp` behind, and no half-written NAME; the next run to
//! the same place removes it (`orphans.rs`).

use std::ffi::OsString;
#[cfg(unix)]
use std::fs::Metadata;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::{TempDir, TempPath};

#[cfg(unix)]
use super::destination::same_inode;
use super::destination::{Destination, Form, temporary_prefix};
use super::error::{Error, Result};
use super::handles::Handles;
use super::orphans::{self, Lock};
use super::positional::write_all_at;
use crate::untrusted::open_regular;

/// A file that is to be staged.
#[derive(Debug)]
pub(super) struct FileSpec<'a> {
    /// Its name in the output's directory; for an output that is a file, what messages call it.
    pub name: OsString,
    /// Its first bytes.
    pub header: &'a [u8],
    /// Its length in bytes, header included.
    pub len: u64,
    /// The file whose mode bits it gets, less the umask, as `cp` does it; without one, those of any new file.
    #[cfg_attr(not(unix), expect(dead_code, reason = "mode bits are a thing of Unix"))]
    pub like: Option<&'a Path>,
}

/// An output that is being written, invisible until it is finished.
#[derive(Debug)]
pub(super) struct Staging {
    // Before `temporary`: where an open file cannot be deleted, the handles have to go first.
    handles: Handles,
    files: Vec<StagedFile>,
    temporary: Temporary,
    _lock: Lock,
    destination: Destination,
    /// Bytes of all files.
    needed: u64,
    sync: bool,
}

/// What is removed when dropped.
#[derive(Debug)]
enum Temporary {
    File(TempPath),
    Directory(TempDir),
}

/// A staged file that is open.
#[derive(Debug)]
pub(super) struct OpenStaged<'a> {
    pub file: Arc<File>,
    pub path: &'a Path,
}

/// One file of an output that is being written, which is open only now and then.
#[derive(Debug)]
struct StagedFile {
    path: PathBuf,
    /// Of the file that was made.
    #[cfg(unix)]
    made: Metadata,
    /// What messages call it.
    name: String,
    data_start: u64,
    len: u64,
    /// Bytes of data written so far.
    written: AtomicU64,
    /// Mode bits that the file has until it is finished, so that its owner can write it, and no longer.
    #[cfg(unix)]
    extra_mode: u32,
}

impl Staging {
    /// Stages an output that is one file.
    pub(super) fn file(destination: Destination, spec: &FileSpec<'_>, sync: bool) -> Result<Self> {
        let parent = &destination.parent;
        let failed = |error, path: &Path| write_error(error, path, spec.len, parent);
        let prefix = destination.temporary_prefix();
        // Before room is asked for: an orphan may be what takes it.
        orphans::remove(parent, &prefix);
        let mut temporary = tempfile::Builder::new();
        let prefix = orphans::prefix_here(&prefix);
        temporary.prefix(&prefix).suffix(orphans::SUFFIX);
        #[cfg(unix)]
        temporary.permissions(mode_like(spec.like, 0o666, 0o600)?);
        let make = || temporary.tempfile_in(parent);
        let (made, lock) =
            locked(make, tempfile::NamedTempFile::path).map_err(|e| failed(e, parent))?;
        let (file, temp) = made.into_parts();
        let staged = StagedFile::fill(spec, &file, &temp).map_err(|e| failed(e, &temp))?;
        Ok(Self {
            handles: Handles::default(),
            files: vec![staged],
            temporary: Temporary::File(temp),
            _lock: lock,
            needed: spec.len,
            destination,
            sync,
        })
    }

    /// Stages an output that is a directory, with the mode bits of `like`; `others` are the bytes of what will be put into it
    /// beside the files of `specs`.
    pub(super) fn directory(
        destination: Destination,
        specs: &[FileSpec<'_>],
        others: u64,
        like: Option<&Path>,
        sync: bool,
    ) -> Result<Self> {
        let needed = specs
            .iter()
            .fold(others, |sum: u64, spec| sum.saturating_add(spec.len));
        let parent = &destination.parent;
        let failed = |error, path: &Path| write_error(error, path, needed, parent);
        let prefix = destination.temporary_prefix();
        orphans::remove(parent, &prefix);
        let mut temporary = tempfile::Builder::new();
        let prefix = orphans::prefix_here(&prefix);
        temporary.prefix(&prefix).suffix(orphans::SUFFIX);
        #[cfg(unix)]
        temporary.permissions(mode_like(like, 0o777, 0o700)?);
        #[cfg(not(unix))]
        let _ = like;
        let make = || temporary.tempdir_in(parent);
        let (dir, lock) = locked(make, TempDir::path).map_err(|e| failed(e, parent))?;
        let mut files = Vec::with_capacity(specs.len());
        for spec in specs {
            let path = dir.path().join(&spec.name);
            files.push(StagedFile::create(spec, &path).map_err(|e| failed(e, &path))?);
        }
        Ok(Self {
            handles: Handles::default(),
            files,
            temporary: Temporary::Directory(dir),
            _lock: lock,
            destination,
            needed,
            sync,
        })
    }

    /// Where the output will appear, as the user gave it.
    pub(super) fn path(&self) -> &Path {
        &self.destination.given
    }

    /// The staged file or directory.
    pub(super) fn temporary(&self) -> &Path {
        match &self.temporary {
            Temporary::File(path) => path,
            Temporary::Directory(dir) => dir.path(),
        }
    }

    /// Writes data of a file, `offset` bytes from its start.
    pub(super) fn write_at(&self, file: usize, bytes: &[u8], offset: u64) -> Result<()> {
        self.fill(file, offset, bytes.len() as u64, |staged| {
            write_all_at(&staged.file, bytes, offset).map_err(|e| self.failed(e, staged.path))
        })
    }

    /// Lets `write` write so many bytes of a file's data, and books them.
    pub(super) fn fill(
        &self,
        file: usize,
        offset: u64,
        len: u64,
        write: impl FnOnce(&OpenStaged<'_>) -> Result<()>,
    ) -> Result<()> {
        let staged = self.range(file, offset, len)?;
        let open =
            (self.handles.get(file, || staged.open())).map_err(|e| self.failed(e, &staged.path))?;
        write(&OpenStaged {
            file: open,
            path: &staged.path,
        })?;
        staged.written.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// The file, if the range lies in its data.
    fn range(&self, file: usize, offset: u64, len: u64) -> Result<&StagedFile> {
        let Some(staged) = self.files.get(file) else {
            return Err(Error::OutOfRange {
                shard: format!("shard {file}"),
                offset,
                len,
                data_start: 0,
                end: 0,
            });
        };
        let inside = offset >= staged.data_start
            && offset.checked_add(len).is_some_and(|end| end <= staged.len);
        if inside {
            return Ok(staged);
        }
        Err(Error::OutOfRange {
            shard: staged.name.clone(),
            offset,
            len,
            data_start: staged.data_start,
            end: staged.len,
        })
    }

    /// A failure to write as an error.
    pub(super) fn failed(&self, error: io::Error, path: &Path) -> Error {
        write_error(error, path, self.needed, &self.destination.parent)
    }

    /// Puts the output in place.
    pub(super) fn finish(self) -> Result<PathBuf> {
        let Self {
            handles,
            files,
            temporary,
            destination,
            sync,
            ..
        } = self;
        for (number, staged) in files.iter().enumerate() {
            staged.is_complete()?;
            let file = handles.get(number, || staged.open());
            let file = file.map_err(Error::io("open", &staged.path))?;
            staged
                .restore_mode(&file)
                .map_err(Error::io("set the mode of", &staged.path))?;
            if sync {
                file.sync_all().map_err(Error::io("sync", &staged.path))?;
            }
        }
        // Where an open file cannot be renamed.
        drop(handles);

        match temporary {
            Temporary::File(temp) => destination.take_file(temp)?,
            Temporary::Directory(temp) => {
                if sync {
                    sync_tree(temp.path())?;
                }
                destination.take_directory(temp)?;
            }
        }
        if sync {
            sync_directory(&destination.parent)?;
        }
        Ok(destination.given)
    }
}

/// A file whose content is known at once, and that appears whole: opened before the work that the content is the result of, so
/// that a place that cannot be written to costs no work.
#[derive(Debug)]
pub(crate) struct NewFile {
    file: tempfile::NamedTempFile,
    _lock: Lock,
    destination: Destination,
}

impl NewFile {
    /// Stages a file that is to appear at `path`, and may replace a file there where that is allowed.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::NotReplaceable`], [`Error::NoOutputName`], [`Error::NoOutputDirectory`], [`Error::Io`].
    pub(crate) fn create(path: &Path, overwrite: bool) -> Result<Self> {
        let destination = Destination::new(path, Form::File, overwrite)?;
        let parent = &destination.parent;
        let prefix = destination.temporary_prefix();
        orphans::remove(parent, &prefix);
        let prefix = orphans::prefix_here(&prefix);
        let mut temporary = tempfile::Builder::new();
        temporary.prefix(&prefix).suffix(orphans::SUFFIX);
        #[cfg(unix)]
        temporary.permissions(mode_like(None, 0o666, 0o600)?);
        let make = || temporary.tempfile_in(parent);
        let made = locked(make, tempfile::NamedTempFile::path);
        let (file, lock) = made.map_err(|error| write_error(error, path, 0, parent))?;
        Ok(Self {
            file,
            _lock: lock,
            destination,
        })
    }

    /// Writes the file and puts it in place; with `sync`, it is on the disk then, and so is its name.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Io`], and [`Error::OutputExists`] for what has appeared meanwhile.
    pub(crate) fn write(self, bytes: &[u8], sync: bool) -> Result<()> {
        let Self {
            mut file,
            _lock,
            destination,
        } = self;
        let path = &destination.given;
        let failed = |error| write_error(error, path, bytes.len() as u64, &destination.parent);
        file.write_all(bytes).map_err(failed)?;
        if sync {
            file.as_file().sync_all().map_err(Error::io("sync", path))?;
        }
        destination.take_file(file.into_temp_path())?;
        if sync {
            sync_directory(&destination.parent)?;
        }
        Ok(())
    }
}

/// How often something is made again that another run has taken for an orphan.
const ATTEMPTS: usize = 16;

/// Writes a file of the output directory `dir`, which is in its place already: it appears whole, and a run that is killed leaves
/// nothing within the output, as it is staged beside it.
pub(crate) fn replace_within(
    dir: &Path,
    path: &Path,
    bytes: &[u8],
    permissions: Option<Permissions>,
) -> io::Result<()> {
    let dir = std::path::absolute(dir)?;
    let prefix = orphans::prefix_here(&temporary_prefix(dir.file_name().unwrap_or_default()));
    let parent = dir.parent().unwrap_or(&dir);
    let mut temporary = tempfile::Builder::new();
    temporary.prefix(&prefix).suffix(orphans::SUFFIX);
    let make = || temporary.tempfile_in(parent);
    let (mut file, _lock) = locked(make, tempfile::NamedTempFile::path)?;
    file.write_all(bytes)?;
    if let Some(permissions) = permissions {
        file.as_file().set_permissions(permissions)?;
    }
    file.persist(path)?;
    Ok(())
}

/// Makes something to stage in, and locks it.
fn locked<T>(
    make: impl Fn() -> io::Result<T>,
    path: impl Fn(&T) -> &Path,
) -> io::Result<(T, Lock)> {
    for _ in 0..ATTEMPTS {
        let made = make()?;
        if let Some(lock) = orphans::lock(path(&made)) {
            return Ok((made, lock));
        }
    }
    Err(io::Error::other(
        "other runs to the same place took it away",
    ))
}

impl StagedFile {
    /// A new file at `path`.
    fn create(spec: &FileSpec<'_>, path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        if let Some(like) = spec.like {
            use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
            options.mode(fs::metadata(like)?.permissions().mode() & 0o777 | 0o600);
        }
        Self::fill(spec, &options.open(path)?, path)
    }

    /// Gives a new file its full length and its header.
    fn fill(spec: &FileSpec<'_>, file: &File, path: &Path) -> io::Result<Self> {
        reserve(file, spec.len)?;
        write_all_at(file, spec.header, 0)?;
        Ok(Self {
            path: path.to_path_buf(),
            #[cfg(unix)]
            made: file.metadata()?,
            name: spec.name.to_string_lossy().into_owned(),
            data_start: spec.header.len() as u64,
            len: spec.len,
            written: AtomicU64::new(0),
            #[cfg(unix)]
            extra_mode: match spec.like {
                Some(like) => {
                    use std::os::unix::fs::PermissionsExt;
                    0o600 & !fs::metadata(like)?.permissions().mode()
                }
                None => 0,
            },
        })
    }

    /// Opens the file, which has to be the one that was made.
    fn open(&self) -> io::Result<File> {
        let file = OpenOptions::new().write(true).open(&self.path)?;
        #[cfg(unix)]
        if !same_inode(&file.metadata()?, &self.made) {
            return Err(io::Error::other("another file has taken its place"));
        }
        Ok(file)
    }

    fn is_complete(&self) -> Result<()> {
        let written = self.written.load(Ordering::Relaxed);
        let needed = self.len - self.data_start;
        if written < needed {
            return Err(Error::Incomplete {
                shard: self.name.clone(),
                written,
                needed,
            });
        }
        Ok(())
    }

    /// Takes back what the owner may do to the staged file only.
    #[cfg_attr(
        not(unix),
        allow(
            clippy::unnecessary_wraps,
            clippy::unused_self,
            unused_variables,
            reason = "the shape of Unix"
        )
    )]
    fn restore_mode(&self, file: &File) -> io::Result<()> {
        #[cfg(unix)]
        if self.extra_mode != 0 {
            use std::os::unix::fs::PermissionsExt;
            let mut permissions = file.metadata()?.permissions();
            permissions.set_mode(permissions.mode() & !self.extra_mode);
            file.set_permissions(permissions)?;
        }
        Ok(())
    }
}

/// Gives a new file its length, and its blocks where the file system can: a full disk is then an error before the work,
/// and the kernel need not find room for every page that is written (0.1 of 0.75 s for 2.2 GB, see `docs/benchmarks.md`).
pub(super) fn reserve(file: &File, len: u64) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{FallocateFlags, fallocate};
        use rustix::io::Errno;
        match fallocate(file, FallocateFlags::empty(), 0, len) {
            Ok(()) => return Ok(()),
            Err(full @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => return Err(full.into()),
            // A file system that cannot.
            Err(_) => {}
        }
    }
    file.set_len(len)
}

/// The mode bits to create a file or directory with: those of `like`, or `default`, and always `owner`. The umask then
/// applies as it does for `cp`.
#[cfg(unix)]
fn mode_like(like: Option<&Path>, default: u32, owner: u32) -> Result<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    let mode = match like {
        Some(path) => {
            let meta = fs::metadata(path).map_err(Error::io("open", path))?;
            meta.permissions().mode()
        }
        None => default,
    };
    Ok(Permissions::from_mode(mode & 0o777 | owner))
}

/// A failure to write as an error: one for want of room says how much is needed and where.
fn write_error(source: io::Error, path: &Path, needed: u64, directory: &Path) -> Error {
    match source.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            Error::NoSpace {
                needed,
                directory: directory.to_path_buf(),
                source,
            }
        }
        _ => Error::io("write", path)(source),
    }
}

/// Flushes all files below a directory, and the directories. What is on the disk already costs nothing.
fn sync_tree(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let path = entry.map_err(Error::io("list", dir))?.path();
        if path.is_dir() {
            sync_tree(&path)?;
        } else {
            // Windows flushes only what may be written; elsewhere a file may be read-only.
            let opened = if cfg!(windows) {
                OpenOptions::new().write(true).open(&path)
            } else {
                open_regular(&path)
                    .map(|(file, _)| file)
                    .map_err(io::Error::other)
            };
            opened
                .and_then(|file| file.sync_all())
                .map_err(Error::io("sync", &path))?;
        }
    }
    sync_directory(dir)
}

/// Flushes the names in a directory; Windows has no such call.
fn sync_directory(dir: &Path) -> Result<()> {
    if cfg!(unix) {
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io("sync", dir))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
