//! Where an output goes: everything that is refused, and the renames that put it there.
//!
//! The one promise is that nothing of value is lost. The input is never replaced: it is compared by real path and, on
//! Unix, by device and inode, so that links do not hide it. What stands in the way is replaced only where the options
//! say so: a file by a file, a directory by a directory and only if it looks like a checkpoint. Links are replaced,
//! never written through. An old directory is moved aside before the new one takes its place, and deleted after.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{TempDir, TempPath};

use super::error::{Error, Result};
use super::file_names::WEIGHTS_SUFFIX;
use super::locate::{Source, directory_of};
use super::shards::Checkpoint;
use crate::untrusted::shown_path;

/// What is to be put in place, and so what it may replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A file of weights; it replaces `.safetensors` files only.
    Weights,
    /// Another file; it replaces any.
    File,
    /// A model directory; it replaces those that hold a checkpoint, and empty ones.
    Directory,
}

/// A place that an output may take.
#[derive(Debug)]
pub(super) struct Destination {
    /// The path as the user gave it, for messages and the report.
    pub given: PathBuf,
    /// The directory that will hold the output; its real path, without links.
    pub parent: PathBuf,
    /// The output's name in that directory.
    name: OsString,
    form: Form,
    overwrite: bool,
}

impl Destination {
    /// Checks that the output of `checkpoint` may go to `given`, and may replace what is there.
    pub(super) fn of_checkpoint(
        checkpoint: &Checkpoint,
        given: &Path,
        overwrite: bool,
    ) -> Result<Self> {
        let form = match checkpoint.source {
            Source::File(_) => Form::Weights,
            _ => Form::Directory,
        };
        let destination = Self::resolve(given, form, overwrite)?;
        destination.keep_off_the_input(checkpoint)?;
        destination.may_be_taken()?;
        Ok(destination)
    }

    /// Checks that a file that was not made from a checkpoint may go to `given`, and may replace what is there.
    pub(super) fn new(given: &Path, form: Form, overwrite: bool) -> Result<Self> {
        let destination = Self::resolve(given, form, overwrite)?;
        destination.may_be_taken()?;
        Ok(destination)
    }

    fn resolve(given: &Path, form: Form, overwrite: bool) -> Result<Self> {
        let no_name = || Error::NoOutputName {
            path: given.to_path_buf(),
        };
        let name = given.file_name().ok_or_else(no_name)?.to_os_string();
        // `out/` means a directory; a file called `out` would surprise.
        if form != Form::Directory && given.to_string_lossy().ends_with(std::path::is_separator) {
            return Err(no_name());
        }
        let parent = directory_of(given);
        let parent = parent
            .canonicalize()
            .ok()
            .filter(|real| real.is_dir())
            .ok_or_else(|| Error::NoOutputDirectory {
                parent: parent.to_path_buf(),
            })?;
        Ok(Self {
            given: given.to_path_buf(),
            parent,
            name,
            form,
            overwrite,
        })
    }

    /// The real path of the output; only its last name may be a link.
    pub(super) fn target(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// How the name of a staged file or directory starts: `.NAME.`, cut so that random letters still fit.
    pub(super) fn temporary_prefix(&self) -> String {
        let name: String = self.name.to_string_lossy().chars().take(48).collect();
        format!(".{name}.")
    }

    fn keep_off_the_input(&self, checkpoint: &Checkpoint) -> Result<()> {
        let refuse = |relation, input: &Path| {
            let (path, input) = (self.given.clone(), input.to_path_buf());
            Err(Error::OutputIsInput {
                path,
                relation,
                input,
            })
        };
        let target = self.target();
        let weights = checkpoint.source.weights();
        let files = checkpoint.shards.iter().map(|shard| shard.path.as_path());
        for input in files.chain([weights.path()]) {
            if same_file(&target, input) {
                return refuse("is", input);
            }
        }

        // If the target is a link, both the link and what it leads to must be kept off the input.
        let led_to = target.canonicalize().ok();
        let places: Vec<&Path> = [Some(target.as_path()), led_to.as_deref()]
            .into_iter()
            .flatten()
            .collect();
        let mut inputs = Vec::new();
        inputs.extend(checkpoint.source.directory().map(Path::to_path_buf));
        if let Source::Cache { repository, .. } = &checkpoint.source {
            inputs.push(repository.clone());
        }
        for input in inputs {
            let real = input.canonicalize().map_err(Error::io("open", &input))?;
            for place in &places {
                if same_file(place, &real) {
                    return refuse("is", &input);
                }
                if lies_in(place, &real) {
                    return refuse("is inside", &input);
                }
                if lies_in(&real, place) {
                    return refuse("holds", &input);
                }
            }
        }
        // Snapshots of the Hugging Face cache are links into `blobs`, which all revisions share.
        for shard in &checkpoint.shards {
            let Ok(real) = shard.path.canonicalize() else {
                continue;
            };
            let blobs = directory_of(&real);
            if blobs.ends_with("blobs") && places.iter().any(|place| lies_in(place, blobs)) {
                return refuse("is inside", blobs);
            }
        }
        Ok(())
    }

    /// Whether the place is free, or holds what may be replaced. Asked again before the last rename.
    fn may_be_taken(&self) -> Result<Option<Metadata>> {
        let target = self.target();
        let meta = match target.symlink_metadata() {
            Ok(meta) => meta,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("open", &self.given)(error)),
        };
        let refuse = |problem| {
            Err(Error::NotReplaceable {
                path: self.given.clone(),
                problem,
            })
        };
        if meta.is_dir() && self.form != Form::Directory {
            return refuse("is a directory, but a file is to be written");
        }
        if meta.is_file() && self.form == Form::Directory {
            return refuse("is a file, but a directory is to be written");
        }
        if !(meta.is_dir() || meta.is_file() || meta.is_symlink()) {
            return refuse("is neither a file nor a directory");
        }
        if meta.is_dir() && !looks_like_a_checkpoint(&target)? {
            return refuse("is a directory without a checkpoint in it");
        }
        if !self.overwrite {
            return Err(Error::OutputExists {
                path: self.given.clone(),
            });
        }
        if self.form == Form::Weights
            && meta.is_file()
            && target.extension().is_none_or(|name| name != "safetensors")
        {
            return refuse("is a file, but not a .safetensors file");
        }
        Ok(Some(meta))
    }

    /// Renames a staged file into place.
    pub(super) fn take_file(&self, staged: TempPath) -> Result<()> {
        let target = self.target();
        self.may_be_taken()?;
        let failed = Error::io("move the output to", &self.given);
        if self.overwrite {
            return staged.persist(&target).map_err(|e| failed(e.error));
        }
        // Unless it may be replaced, what appears in the last moment is not lost either.
        match staged.persist_noclobber(&target) {
            Ok(()) => Ok(()),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(Error::OutputExists {
                path: self.given.clone(),
            }),
            // Some file systems cannot rename without replacing; then the check above must do.
            Err(e) => e.path.persist(&target).map_err(|e| failed(e.error)),
        }
    }

    /// Renames a staged directory into place.
    pub(super) fn take_directory(&self, staged: TempDir) -> Result<()> {
        let target = self.target();
        let failed = Error::io("move the output to", &self.given);
        if self.may_be_taken()?.is_none() {
            fs::rename(staged.path(), &target).map_err(failed)?;
            let _moved = staged.keep();
            return Ok(());
        }

        let mut aside = tempfile::Builder::new();
        let prefix = self.temporary_prefix();
        let aside = aside
            .prefix(&prefix)
            .suffix(".old")
            .tempdir_in(&self.parent);
        let aside = aside.map_err(Error::io("make a directory in", &self.parent))?;
        let old = aside.path().join(&self.name);
        fs::rename(&target, &old).map_err(Error::io("move away", &self.given))?;
        if let Err(error) = fs::rename(staged.path(), &target) {
            return Err(match fs::rename(&old, &target) {
                Ok(()) => failed(error),
                Err(_) => {
                    let kept = aside.keep().join(&self.name);
                    Error::OldMovedAside {
                        path: self.given.clone(),
                        kept,
                        source: error,
                    }
                }
            });
        }
        let _moved = staged.keep();
        let left = aside.path().to_path_buf();
        if let Err(error) = aside.close() {
            // The output is in place and whole: no reason to fail.
            log::warn!(
                "the replaced output could not be deleted, remove {} yourself: {error}",
                shown_path(&left)
            );
        }
        Ok(())
    }
}

/// A directory that may be replaced: a checkpoint, or empty.
fn looks_like_a_checkpoint(dir: &Path) -> Result<bool> {
    let mut empty = true;
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        if name == "config.json" || name.to_string_lossy().ends_with(WEIGHTS_SUFFIX) {
            return Ok(true);
        }
        empty = false;
    }
    Ok(empty)
}

/// Whether two paths lead to the same file or directory; false if either leads nowhere.
pub fn same_file(a: &Path, b: &Path) -> bool {
    let same_path = matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    same_path || matches!((fs::metadata(a), fs::metadata(b)), (Ok(a), Ok(b)) if same_inode(&a, &b))
}

/// Whether the directory `outer` is above `path`; `path` itself does not count, nor need it exist.
fn lies_in(path: &Path, outer: &Path) -> bool {
    // By inode as well: on a file system that ignores case, one directory has many names.
    path.ancestors()
        .skip(1)
        .any(|above| above == outer || same_file(above, outer))
}

/// Whether this is the metadata of one file, by device and inode; hard links are one file.
#[cfg(unix)]
pub(super) fn same_inode(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// The standard library does not tell inodes on this system; real paths must do.
#[cfg(not(unix))]
pub(super) fn same_inode(_: &Metadata, _: &Metadata) -> bool {
    false
}
