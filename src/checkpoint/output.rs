//! The transaction that makes a pruned checkpoint appear whole or not at all.
//!
//! [`Output::create`] checks where the output may go and stages it in a temporary file or directory beside that
//! place: every shard at its full length with the header bytes of the input verbatim, and everything else of a model
//! directory. Any number of threads then write the data, each byte once, changed ones by [`Output::write_at`] and
//! untouched ones by [`Output::copy_range`], at the offsets they have in the input. [`Output::finish`] renames the
//! result into place; it refuses while bytes are missing. An [`Output`] that is dropped instead, by an error or a
//! panic, removes what it staged. A process that is killed leaves `.NAME.xxxxxx.tmp` behind and no half-written NAME.
//!
//! The input is never written to and never replaced, and no link is written through, `--force` or not.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use tempfile::{TempDir, TempPath};

use super::companions::{self, Companions};
use super::destination::Destination;
use super::error::{Error, Result};
use super::locate::Weights;
use super::positional::{read_exact_at, write_all_at};
use super::shards::{Checkpoint, Shard};
use crate::untrusted::open_regular;

/// Bytes that are copied at a time where the kernel does not copy.
const BUFFER: u64 = 1 << 20;

/// An output that is being written, invisible until it is finished.
#[derive(Debug)]
pub struct Output {
    // Before `stage`: where an open file cannot be deleted, the handles have to go first.
    shards: Vec<Staged>,
    stage: Stage,
    destination: Destination,
    companions: Companions,
    /// Bytes of all shards.
    needed: u64,
}

/// What a finished output consists of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Where it lies.
    pub path: PathBuf,
    /// The files that were copied as they are, relative to the model directory, with `/`; not the shards.
    pub copied: Vec<String>,
    /// The files and directories that were not copied, and why. Names are not escaped.
    pub left_out: Vec<(String, &'static str)>,
}

/// The temporary thing; removed when dropped.
#[derive(Debug)]
enum Stage {
    File(TempPath),
    Directory(TempDir),
}

/// One file of weights that is being written.
#[derive(Debug)]
struct Staged {
    file: File,
    path: PathBuf,
    /// The shard of the input, to open handles of one's own.
    input: PathBuf,
    name: String,
    data_start: u64,
    len: u64,
    /// Bytes of data written so far.
    written: AtomicU64,
    /// Mode bits the owner of the input lacks, and the staged file has until it is finished.
    #[cfg(unix)]
    extra_mode: u32,
}

impl Output {
    /// Stages the output of `checkpoint` that is to appear at `path`: a file for a file, a directory for all else.
    ///
    /// With `force` it replaces a file by a file, a link, or a directory that holds a checkpoint by a directory.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::OutputIsInput`], [`Error::NotReplaceable`], [`Error::NoOutputName`] and
    /// [`Error::NoOutputDirectory`] for a place that cannot be taken; [`Error::NoSpace`] and [`Error::Io`].
    pub fn create(checkpoint: &Checkpoint, path: &Path, force: bool) -> Result<Self> {
        let destination = Destination::check(checkpoint, path, force)?;
        let needed = checkpoint
            .shards
            .iter()
            .fold(0, |sum: u64, shard| sum.saturating_add(shard.len));
        let parent = &destination.parent;
        let failed = |error, path: &Path| write_error(error, path, needed, parent);
        let prefix = destination.temporary_prefix();
        let mut temporary = tempfile::Builder::new();
        temporary.prefix(&prefix).suffix(".tmp");

        let mut companions = Companions::default();
        let mut shards = Vec::with_capacity(checkpoint.shards.len());
        let stage = if let Some(source) = checkpoint.source.directory() {
            #[cfg(unix)]
            temporary.permissions(mode_of(source, 0o700)?);
            let dir = temporary
                .tempdir_in(parent)
                .map_err(|e| failed(e, parent))?;
            for shard in &checkpoint.shards {
                let name = shard.path.file_name().unwrap_or_default();
                shards.push(
                    Staged::create(shard, &dir.path().join(name))
                        .map_err(|(e, path)| failed(e, &path))?,
                );
            }
            let names: Vec<OsString> = checkpoint
                .shards
                .iter()
                .filter_map(|s| s.path.file_name())
                .map(OsString::from)
                .collect();
            let index = match checkpoint.source.weights() {
                Weights::Sharded(index) => index.file_name().map(OsString::from),
                Weights::Single(_) => None,
            };
            companions = companions::copy(source, dir.path(), &names, index, &failed)?;
            Stage::Directory(dir)
        } else {
            let shard = &checkpoint.shards[0];
            #[cfg(unix)]
            temporary.permissions(mode_of(&shard.path, 0o600)?);
            let (file, temp) = temporary
                .tempfile_in(parent)
                .map_err(|e| failed(e, parent))?
                .into_parts();
            shards.push(Staged::fill(shard, file, &temp).map_err(|e| failed(e, &temp))?);
            Stage::File(temp)
        };
        Ok(Self {
            shards,
            stage,
            destination,
            companions,
            needed,
        })
    }

    /// Where the output will appear.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.destination.given
    }

    /// Writes data of the shard with this number, `offset` bytes from the start of its file. Each byte of the data is
    /// to be written once.
    ///
    /// # Errors
    /// [`Error::OutOfRange`] outside the data (the header is not written to); [`Error::NoSpace`] and [`Error::Io`].
    pub fn write_at(&self, shard: usize, bytes: &[u8], offset: u64) -> Result<()> {
        let staged = self.range(shard, offset, bytes.len() as u64)?;
        write_all_at(&staged.file, bytes, offset).map_err(|e| self.failed(e, &staged.path))?;
        staged
            .written
            .fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Copies `len` bytes of the data of a shard as they are, from the input to the same `offset` of the output, in
    /// the kernel where it can. `input` is any handle of the input's shard; its cursor may be used.
    ///
    /// # Errors
    /// As [`Output::write_at`], and [`Error::Changed`] if the input has become shorter.
    pub fn copy_range(&self, shard: usize, input: &File, offset: u64, len: u64) -> Result<()> {
        let staged = self.range(shard, offset, len)?;
        let in_kernel = len >= BUFFER && self.copy_in_kernel(staged, input, offset, len)?;
        if !in_kernel {
            self.copy_by_buffer(staged, input, offset, len)?;
        }
        staged.written.fetch_add(len, Ordering::Relaxed);
        Ok(())
    }

    /// Puts the output in place. With `sync`, files and directories are flushed to the disk first, and the rename
    /// after.
    ///
    /// # Errors
    /// [`Error::Incomplete`] if data are missing; [`Error::OutputExists`] or [`Error::NotReplaceable`] if something
    /// has come in the way meanwhile; [`Error::Io`]. The staged output is then gone, and what was there before is
    /// still there (for [`Error::OldMovedAside`], where that says).
    pub fn finish(self, sync: bool) -> Result<Finished> {
        let Self {
            shards,
            stage,
            destination,
            companions,
            ..
        } = self;
        for staged in &shards {
            let (written, needed) = (
                staged.written.load(Ordering::Relaxed),
                staged.len - staged.data_start,
            );
            if written < needed {
                return Err(Error::Incomplete {
                    shard: staged.name.clone(),
                    written,
                    needed,
                });
            }
            staged
                .restore_mode()
                .map_err(Error::io("set the mode of", &staged.path))?;
            if sync {
                staged
                    .file
                    .sync_all()
                    .map_err(Error::io("sync", &staged.path))?;
            }
        }
        // Where an open file cannot be renamed.
        drop(shards);

        match stage {
            Stage::File(temp) => destination.take_file(temp)?,
            Stage::Directory(temp) => {
                if sync {
                    sync_tree(temp.path())?;
                }
                destination.take_directory(temp)?;
            }
        }
        if sync {
            sync_directory(&destination.parent)?;
        }
        let Companions { copied, left_out } = companions;
        Ok(Finished {
            path: destination.given,
            copied,
            left_out,
        })
    }

    /// The shard, if the range lies in its data.
    fn range(&self, shard: usize, offset: u64, len: u64) -> Result<&Staged> {
        let Some(staged) = self.shards.get(shard) else {
            return Err(Error::OutOfRange {
                shard: format!("shard {shard}"),
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
        let (data_start, end) = (staged.data_start, staged.len);
        Err(Error::OutOfRange {
            shard: staged.name.clone(),
            offset,
            len,
            data_start,
            end,
        })
    }

    fn failed(&self, error: io::Error, path: &Path) -> Error {
        write_error(error, path, self.needed, &self.destination.parent)
    }

    /// Lets the kernel copy; false if it has to be done otherwise.
    ///
    /// Between files `io::copy` is `copy_file_range`, which goes by the cursors. Other threads share the cursors of
    /// the handles at hand, so it takes two of its own, and makes sure that they are the same files.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    fn copy_in_kernel(&self, staged: &Staged, input: &File, offset: u64, len: u64) -> Result<bool> {
        use std::io::{Read, Seek, SeekFrom};

        let own = |options: &OpenOptions, path: &Path, of: &File| -> io::Result<Option<File>> {
            let mut file = options.open(path)?;
            if !super::destination::same_inode(&file.metadata()?, &of.metadata()?) {
                return Ok(None);
            }
            file.seek(SeekFrom::Start(offset))?;
            Ok(Some(file))
        };
        let from = own(OpenOptions::new().read(true), &staged.input, input);
        let to = own(OpenOptions::new().write(true), &staged.path, &staged.file);
        let (Ok(Some(from)), Ok(Some(mut to))) = (from, to) else {
            return Ok(false);
        };
        let copied =
            io::copy(&mut from.take(len), &mut to).map_err(|e| self.failed(e, &staged.path))?;
        if copied < len {
            return Err(Error::Changed {
                path: staged.input.clone(),
            });
        }
        Ok(true)
    }

    /// No such call here.
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    #[allow(
        clippy::unnecessary_wraps,
        clippy::unused_self,
        reason = "the shape of its Linux twin"
    )]
    fn copy_in_kernel(&self, _: &Staged, _: &File, _: u64, _: u64) -> Result<bool> {
        Ok(false)
    }

    fn copy_by_buffer(&self, staged: &Staged, input: &File, offset: u64, len: u64) -> Result<()> {
        // At most a mebibyte: fits any usize.
        let mut buffer = vec![0; len.min(BUFFER) as usize];
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let part = &mut buffer[..(end - at).min(BUFFER) as usize];
            read_exact_at(input, part, at).map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => Error::Changed {
                    path: staged.input.clone(),
                },
                _ => Error::io("read", &staged.input)(e),
            })?;
            write_all_at(&staged.file, part, at).map_err(|e| self.failed(e, &staged.path))?;
            at += part.len() as u64;
        }
        Ok(())
    }
}

/// Gives a new file its length, and its blocks where the file system can: a full disk is then an error before the work,
/// and the kernel need not find room for every page that is written (0.1 of 0.75 s for 2.2 GB, see `docs/benchmarks.md`).
fn reserve(file: &File, len: u64) -> io::Result<()> {
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

impl Staged {
    /// A new file at `path` for a shard; on failure, the path with the error.
    fn create(shard: &Shard, path: &Path) -> Result<Self, (io::Error, PathBuf)> {
        let make = || {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            {
                use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
                options.mode(fs::metadata(&shard.path)?.permissions().mode() & 0o777 | 0o600);
            }
            Self::fill(shard, options.open(path)?, path)
        };
        make().map_err(|e| (e, path.to_path_buf()))
    }

    /// Gives a new file its full length and its header.
    fn fill(shard: &Shard, file: File, path: &Path) -> io::Result<Self> {
        reserve(&file, shard.len)?;
        write_all_at(&file, &shard.header.raw, 0)?;
        Ok(Self {
            file,
            path: path.to_path_buf(),
            input: shard.path.clone(),
            name: shard.file_name.clone(),
            data_start: shard.header.data_start(),
            len: shard.len,
            written: AtomicU64::new(0),
            #[cfg(unix)]
            extra_mode: {
                use std::os::unix::fs::PermissionsExt;
                0o600 & !fs::metadata(&shard.path)?.permissions().mode()
            },
        })
    }

    /// Takes back what the owner may do to the staged file but not to the input.
    #[cfg_attr(
        not(unix),
        allow(
            clippy::unnecessary_wraps,
            clippy::unused_self,
            reason = "the shape of Unix"
        )
    )]
    fn restore_mode(&self) -> io::Result<()> {
        #[cfg(unix)]
        if self.extra_mode != 0 {
            use std::os::unix::fs::PermissionsExt;
            let mut permissions = self.file.metadata()?.permissions();
            permissions.set_mode(permissions.mode() & !self.extra_mode);
            self.file.set_permissions(permissions)?;
        }
        Ok(())
    }
}

/// The mode bits of a file or directory with `owner` added, to create another with: the umask then applies as for
/// `cp`.
#[cfg(unix)]
fn mode_of(path: &Path, owner: u32) -> Result<fs::Permissions> {
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(path)
        .map_err(Error::io("open", path))?
        .permissions()
        .mode();
    Ok(fs::Permissions::from_mode(mode & 0o777 | owner))
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

/// Flushes all files below a directory, and the directories. Shards are flushed twice, which costs nothing.
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
mod tests {
    use super::super::tests::{open, safetensors, sharded, single};
    use super::*;

    /// Copies all tensors of a checkpoint, but flips the bits of the one called `x`.
    fn write_all(checkpoint: &Checkpoint, output: &Output) {
        for (shard, tensor) in checkpoint.tensors() {
            let input = File::open(&checkpoint.shards[shard].path).unwrap();
            if tensor.name == "x" {
                let mut bytes = vec![0; tensor.len as usize];
                read_exact_at(&input, &mut bytes, tensor.offset).unwrap();
                bytes.iter_mut().for_each(|b| *b = !*b);
                output.write_at(shard, &bytes, tensor.offset).unwrap();
            } else {
                output
                    .copy_range(shard, &input, tensor.offset, tensor.len)
                    .unwrap();
            }
        }
    }

    /// What `write_all` makes of a file.
    fn flipped(shard: &Shard) -> Vec<u8> {
        let mut bytes = fs::read(&shard.path).unwrap();
        if let Some(x) = shard.header.tensor("x") {
            bytes[x.offset as usize..][..x.len as usize]
                .iter_mut()
                .for_each(|b| *b = !*b);
        }
        bytes
    }

    fn prune(model: &Path, output: &Path, force: bool) -> Result<Finished> {
        let checkpoint = open(model).unwrap();
        let output = Output::create(&checkpoint, output, force)?;
        write_all(&checkpoint, &output);
        output.finish(false)
    }

    /// All names in a directory, hidden ones too.
    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn an_output_can_be_written_from_many_threads() {
        fn shared<T: Send + Sync>() {}
        shared::<Output>();
    }

    #[test]
    fn a_file_appears_whole_with_its_header_verbatim() {
        for sync in [false, true] {
            let (root, path) = single();
            let checkpoint = open(&path).unwrap();
            let before = fs::read(&path).unwrap();
            let output = Output::create(&checkpoint, &checkpoint.default_output(), false).unwrap();
            write_all(&checkpoint, &output);
            assert!(!root.path().join("model-pruned.safetensors").exists());
            let finished = output.finish(sync).unwrap();
            assert_eq!(finished.path, root.path().join("model-pruned.safetensors"));
            assert_eq!(
                fs::read(&finished.path).unwrap(),
                flipped(&checkpoint.shards[0])
            );
            assert_eq!(fs::read(&path).unwrap(), before);
            assert_eq!(
                names(root.path()),
                ["model-pruned.safetensors", "model.safetensors"]
            );
        }
    }

    #[test]
    fn a_directory_appears_whole_and_opens_again() {
        for sync in [false, true] {
            let (root, dir) = sharded();
            fs::write(dir.join("tokenizer.json"), "{}").unwrap();
            fs::write(dir.join("pytorch_model.bin"), "dense").unwrap();
            let checkpoint = open(&dir).unwrap();
            let output = Output::create(&checkpoint, &checkpoint.default_output(), false).unwrap();
            write_all(&checkpoint, &output);
            assert!(!root.path().join("model-pruned").exists());
            let finished = output.finish(sync).unwrap();
            assert_eq!(
                finished.copied,
                [
                    "config.json",
                    "model.safetensors.index.json",
                    "tokenizer.json"
                ]
            );
            assert_eq!(finished.left_out.len(), 1);
            assert_eq!(names(root.path()), ["model", "model-pruned"]);
            let again = open(&finished.path).unwrap();
            for (new, old) in again.shards.iter().zip(&checkpoint.shards) {
                assert_eq!(fs::read(&new.path).unwrap(), flipped(old));
                assert_eq!(new.header, old.header);
            }
            assert_eq!(again.model_type(), Some("llama"));
        }
    }

    #[test]
    fn an_index_gives_the_directory_it_lies_in() {
        let (root, dir) = sharded();
        let out = root.path().join("out");
        let finished = prune(&dir.join("model.safetensors.index.json"), &out, false).unwrap();
        assert_eq!(
            finished.copied,
            ["config.json", "model.safetensors.index.json"]
        );
        assert_eq!(open(&out).unwrap().tensors().count(), 3);
    }

    #[test]
    fn large_ranges_are_copied_bit_by_bit_from_many_threads() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.safetensors");
        let lens = [2 * BUFFER + 17, 3, 5 * BUFFER - 1, BUFFER, 0];
        let named: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().zip(lens).collect();
        fs::write(&path, safetensors(&named)).unwrap();
        let checkpoint = open(&path).unwrap();
        let out = root.path().join("out.safetensors");
        let output = Output::create(&checkpoint, &out, false).unwrap();
        let input = File::open(&path).unwrap();
        std::thread::scope(|scope| {
            for (shard, tensor) in checkpoint.tensors() {
                let (output, input) = (&output, &input);
                scope.spawn(move || {
                    output
                        .copy_range(shard, input, tensor.offset, tensor.len)
                        .unwrap()
                });
            }
        });
        output.finish(false).unwrap();
        assert!(fs::read(&out).unwrap() == fs::read(&path).unwrap());
    }

    #[test]
    fn the_buffer_copies_what_the_kernel_copies() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.safetensors");
        fs::write(&path, safetensors(&[("a", 2 * BUFFER + 17)])).unwrap();
        let checkpoint = open(&path).unwrap();
        let output =
            Output::create(&checkpoint, &root.path().join("o.safetensors"), false).unwrap();
        let tensor = &checkpoint.shards[0].header.tensors[0];
        let input = File::open(&path).unwrap();
        output
            .copy_by_buffer(&output.shards[0], &input, tensor.offset, tensor.len)
            .unwrap();
        assert!(fs::read(&output.shards[0].path).unwrap() == fs::read(&path).unwrap());
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_replaced_input_is_still_copied_from_the_handle_that_was_opened() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.safetensors");
        let bytes = safetensors(&[("a", BUFFER + 1)]);
        fs::write(&path, &bytes).unwrap();
        let checkpoint = open(&path).unwrap();
        let input = File::open(&path).unwrap();
        fs::rename(&path, root.path().join("old")).unwrap();
        fs::write(&path, vec![7; bytes.len()]).unwrap();
        let output =
            Output::create(&checkpoint, &root.path().join("o.safetensors"), false).unwrap();
        let tensor = &checkpoint.shards[0].header.tensors[0];
        assert!(
            !output
                .copy_in_kernel(&output.shards[0], &input, tensor.offset, tensor.len)
                .unwrap()
        );
        output
            .copy_range(0, &input, tensor.offset, tensor.len)
            .unwrap();
        assert!(fs::read(&output.shards[0].path).unwrap() == bytes);
    }

    #[test]
    fn an_input_that_was_cut_short_is_an_error() {
        for len in [100, BUFFER + 100] {
            let root = tempfile::tempdir().unwrap();
            let path = root.path().join("model.safetensors");
            fs::write(&path, safetensors(&[("a", len)])).unwrap();
            let checkpoint = open(&path).unwrap();
            let output =
                Output::create(&checkpoint, &root.path().join("o.safetensors"), false).unwrap();
            File::options()
                .write(true)
                .open(&path)
                .unwrap()
                .set_len(checkpoint.shards[0].len - 1)
                .unwrap();
            let input = File::open(&path).unwrap();
            let tensor = &checkpoint.shards[0].header.tensors[0];
            let error = output
                .copy_range(0, &input, tensor.offset, tensor.len)
                .unwrap_err();
            assert!(matches!(error, Error::Changed { .. }), "{error:?}");
            assert!(output.finish(false).is_err());
            assert_eq!(names(root.path()), ["model.safetensors"]);
        }
    }

    #[test]
    fn dropping_without_finish_leaves_nothing() {
        let (root, path) = single();
        let output = Output::create(
            &open(&path).unwrap(),
            &root.path().join("o.safetensors"),
            false,
        )
        .unwrap();
        assert_eq!(names(root.path()).len(), 2);
        assert!(names(root.path())[0].starts_with(".o.safetensors."));
        drop(output);
        assert_eq!(names(root.path()), ["model.safetensors"]);

        let (root, dir) = sharded();
        let output = Output::create(&open(&dir).unwrap(), &root.path().join("o"), false).unwrap();
        assert_eq!(names(root.path()).len(), 2);
        drop(output);
        assert_eq!(names(root.path()), ["model"]);
    }

    #[test]
    fn an_output_with_missing_bytes_is_not_put_in_place() {
        let (root, path) = single();
        let checkpoint = open(&path).unwrap();
        let output =
            Output::create(&checkpoint, &root.path().join("o.safetensors"), false).unwrap();
        let tensor = &checkpoint.shards[0].header.tensors[0];
        output.write_at(0, &[0; 300], tensor.offset).unwrap();
        let error = output.finish(false).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Incomplete {
                    written: 300,
                    needed: 305,
                    ..
                }
            ),
            "{error:?}"
        );
        assert_eq!(names(root.path()), ["model.safetensors"]);
    }

    #[test]
    fn writes_outside_the_data_are_refused() {
        let (root, path) = single();
        let checkpoint = open(&path).unwrap();
        let output =
            Output::create(&checkpoint, &root.path().join("o.safetensors"), false).unwrap();
        let (start, end) = (
            checkpoint.shards[0].header.data_start(),
            checkpoint.shards[0].len,
        );
        let input = File::open(&path).unwrap();
        assert!(
            output.write_at(0, &[1], start).is_ok() && output.write_at(0, &[1], end - 1).is_ok()
        );
        for (shard, offset) in [(0, 0), (0, start - 1), (0, end), (0, u64::MAX), (1, start)] {
            for error in [
                output.write_at(shard, &[1], offset),
                output.copy_range(shard, &input, offset, 1),
            ] {
                assert!(matches!(error, Err(Error::OutOfRange { .. })), "{error:?}");
            }
        }
        assert!(matches!(
            output.copy_range(0, &input, start, u64::MAX),
            Err(Error::OutOfRange { .. })
        ));
    }

    #[test]
    fn an_existing_file_is_replaced_only_with_force() {
        let (root, path) = single();
        let out = root.path().join("out.safetensors");
        fs::write(&out, "old").unwrap();
        let error = prune(&path, &out, false).unwrap_err();
        assert!(matches!(error, Error::OutputExists { .. }), "{error:?}");
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(fs::read(&out).unwrap(), b"old");
        prune(&path, &out, true).unwrap();
        assert!(open(&out).is_ok());
        assert_eq!(names(root.path()), ["model.safetensors", "out.safetensors"]);
    }

    #[test]
    fn a_file_that_appears_meanwhile_is_not_replaced() {
        let (root, path) = single();
        let out = root.path().join("out.safetensors");
        let checkpoint = open(&path).unwrap();
        let output = Output::create(&checkpoint, &out, false).unwrap();
        write_all(&checkpoint, &output);
        fs::write(&out, "new").unwrap();
        assert!(matches!(
            output.finish(false),
            Err(Error::OutputExists { .. })
        ));
        assert_eq!(fs::read(&out).unwrap(), b"new");
        assert_eq!(names(root.path()), ["model.safetensors", "out.safetensors"]);
    }

    #[test]
    fn an_existing_directory_is_replaced_only_with_force() {
        let (root, dir) = sharded();
        let out = root.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::write(out.join("config.json"), "old").unwrap();
        fs::write(out.join("stale"), "old").unwrap();
        let error = prune(&dir, &out, false).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        assert_eq!(names(&out), ["config.json", "stale"]);
        prune(&dir, &out, true).unwrap();
        assert_eq!(
            names(&out),
            [
                "a-1.safetensors",
                "a-2.safetensors",
                "config.json",
                "model.safetensors.index.json"
            ]
        );
        assert_eq!(names(root.path()), ["model", "out"]);
    }

    #[test]
    fn a_directory_without_a_checkpoint_is_never_replaced() {
        let (root, dir) = sharded();
        let out = root.path().join("out");
        fs::create_dir(&out).unwrap();
        prune(&dir, &out, true).unwrap(); // An empty one may go.
        fs::remove_dir_all(&out).unwrap();
        fs::create_dir(&out).unwrap();
        fs::write(out.join("thesis.tex"), "mine").unwrap();
        for force in [false, true] {
            let error = prune(&dir, &out, force).unwrap_err();
            assert!(matches!(error, Error::NotReplaceable { .. }), "{error:?}");
        }
        assert_eq!(names(&out), ["thesis.tex"]);
        assert_eq!(names(root.path()), ["model", "out"]);
    }

    #[test]
    fn a_directory_that_fills_meanwhile_is_not_replaced() {
        let (root, dir) = sharded();
        let out = root.path().join("out");
        let checkpoint = open(&dir).unwrap();
        let output = Output::create(&checkpoint, &out, true).unwrap();
        write_all(&checkpoint, &output);
        fs::create_dir(&out).unwrap();
        fs::write(out.join("thesis.tex"), "mine").unwrap();
        assert!(matches!(
            output.finish(false),
            Err(Error::NotReplaceable { .. })
        ));
        assert_eq!(names(&out), ["thesis.tex"]);
        assert_eq!(names(root.path()), ["model", "out"]);
    }

    #[test]
    fn file_and_directory_never_replace_each_other() {
        let (root, dir) = sharded();
        let file = root.path().join("file");
        fs::write(&file, "old").unwrap();
        assert!(matches!(
            prune(&dir, &file, true),
            Err(Error::NotReplaceable { .. })
        ));
        let (single_root, path) = single();
        let out = single_root.path().join("out");
        fs::create_dir(&out).unwrap();
        assert!(matches!(
            prune(&path, &out, true),
            Err(Error::NotReplaceable { .. })
        ));
        assert_eq!(fs::read(&file).unwrap(), b"old");
        assert!(out.is_dir());
    }

    #[test]
    fn the_input_is_never_replaced() {
        let (root, path) = single();
        let roundabout = root
            .path()
            .join("..")
            .join(root.path().file_name().unwrap())
            .join("model.safetensors");
        for out in [&path, &roundabout] {
            let error = prune(&path, out, true).unwrap_err();
            assert!(
                matches!(error, Error::OutputIsInput { relation: "is", .. }),
                "{error:?}"
            );
        }
        let (_root, dir) = sharded();
        for out in ["a-1.safetensors", "model.safetensors.index.json"] {
            let error = prune(&dir, &dir.join(out), true).unwrap_err();
            assert!(
                matches!(error, Error::OutputIsInput { relation: "is", .. }),
                "{error:?}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_do_not_hide_the_input() {
        let (root, path) = single();
        let hard = root.path().join("hard.safetensors");
        let soft = root.path().join("soft.safetensors");
        fs::hard_link(&path, &hard).unwrap();
        std::os::unix::fs::symlink("model.safetensors", &soft).unwrap();
        for (model, out) in [
            (&path, &hard),
            (&path, &soft),
            (&soft, &path),
            (&hard, &path),
        ] {
            let error = prune(model, out, true).unwrap_err();
            assert!(
                matches!(error, Error::OutputIsInput { relation: "is", .. }),
                "{error:?}"
            );
        }
        let (root, dir) = sharded();
        let soft = root.path().join("soft");
        std::os::unix::fs::symlink(&dir, &soft).unwrap();
        for (model, out, relation) in [
            (&dir, soft.clone(), "is"),
            (&soft, dir.clone(), "is"),
            (&dir, soft.join("out"), "is inside"),
            (&soft, dir.join("out"), "is inside"),
        ] {
            let error = prune(model, &out, true).unwrap_err();
            assert!(
                matches!(error, Error::OutputIsInput { relation: r, .. } if r == relation),
                "{error:?}"
            );
        }
        assert!(open(&dir).is_ok());
    }

    #[test]
    fn an_output_in_around_or_at_the_input_directory_is_refused() {
        let (root, dir) = sharded();
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(root.path().join("config.json"), "{}").unwrap();
        for (out, relation) in [
            (dir.clone(), "is"),
            (dir.join("out"), "is inside"),
            (dir.join("sub").join("out"), "is inside"),
            (root.path().to_path_buf(), "holds"),
        ] {
            let error = prune(&dir, &out, true).unwrap_err();
            assert!(
                matches!(error, Error::OutputIsInput { relation: r, .. } if r == relation),
                "{error:?}"
            );
        }
        assert!(prune(&dir, &root.path().join("model-2"), false).is_ok());
    }

    /// A repository as the Hugging Face cache keeps it.
    #[cfg(unix)]
    fn cached() -> (TempDir, Checkpoint) {
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("models--org--name");
        let dir = repository.join("snapshots/abc");
        fs::create_dir_all(&dir).unwrap();
        fs::create_dir_all(repository.join("blobs")).unwrap();
        fs::write(repository.join("blobs/1"), safetensors(&[("x", 9)])).unwrap();
        fs::write(repository.join("blobs/2"), "{}").unwrap();
        std::os::unix::fs::symlink("../../blobs/1", dir.join("model.safetensors")).unwrap();
        std::os::unix::fs::symlink("../../blobs/2", dir.join("config.json")).unwrap();
        let weights = Weights::Single(dir.join("model.safetensors"));
        let source = super::super::Source::Cache {
            id: "org/name".into(),
            repository,
            dir,
            weights,
        };
        (root, Checkpoint::open_source(source).unwrap())
    }

    #[cfg(unix)]
    #[test]
    fn the_cache_is_read_through_its_links_and_never_written_to() {
        let (root, checkpoint) = cached();
        let repository = root.path().join("models--org--name");
        for out in [
            "blobs/out",
            "snapshots/out",
            "out",
            "snapshots/abc/model.safetensors",
        ] {
            let error = Output::create(&checkpoint, &repository.join(out), true).unwrap_err();
            assert!(matches!(error, Error::OutputIsInput { .. }), "{error:?}");
        }
        // A file of the snapshot, named itself: not among the blobs either.
        let file = repository.join("snapshots/abc/model.safetensors");
        for out in ["blobs/out.safetensors", "blobs/1"] {
            let error = prune(&file, &repository.join(out), true).unwrap_err();
            assert!(matches!(error, Error::OutputIsInput { .. }), "{error:?}");
        }

        let out = root.path().join("out");
        let output = Output::create(&checkpoint, &out, false).unwrap();
        write_all(&checkpoint, &output);
        output.finish(false).unwrap();
        assert_eq!(names(&out), ["config.json", "model.safetensors"]);
        assert!(
            !out.join("config.json").is_symlink() && !out.join("model.safetensors").is_symlink()
        );
        assert_eq!(
            fs::read(repository.join("blobs/1")).unwrap(),
            safetensors(&[("x", 9)])
        );
    }

    #[cfg(unix)]
    #[test]
    fn a_link_at_the_output_is_replaced_and_not_written_through() {
        use std::os::unix::fs::symlink;
        let (root, path) = single();
        let (elsewhere, out) = (
            root.path().join("elsewhere"),
            root.path().join("out.safetensors"),
        );
        fs::write(&elsewhere, "mine").unwrap();
        symlink(&elsewhere, &out).unwrap();
        assert!(matches!(
            prune(&path, &out, false),
            Err(Error::OutputExists { .. })
        ));
        prune(&path, &out, true).unwrap();
        assert!(!out.is_symlink());
        assert_eq!(fs::read(&elsewhere).unwrap(), b"mine");

        let (root, dir) = sharded();
        let (elsewhere, out) = (root.path().join("elsewhere"), root.path().join("out"));
        fs::create_dir(&elsewhere).unwrap();
        fs::write(elsewhere.join("thesis.tex"), "mine").unwrap();
        symlink(&elsewhere, &out).unwrap();
        assert!(matches!(
            prune(&dir, &out, false),
            Err(Error::OutputExists { .. })
        ));
        prune(&dir, &out, true).unwrap();
        assert!(!out.is_symlink() && out.join("config.json").exists());
        assert_eq!(names(&elsewhere), ["thesis.tex"]);
        assert_eq!(names(root.path()), ["elsewhere", "model", "out"]);
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_or_device_is_never_replaced() {
        let (root, path) = single();
        let out = root.path().join("socket");
        let _socket = std::os::unix::net::UnixListener::bind(&out).unwrap();
        let error = prune(&path, &out, true).unwrap_err();
        assert!(matches!(error, Error::NotReplaceable { .. }), "{error:?}");
    }

    #[test]
    fn a_missing_parent_or_name_is_a_clear_error() {
        let (root, path) = single();
        let error = prune(&path, &root.path().join("no/out.safetensors"), false).unwrap_err();
        assert!(
            matches!(error, Error::NoOutputDirectory { .. }),
            "{error:?}"
        );
        let error = prune(&path, &path.join("out.safetensors"), false).unwrap_err();
        assert!(
            matches!(error, Error::NoOutputDirectory { .. }),
            "{error:?}"
        );
        for out in [
            PathBuf::new(),
            PathBuf::from("/"),
            root.path().join(".."),
            root.path().join("out/"),
        ] {
            let error = prune(&path, &out, true).unwrap_err();
            assert!(matches!(error, Error::NoOutputName { .. }), "{error:?}");
        }
    }

    #[test]
    fn want_of_room_says_how_much_is_needed_and_where() {
        for kind in [
            io::ErrorKind::StorageFull,
            io::ErrorKind::QuotaExceeded,
            io::ErrorKind::FileTooLarge,
        ] {
            let error = write_error(kind.into(), Path::new("d/f"), 123_456, Path::new("d"));
            assert!(
                matches!(
                    error,
                    Error::NoSpace {
                        needed: 123_456,
                        ..
                    }
                ),
                "{error:?}"
            );
            assert!(
                error.to_string().contains("123456 bytes are needed in d;"),
                "{error}"
            );
        }
        let other = write_error(
            io::ErrorKind::PermissionDenied.into(),
            Path::new("d/f"),
            1,
            Path::new("d"),
        );
        assert!(matches!(other, Error::Io { .. }), "{other:?}");
    }

    #[cfg(unix)]
    #[test]
    fn mode_bits_are_those_that_cp_gives() {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for bits in [0o644, 0o664, 0o444, 0o600] {
            let (root, path) = single();
            // What the umask leaves of these bits.
            let like = root.path().join("like");
            File::options()
                .write(true)
                .create_new(true)
                .mode(bits)
                .open(&like)
                .unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
            let out = root.path().join("out.safetensors");
            prune(&path, &out, false).unwrap();
            assert_eq!(mode(&out), mode(&like), "{bits:o}");

            let (root, dir) = sharded();
            for name in names(&dir) {
                fs::set_permissions(dir.join(name), fs::Permissions::from_mode(bits)).unwrap();
            }
            let out = root.path().join("out");
            prune(&dir, &out, false).unwrap();
            for name in names(&out) {
                assert_eq!(mode(&out.join(&name)), mode(&like), "{name} {bits:o}");
            }
            assert_eq!(mode(&out), mode(&dir));
        }
    }

    #[test]
    fn a_very_long_output_name_can_be_staged() {
        let (root, path) = single();
        let out = root.path().join(format!("{}.safetensors", "ж".repeat(115)));
        prune(&path, &out, false).unwrap();
        assert!(open(&out).is_ok());
    }
}
