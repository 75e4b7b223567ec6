//! Where an output goes: everything that is refused, and the renames that put it there.
//!
//! The one promise is that nothing of value is lost. The input is never replaced: it is compared by real path and, on
//! Unix, by device and inode, so that links do not hide it. What stands in the way is replaced only where the options
//! say so: a file by a file, a directory by a directory and only if all that is in it is what a model directory holds
//! (`file_names.rs` has the rule). Links are replaced, never written through. An old directory changes places with the new
//! one in one step where the system can, and is deleted after; elsewhere it is moved aside first.

use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io;
use std::path::{Path, PathBuf};

use tempfile::{TempDir, TempPath};

use super::error::{Error, Result};
use super::file_names::{self, FileKind, MAX_DEPTH, WEIGHTS_SUFFIX};
use super::hub_cache;
use super::locate::{Source, directory_of};
use super::moving::{self, is_momentary, patiently};
use super::shards::Checkpoint;
use super::tree::walk;
use crate::untrusted::{self, open_regular, shown_path};

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
    /// The model directory that the output is made from: its code may be replaced by itself.
    like: Option<PathBuf>,
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
        let mut destination = Self::resolve(given, form, overwrite)?;
        destination.like = checkpoint.source.directory().map(Path::to_path_buf);
        destination.keep_off_the_input(checkpoint)?;
        if let Some(cache) = hub_cache::cache_around(&destination.target()) {
            return Err(Error::OutputInCache {
                path: destination.given,
                cache,
            });
        }
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
            like: None,
        })
    }

    /// The real path of the output; only its last name may be a link.
    pub(super) fn target(&self) -> PathBuf {
        self.parent.join(&self.name)
    }

    /// How the name of a staged file or directory starts: `.NAME.`, cut so that random letters still fit.
    pub(super) fn temporary_prefix(&self) -> String {
        temporary_prefix(&self.name)
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
        if meta.is_dir() && is_mount_point(&target) {
            return refuse("is a mount point, which cannot be replaced; choose a path inside it");
        }
        if meta.is_dir() {
            match holds(&target, self.like.as_deref())? {
                Held::Nothing | Held::Checkpoint => {}
                Held::NoWeights => return refuse("is a directory without weights in it"),
                Held::Foreign(file) => {
                    return Err(Error::HoldsForeignFile {
                        path: self.given.clone(),
                        file,
                    });
                }
            }
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
        if self.overwrite {
            return self.persist(staged, &target);
        }
        // Unless it may be replaced, what appears in the last moment is not lost either.
        match staged.persist_noclobber(&target) {
            Ok(()) => Ok(()),
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => Err(Error::OutputExists {
                path: self.given.clone(),
            }),
            // Some file systems cannot rename without replacing; then the check above must do.
            Err(e) => self.persist(e.path, &target),
        }
    }

    /// Renames a staged file over whatever is at the target.
    fn persist(&self, staged: TempPath, target: &Path) -> Result<()> {
        let mut staged = Some(staged);
        let attempt = || match staged.take() {
            Some(path) => path.persist(target).map_err(|refused| {
                staged = Some(refused.path);
                refused.error
            }),
            None => Ok(()),
        };
        let moved = patiently(attempt, is_momentary, std::thread::sleep);
        moved.map_err(|error| {
            let kept = staged.filter(|_| is_momentary(&error)).map(TempPath::keep);
            self.not_moved(kept.and_then(std::result::Result::ok), error)
        })
    }

    /// Why the output could not take its place, and where it is if it was kept.
    fn not_moved(&self, kept: Option<PathBuf>, source: io::Error) -> Error {
        match kept {
            Some(kept) => Error::OutputKept {
                path: self.given.clone(),
                kept,
                source,
            },
            None => Error::io("move the output to", &self.given)(source),
        }
    }

    /// Renames a staged directory into place.
    pub(super) fn take_directory(&self, staged: TempDir) -> Result<()> {
        let target = self.target();
        if self.may_be_taken()?.is_none() {
            if let Err(error) = moving::rename(staged.path(), &target) {
                let kept = is_momentary(&error).then(|| staged.keep());
                return Err(self.not_moved(kept, error));
            }
            let _moved = staged.keep();
            return Ok(());
        }

        if exchange(staged.path(), &target) {
            // What is staged now is the old output, which goes.
            let left = staged.path().to_path_buf();
            warn_of_what_stays(&left, staged.close());
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
        moving::rename(&target, &old).map_err(Error::io("move away", &self.given))?;
        if let Err(error) = moving::rename(staged.path(), &target) {
            return Err(match moving::rename(&old, &target) {
                Ok(()) => {
                    let kept = is_momentary(&error).then(|| staged.keep());
                    self.not_moved(kept, error)
                }
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
        warn_of_what_stays(&left, aside.close());
        Ok(())
    }
}

/// The output is in place and whole when the old one is deleted: no reason to fail.
fn warn_of_what_stays(left: &Path, deleted: io::Result<()>) {
    if let Err(error) = deleted {
        log::warn!(
            "the replaced output could not be deleted, remove {} yourself: {error}",
            shown_path(left)
        );
    }
}

/// Lets two paths change places in one step, so that there is never a moment without either; false where the system or
/// the file system cannot.
fn exchange(staged: &Path, target: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        // A link would be exchanged as well, and then be deleted as if it were a directory.
        let is_directory = target.symlink_metadata().is_ok_and(|meta| meta.is_dir());
        is_directory && renameat_with(CWD, staged, CWD, target, RenameFlags::EXCHANGE).is_ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (staged, target);
        false
    }
}

/// Whether something is mounted there: it can be emptied, but neither renamed nor removed. Known on Linux only; elsewhere the
/// rename at the end finds it out.
fn is_mount_point(dir: &Path) -> bool {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        let found = statx(CWD, dir, flags, StatxFlags::empty());
        found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = dir;
        false
    }
}

/// What a directory holds that may have to go.
#[derive(Debug, PartialEq, Eq)]
enum Held {
    Nothing,
    /// Weights and their companions.
    Checkpoint,
    /// Companions without weights: any project may have a README and a config.json.
    NoWeights,
    /// A file that a model directory does not hold; its path within the directory.
    Foreign(String),
}

/// What a directory holds; code counts as a model's only if the model directory `like` has the very same file.
fn holds(dir: &Path, like: Option<&Path>) -> Result<Held> {
    let (mut weights, mut files) = (false, 0_usize);
    let mut foreign = None;
    walk(dir, &mut |entry| {
        files += 1;
        let form = fs::symlink_metadata(&entry.path).map_err(Error::io("open", &entry.path))?;
        let belongs = if form.is_dir() {
            entry.depth < MAX_DEPTH && file_names::reason_to_leave_directory(&entry.name).is_none()
        } else if entry.path.is_dir() {
            // A link to a directory.
            false
        } else {
            match file_names::kind(&entry.name, entry.depth > 0) {
                FileKind::Companion | FileKind::Litter => true,
                FileKind::Weights => {
                    weights |= entry.depth == 0 && entry.name.ends_with(WEIGHTS_SUFFIX);
                    true
                }
                FileKind::Code => {
                    like.is_some_and(|like| same_bytes(&like.join(&entry.within), &entry.path))
                }
                FileKind::Report => is_our_report(&entry.path),
                FileKind::Foreign(_) => false,
            }
        };
        if !belongs && foreign.is_none() {
            foreign = Some(entry.within);
        }
        Ok(belongs && form.is_dir())
    })?;
    Ok(match foreign {
        Some(path) => Held::Foreign(path.to_string_lossy().into_owned()),
        None if files == 0 => Held::Nothing,
        None if weights => Held::Checkpoint,
        None => Held::NoWeights,
    })
}

/// Whether a file begins as the reports of this program do.
fn is_our_report(path: &Path) -> bool {
    use std::io::Read as _;

    const START: &[u8] = b"{\n  \"report_schema_version\":";
    let mut start = [0; START.len()];
    let read = open_regular(path).map(|(mut file, _)| file.read_exact(&mut start));
    matches!(read, Ok(Ok(()))) && start == START
}

/// The longest file of code that is compared, in bytes.
const MAX_CODE: u64 = 16 << 20;

/// Whether two files can be read and hold the same.
fn same_bytes(a: &Path, b: &Path) -> bool {
    let read = |path| untrusted::read(path, MAX_CODE).ok();
    matches!((read(a), read(b)), (Some(a), Some(b)) if a == b)
}

/// Whether two paths lead to the same file or directory; false if either leads nowhere.
pub fn same_file(a: &Path, b: &Path) -> bool {
    let same_path = matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    same_path || matches!((fs::metadata(a), fs::metadata(b)), (Ok(a), Ok(b)) if same_inode(&a, &b))
}

/// Checks that writing the file or directory `path` leaves `other` alone: that it is neither `other` nor inside it, nor holds it.
/// `role` is what `other` is called: `the norms`. Neither need exist.
///
/// # Errors
/// [`Error::Overlap`].
pub fn keep_apart(path: &Path, role: &'static str, other: &Path) -> Result<()> {
    let refuse = |relation| {
        let (path, other) = (path.to_path_buf(), other.to_path_buf());
        Err(Error::Overlap {
            path,
            relation,
            role,
            other,
        })
    };
    // A link is replaced, not what it leads to; but to replace what another path leads to, or the link itself, is a loss.
    let (ours, theirs) = (places(path), places(other));
    let pairs = || {
        ours.iter()
            .flat_map(|ours| theirs.iter().map(move |theirs| (ours, theirs)))
    };
    if pairs().any(|(ours, theirs)| ours == theirs) || same_file(path, other) {
        return refuse("is");
    }
    if pairs().any(|(ours, theirs)| lies_in(ours, theirs)) {
        return refuse("is inside");
    }
    if pairs().any(|(ours, theirs)| lies_in(theirs, ours)) {
        return refuse("holds");
    }
    Ok(())
}

/// Where a path is: the name in the real directory that holds it, and what a link leads to.
fn places(path: &Path) -> Vec<PathBuf> {
    let whole = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    // The nearest directory above that exists.
    let above = whole.ancestors().skip(1);
    let real = above
        .filter_map(|above| Some((above.canonicalize().ok()?, above)))
        .next();
    let mut places = vec![match real {
        Some((real, above)) => real.join(whole.strip_prefix(above).unwrap_or(&whole)),
        None => whole,
    }];
    places.extend(path.canonicalize());
    places
}

/// Checks that writing the file `path` leaves a checkpoint alone: its weights, and what is beside them and belongs to it.
///
/// # Errors
/// [`Error::Overlap`].
pub fn keep_off_model(path: &Path, checkpoint: &Checkpoint) -> Result<()> {
    let weights = checkpoint.source.weights();
    let shards = checkpoint.shards.iter().map(|shard| shard.path.clone());
    let mut files: Vec<PathBuf> = shards.chain([weights.path().to_path_buf()]).collect();
    for entry in fs::read_dir(directory_of(weights.path()))
        .into_iter()
        .flatten()
        .flatten()
    {
        let kind = file_names::kind(&entry.file_name().to_string_lossy(), false);
        if matches!(kind, FileKind::Companion | FileKind::Code) && entry.path().is_file() {
            files.push(entry.path());
        }
    }
    files
        .iter()
        .try_for_each(|file| keep_apart(path, "a file of the model", file))
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

/// What the name of something that is staged for a place of this name begins with.
pub(super) fn temporary_prefix(name: &OsStr) -> String {
    let name = name.to_string_lossy();
    // A file system takes names of 255 bytes; who has staged it takes up to 90 of them (`orphans.rs`).
    let most = name.floor_char_boundary(120);
    let name: String = name[..most].chars().take(48).collect();
    format!(".{name}.")
}
