//! The other files of a model directory, copied so that the output loads as the input did.
//!
//! What a companion is, the rule of names in `file_names.rs` says: config, tokenizer, generation settings, code, licence.
//! Everything else is left out, with a reason for the user.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::file_names::{self, FileKind, INDEX_SUFFIX};
use crate::untrusted::open_regular;

/// How many directories deep is copied.
pub(super) const MAX_DEPTH: usize = 4;

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
    failed: &dyn Fn(io::Error, &Path) -> Error,
) -> Result<Companions> {
    let mut walk = Walk {
        shards,
        index,
        failed,
        found: Companions::default(),
    };
    walk.directory(source, staged, "", 0)?;
    Ok(walk.found)
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

struct Walk<'a> {
    shards: &'a [OsString],
    index: Option<OsString>,
    failed: &'a dyn Fn(io::Error, &Path) -> Error,
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
                make_directory(&path, &to).map_err(|e| (self.failed)(e, &to))?;
                self.directory(&path, &to, &format!("{shown}/"), depth + 1)?;
            } else {
                let to = to.join(&name);
                let (mut input, _) = open_regular(&path).map_err(Error::reading(&path))?;
                let mut output = create(&input, &to).map_err(|e| (self.failed)(e, &to))?;
                io::copy(&mut input, &mut output).map_err(|e| (self.failed)(e, &to))?;
                self.found.copied.push(shown);
            }
        }
        Ok(())
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
        assert_eq!(expected[Path::new("1_Pooling")], true);
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
