//! The other files of a model directory, copied so that the output loads as the input did.
//!
//! What a companion is, the rule of names in `file_names.rs` says: config, tokenizer, generation settings, code, licence.
//! Everything else is left out, with a reason for the user.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::file_names::{self, FileKind, INDEX_SUFFIX, MAX_DEPTH};
use super::staging::reserve;
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

/// Copies all that is not weights from `source` to the new directory `staged`.
///
/// `shards` are the names of the files that a run writes itself, `index` is the one index that describes them;
/// `failed` turns a failure to write into an error.
pub(super) fn copy(
    source: &Path,
    staged: &Path,
    shards: &[OsString],
    index: Option<OsString>,
    failed: &Failed<'_>,
) -> Result<Companions> {
    let mut walk = Walk {
        shards,
        index,
        failed: Some(failed),
        bytes: 0,
        found: Companions::default(),
    };
    walk.directory(source, staged, "", 0)?;
    Ok(walk.found)
}

/// Bytes of what [`copy`] would copy, which are not too many; nothing is written.
///
/// # Errors
/// [`Error::CompanionsTooLarge`], and what cannot be listed or opened.
pub(super) fn bytes(source: &Path, shards: &[OsString], index: Option<OsString>) -> Result<u64> {
    let mut walk = Walk {
        shards,
        index,
        failed: None,
        bytes: 0,
        found: Companions::default(),
    };
    walk.directory(source, Path::new(""), "", 0)?;
    Ok(walk.bytes)
}

/// What [`copy`] copies, by its path within `source`, and whether it is a directory.
pub(super) fn expected(
    source: &Path,
    shards: &[OsString],
    index: Option<&OsString>,
) -> Result<BTreeMap<PathBuf, bool>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![PathBuf::new()];
    while let Some(within) = directories.pop() {
        let depth = within.components().count();
        let here = source.join(&within);
        for entry in fs::read_dir(&here).map_err(Error::io("list", &here))? {
            let name = entry.map_err(Error::io("list", &here))?.file_name();
            let (path, within) = (here.join(&name), within.join(&name));
            let is_our_index = depth == 0 && index == Some(&name);
            if (depth == 0 && shards.contains(&name))
                || reason_to_leave_out(&path, &name.to_string_lossy(), is_our_index, depth)
                    .is_some()
            {
                continue;
            }
            let is_directory = path.is_dir();
            if is_directory {
                directories.push(within.clone());
            }
            found.insert(within, is_directory);
        }
    }
    Ok(found)
}

/// Turns a failure to write a file into an error.
type Failed<'a> = dyn Fn(io::Error, &Path) -> Error + 'a;

struct Walk<'a> {
    shards: &'a [OsString],
    index: Option<OsString>,
    /// Turns a failure to write into an error; none where nothing is written.
    failed: Option<&'a Failed<'a>>,
    /// Bytes of the files so far.
    bytes: u64,
    found: Companions,
}

impl Walk<'_> {
    fn directory(&mut self, from: &Path, to: &Path, prefix: &str, depth: usize) -> Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(from).map_err(Error::io("list", from))? {
            names.push(entry.map_err(Error::io("list", from))?.file_name());
        }
        names.sort();
        for name in names {
            if depth == 0 && self.shards.contains(&name) {
                continue;
            }
            let path = from.join(&name);
            let shown = format!("{prefix}{}", name.to_string_lossy());
            let is_our_index = depth == 0 && self.index.as_ref() == Some(&name);
            if let Some(reason) =
                reason_to_leave_out(&path, &name.to_string_lossy(), is_our_index, depth)
            {
                self.found.left_out.push((shown, reason));
            } else if path.is_dir() {
                let to = to.join(&name);
                if let Some(failed) = self.failed {
                    make_directory(&path, &to).map_err(|e| failed(e, &to))?;
                }
                self.directory(&path, &to, &format!("{shown}/"), depth + 1)?;
            } else {
                let to = to.join(&name);
                let (input, len) = open_regular(&path).map_err(Error::reading(&path))?;
                self.bytes = self.bytes.saturating_add(len);
                if self.bytes > MAX_BYTES {
                    return Err(Error::CompanionsTooLarge {
                        path,
                        len,
                        limit: MAX_BYTES,
                    });
                }
                if let Some(failed) = self.failed {
                    copy_file(&input, &path, len, &to, failed)?;
                }
                self.found.copied.push(shown);
            }
        }
        Ok(())
    }
}

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

fn reason_to_leave_out(
    path: &Path,
    name: &str,
    is_our_index: bool,
    depth: usize,
) -> Option<&'static str> {
    if is_our_index {
        return None;
    }
    let is_link = path.is_symlink();
    let Ok(meta) = fs::metadata(path) else {
        return Some(if is_link {
            "a link that leads nowhere"
        } else {
            "cannot be opened"
        });
    };
    if meta.is_dir() {
        return match file_names::reason_to_leave_directory(name) {
            Some(reason) => Some(reason),
            None if is_link => Some("a link to a directory"),
            None if depth >= MAX_DEPTH => Some("too many directories deep"),
            None => None,
        };
    }
    if !meta.is_file() {
        return Some("not a regular file");
    }
    match file_names::kind(name, depth > 0) {
        FileKind::Companion | FileKind::Code => None,
        FileKind::Weights if name.to_ascii_lowercase().ends_with(INDEX_SUFFIX) => {
            Some("an index of weights that are left out")
        }
        FileKind::Weights => Some("weights that are not part of this checkpoint, still dense"),
        FileKind::Report => Some("the report of another run"),
        FileKind::Litter => Some("of the operating system"),
        FileKind::Foreign(reason) => Some(reason),
    }
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
        copy(from, to, &shards, index, &|e, path| {
            Error::io("write", path)(e)
        })
        .unwrap()
    }

    #[test]
    fn what_is_expected_is_what_is_copied() {
        let files = [
            "1_Pooling/config.json",
            "1_Pooling/model.safetensors",
            "adapter_config.json",
            "config.json",
            "model.safetensors",
            "model.safetensors.index.json",
            "modeling_x.py",
            "other.safetensors.index.json",
            "report.json",
        ];
        let (found, from, _to) = copied(&files);
        let shards = [OsString::from("model.safetensors")];
        let index = OsString::from("model.safetensors.index.json");
        let expected = expected(from.path(), &shards, Some(&index)).unwrap();
        let files = expected.iter().filter(|(_, is_directory)| !**is_directory);
        let files: Vec<&str> = files.map(|(path, _)| path.to_str().unwrap()).collect();
        assert_eq!(files, found.copied);
        assert!(expected[Path::new("1_Pooling")]);
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
