//! The other files of a model directory, copied so that the output loads as the input did.
//!
//! What a companion is, the rule of names in `file_names.rs` says: config, tokenizer, generation settings, code, licence.
//! Everything else is left out, with a reason for the user.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::Path;

use super::error::{Error, Result};
use super::file_names::{self, FileKind, INDEX_SUFFIX, MAX_DEPTH};
use super::staging::reserve;
use super::tree::{Entry, walk};
use crate::untrusted::open_regular;

/// The most bytes that they may have in all. A tokenizer has tens of megabytes; a file of holes says that it has terabytes, which
/// a copy would fill the disk with.
const MAX_BYTES: u64 = 1 << 30;

/// Which files were copied and which were not; names are relative to the model directory, with `/`.
#[derive(Debug, Default)]
pub(super) struct Companions {
    pub copied: Vec<String>,
    pub left_out: Vec<(String, &'static str)>,
}

/// What becomes of an entry of a model directory.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// A directory, whose companions are copied.
    Directory,
    /// A file that is copied.
    Copied,
    /// What is left out, with the reason.
    LeftOut(&'static str),
}

/// What becomes of every entry of `source`, in the order of the names; a directory comes before what it holds.
///
/// `shards` are the names of the files that a run writes itself, which are no companions; `index` is the one index that describes
/// them.
///
/// # Errors
/// What cannot be listed.
pub(super) fn list(
    source: &Path,
    shards: &[OsString],
    index: Option<&OsString>,
) -> Result<Vec<(Entry, Fate)>> {
    let mut found = Vec::new();
    walk(source, &mut |entry| {
        let is_named = |name: &OsString| entry.depth == 0 && entry.within.as_os_str() == name;
        if shards.iter().any(is_named) {
            return Ok(false);
        }
        let fate = fate(&entry, index.is_some_and(is_named));
        let goes_in = fate == Fate::Directory;
        found.push((entry, fate));
        Ok(goes_in)
    })?;
    Ok(found)
}

/// Copies all that is not weights from `source` to the new directory `staged`; see [`list`]. `failed` turns a failure to write into
/// an error.
pub(super) fn copy(
    source: &Path,
    staged: &Path,
    shards: &[OsString],
    index: Option<&OsString>,
    failed: &Failed<'_>,
) -> Result<Companions> {
    let mut found = Companions::default();
    let mut bytes = 0;
    for (entry, fate) in list(source, shards, index)? {
        let to = staged.join(&entry.within);
        match fate {
            Fate::LeftOut(reason) => found.left_out.push((entry.shown(), reason)),
            Fate::Directory => make_directory(&entry.path, &to).map_err(|e| failed(e, &to))?,
            Fate::Copied => {
                let (input, len) = open(&entry.path, &mut bytes)?;
                copy_file(&input, &entry.path, len, &to, failed)?;
                found.copied.push(entry.shown());
            }
        }
    }
    Ok(found)
}

/// Bytes of what [`copy`] would copy, which are not too many; nothing is written.
///
/// # Errors
/// [`Error::CompanionsTooLarge`], and what cannot be listed or opened.
pub(super) fn bytes(source: &Path, shards: &[OsString], index: Option<&OsString>) -> Result<u64> {
    let mut bytes = 0;
    for (entry, fate) in list(source, shards, index)? {
        if fate == Fate::Copied {
            open(&entry.path, &mut bytes)?;
        }
    }
    Ok(bytes)
}

/// Opens a companion and adds its length to the bytes of those before it, which must not become too many.
fn open(path: &Path, bytes: &mut u64) -> Result<(File, u64)> {
    let (file, len) = open_regular(path).map_err(Error::reading(path))?;
    *bytes = bytes.saturating_add(len);
    if *bytes > MAX_BYTES {
        return Err(Error::CompanionsTooLarge {
            path: path.to_path_buf(),
            len,
            limit: MAX_BYTES,
        });
    }
    Ok((file, len))
}

/// Turns a failure to write a file into an error.
type Failed<'a> = dyn Fn(io::Error, &Path) -> Error + 'a;

/// Copies a file of `len` bytes, for which it makes room first.
fn copy_file(input: &File, path: &Path, len: u64, to: &Path, failed: &Failed<'_>) -> Result<()> {
    let copy = || {
        let mut output = create(input, to)?;
        reserve(&output, len)?;
        io::copy(&mut input.take(len), &mut output)
    };
    match copy().map_err(|e| failed(e, to))? {
        copied if copied == len => Ok(()),
        _ => Err(Error::Changed {
            path: path.to_path_buf(),
        }),
    }
}

fn fate(entry: &Entry, is_our_index: bool) -> Fate {
    if is_our_index {
        return Fate::Copied;
    }
    let is_link = entry.path.is_symlink();
    let Ok(meta) = fs::metadata(&entry.path) else {
        return Fate::LeftOut(if is_link {
            "a link that leads nowhere"
        } else {
            "cannot be opened"
        });
    };
    if meta.is_dir() {
        return match file_names::reason_to_leave_directory(&entry.name) {
            Some(reason) => Fate::LeftOut(reason),
            None if is_link => Fate::LeftOut("a link to a directory"),
            None if entry.depth >= MAX_DEPTH => Fate::LeftOut("too many directories deep"),
            None => Fate::Directory,
        };
    }
    if !meta.is_file() {
        return Fate::LeftOut("not a regular file");
    }
    Fate::LeftOut(match file_names::kind(&entry.name, entry.depth > 0) {
        FileKind::Companion | FileKind::Code => return Fate::Copied,
        FileKind::Weights if entry.name.to_ascii_lowercase().ends_with(INDEX_SUFFIX) => {
            "an index of weights that are left out"
        }
        FileKind::Weights => "weights that are not part of this checkpoint, still dense",
        FileKind::Report => "the report of another run",
        FileKind::Litter => "of the operating system",
        FileKind::Foreign(reason) => reason,
    })
}

/// Creates a file with the mode bits of another, less the umask, as `cp` does.
#[cfg_attr(
    not(unix),
    expect(unused_variables, reason = "mode bits are a thing of Unix")
)]
fn create(like: &File, path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
        options.mode(like.metadata()?.permissions().mode() & 0o777);
    }
    options.open(path)
}

/// Creates a directory with the mode bits of another, less the umask; its owner may always write in it.
#[cfg_attr(
    not(unix),
    expect(unused_variables, reason = "mode bits are a thing of Unix")
)]
fn make_directory(like: &Path, path: &Path) -> io::Result<()> {
    #[cfg_attr(not(unix), expect(unused_mut, reason = "the mode is set on Unix"))]
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        builder.mode(fs::metadata(like)?.permissions().mode() & 0o777 | 0o700);
    }
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with these files (parents are made), copied; what came of it, and the copy.
    fn copied(files: &[&str]) -> (Companions, tempfile::TempDir, tempfile::TempDir) {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for file in files {
            let path = from.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        let found = copy_between(from.path(), to.path());
        (found, from, to)
    }

    fn copy_between(from: &Path, to: &Path) -> Companions {
        let shards = [OsString::from("model.safetensors")];
        let index = Some(OsString::from("model.safetensors.index.json"));
        copy(from, to, &shards, index.as_ref(), &|e, path| {
            Error::io("write", path)(e)
        })
        .unwrap()
    }

    fn left_out(found: &Companions) -> Vec<&str> {
        found
            .left_out
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    #[test]
    fn the_companions_of_the_weights_are_copied() {
        let files = [
            ".gitattributes",
            "1_Pooling/config.json",
            "LICENSE",
            "config.json",
            "model.safetensors.index.json",
            "modeling_x.py",
            "tokenizer.model",
        ];
        let (found, _from, to) = copied(&files);
        assert_eq!(found.copied, files);
        assert_eq!(left_out(&found), [""; 0]);
        for file in files {
            assert_eq!(fs::read_to_string(to.path().join(file)).unwrap(), file);
        }
    }

    #[test]
    fn dense_weights_in_other_files_are_left_out() {
        let files = [
            "a.gguf",
            "a.h5",
            "a.msgpack",
            "a.onnx",
            "a.pt",
            "a.pth",
            "other.safetensors",
            "other.safetensors.index.json",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model.bin",
            "pytorch_model.bin.index.json",
            "2_Dense/MODEL.GGUF",
            "2_Dense/model.safetensors",
            "2_Dense/model.safetensors.index.json",
        ];
        let (found, _from, to) = copied(&files);
        let mut sorted = files;
        sorted.sort_unstable();
        assert_eq!(left_out(&found), sorted);
        assert_eq!(found.copied, [""; 0]);
        assert!(found.left_out.iter().all(|(_, reason)| !reason.is_empty()));
        assert!(!to.path().join("a.gguf").exists());
    }

    #[test]
    fn the_shards_themselves_are_neither_copied_nor_left_out() {
        let (found, _from, to) = copied(&["model.safetensors"]);
        assert!(found.copied.is_empty() && found.left_out.is_empty());
        assert!(!to.path().join("model.safetensors").exists());
    }

    #[test]
    fn version_control_and_caches_are_left_out() {
        let files = [
            ".git/config",
            ".cache/huggingface/x",
            "1_Pooling/.git",
            "LICENSE",
        ];
        let (found, _from, to) = copied(&files);
        assert_eq!(left_out(&found), [".cache", ".git", "1_Pooling/.git"]);
        assert_eq!(found.copied, ["LICENSE"]);
        assert!(!to.path().join(".git").exists());
    }

    #[test]
    fn training_state_adapters_and_strangers_are_left_out_with_a_reason() {
        let files = [
            "adapter_config.json",
            "checkpoint-10/config.json",
            "model.mlpackage/Manifest.json",
            "notes.txt",
            "optimizer.bin",
            "runs/events",
            "src/main.py",
            "training_args.bin",
            "x.distcp",
            "x.safetensors.incomplete",
        ];
        let (found, _from, to) = copied(&files);
        let first = |file: &&str| file.split('/').next().unwrap().to_owned();
        let expected: Vec<String> = files.iter().map(first).collect();
        assert_eq!(left_out(&found), expected);
        assert!(found.left_out[0].1.contains("adapter"));
        assert_eq!(fs::read_dir(to.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_of_holes_is_refused_before_anything_is_written() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(from.path().join("config.json"), "{}").unwrap();
        let path = from.path().join("tokenizer.json");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        let refused = |error: Error| {
            assert!(
                matches!(&error, Error::CompanionsTooLarge { path: at, len, .. } if *at == path && *len == 1 << 40),
                "{error}"
            );
        };
        refused(bytes(from.path(), &[], None).unwrap_err());
        let failed = |e, path: &Path| Error::io("write", path)(e);
        refused(copy(from.path(), to.path(), &[], None, &failed).unwrap_err());
        assert!(!to.path().join("tokenizer.json").exists());
        // Of many files, it is their sum that counts.
        fs::remove_file(&path).unwrap();
        for number in 0..3 {
            let path = from.path().join(format!("README_{number}.md"));
            File::create(path).unwrap().set_len(MAX_BYTES / 2).unwrap();
        }
        let error = bytes(from.path(), &[], None).unwrap_err();
        assert!(error.to_string().contains("README_2.md"), "{error}");
    }

    #[test]
    fn the_depth_is_limited() {
        let at = |depth: usize| format!("{}config.json", "1_D/".repeat(depth));
        let (found, ..) = copied(&[&at(MAX_DEPTH), &at(MAX_DEPTH + 1)]);
        assert_eq!(found.copied, [at(MAX_DEPTH)]);
        assert_eq!(
            left_out(&found),
            [at(MAX_DEPTH).replace("config.json", "1_D")]
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_to_files_are_copied_as_files_and_links_to_directories_left_out() {
        use std::os::unix::fs::symlink;
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let blob = tempfile::NamedTempFile::new().unwrap();
        fs::write(blob.path(), "blob").unwrap();
        symlink(blob.path(), from.path().join("config.json")).unwrap();
        symlink("/", from.path().join("1_Dir")).unwrap();
        symlink("gone", from.path().join("gone")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(from.path().join("socket")).unwrap();
        let found = copy_between(from.path(), to.path());
        assert_eq!(found.copied, ["config.json"]);
        assert_eq!(left_out(&found), ["1_Dir", "gone", "socket"]);
        let copy = to.path().join("config.json");
        assert!(!copy.is_symlink());
        assert_eq!(fs::read_to_string(copy).unwrap(), "blob");
    }
}
