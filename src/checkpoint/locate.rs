//! From the word on the command line to the file that lists the weights.
//!
//! MODEL is a `.safetensors` file, a `.safetensors.index.json`, a Hugging Face model directory, or `org/name`, which
//! is looked up in the local Hugging Face cache. What exists as a path is a path: the cache is asked only when
//! nothing of that name lies here. Nothing is ever downloaded. What the cache says (`refs/main`) is a stranger's
//! text, and leads to a snapshot of that repository or nowhere.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use super::index::{INDEX_SUFFIX, WEIGHTS_SUFFIX};
use crate::untrusted::{self, ReadError, shown};

/// The most names that an error lists.
const LISTED: usize = 8;

/// The longest `refs/main` that is read, in bytes; a commit has 40.
const MAX_REF: u64 = 256;

/// Where a checkpoint was found, and so what form its output takes.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// One file of weights, alone; the output is one file.
    File(PathBuf),
    /// An index of shards; the output is a directory, like the one the index lies in.
    Index(PathBuf),
    /// A model directory; the output is a directory.
    Directory {
        /// The directory.
        dir: PathBuf,
        /// What in it lists the weights.
        weights: Weights,
    },
    /// A snapshot in the Hugging Face cache; the output is a directory outside the cache.
    Cache {
        /// What it is called: `org/name`.
        id: String,
        /// The `models--org--name` directory, which holds snapshots and blobs.
        repository: PathBuf,
        /// The snapshot directory.
        dir: PathBuf,
        /// What in it lists the weights.
        weights: Weights,
    },
}

/// The file that lists the weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Weights {
    /// All weights are in this `.safetensors` file.
    Single(PathBuf),
    /// This `.safetensors.index.json` names the shards beside it.
    Sharded(PathBuf),
}

impl Source {
    /// The file that lists the weights.
    #[must_use]
    pub fn weights(&self) -> Weights {
        match self {
            Self::File(path) => Weights::Single(path.clone()),
            Self::Index(path) => Weights::Sharded(path.clone()),
            Self::Directory { weights, .. } | Self::Cache { weights, .. } => weights.clone(),
        }
    }

    /// The directory that is copied along with the weights; `None` for a file alone.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        match self {
            Self::File(_) => None,
            Self::Index(path) => Some(directory_of(path)),
            Self::Directory { dir, .. } | Self::Cache { dir, .. } => Some(dir),
        }
    }
}

impl Weights {
    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Single(path) | Self::Sharded(path) => path,
        }
    }
}

/// Finds the checkpoint that `model` means.
///
/// # Errors
/// [`Error::NoSuchModel`] if there is nothing, [`Error::NotACheckpoint`] if there is something else, and
/// [`Error::BrokenCache`] if the cache does not say which snapshot is meant.
pub fn locate(model: &str) -> Result<Source> {
    let hub = hub(|name| std::env::var_os(name), std::env::home_dir());
    locate_with(model, hub.as_deref())
}

/// [`locate`] with the cache's `hub` directory given.
fn locate_with(model: &str, hub: Option<&Path>) -> Result<Source> {
    let path = Path::new(model);
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let weights = in_directory(path)?;
            Ok(Source::Directory {
                dir: path.to_path_buf(),
                weights,
            })
        }
        Ok(_) => at_file(path),
        Err(error) if nothing_there(&error) => match hub {
            // A dangling link is here, so it is meant, and the cache is not.
            _ if path.symlink_metadata().is_ok() => Err(Error::io("open", path)(error)),
            Some(hub) => in_cache(model, hub),
            None => Err(Error::NoSuchModel {
                model: model.to_owned(),
                searched: None,
            }),
        },
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

/// `path` without its last name; `.` where that leaves nothing.
pub(super) fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether the error says that the path leads nowhere (a part of it missing, or a file; or no path at all).
fn nothing_there(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{InvalidFilename, InvalidInput, NotADirectory, NotFound};
    matches!(
        error.kind(),
        NotFound | NotADirectory | InvalidFilename | InvalidInput
    )
}

fn at_file(path: &Path) -> Result<Source> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if name.ends_with(INDEX_SUFFIX) {
        Ok(Source::Index(path.to_path_buf()))
    } else if name.ends_with(WEIGHTS_SUFFIX) {
        Ok(Source::File(path.to_path_buf()))
    } else {
        Err(Error::NotACheckpoint {
            path: path.to_path_buf(),
            problem: "its name ends in neither .safetensors nor .safetensors.index.json".to_owned(),
        })
    }
}

fn in_directory(dir: &Path) -> Result<Weights> {
    let index = dir.join("model.safetensors.index.json");
    if index.exists() {
        return Ok(Weights::Sharded(index));
    }
    let single = dir.join("model.safetensors");
    if single.exists() {
        return Ok(Weights::Single(single));
    }

    let mut weights = Vec::new();
    let mut others = Vec::new();
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.ends_with(WEIGHTS_SUFFIX) {
            weights.push(entry.path())
        } else {
            others.push(name)
        }
    }
    weights.sort();
    others.sort();
    let problem = match weights.as_slice() {
        [only] => return Ok(Weights::Single(only.clone())),
        [] if others.is_empty() => "the directory is empty".to_owned(),
        // What else weights come in is named before config files: it is what the user has to convert.
        [] => match others
            .iter()
            .filter(|name| holds_weights(name))
            .collect::<Vec<_>>()
        {
            known if known.is_empty() => format!("it has only {}", list(others.iter())),
            known => format!(
                "its weights are in {}, which is not read here; convert them to safetensors",
                list(known.into_iter())
            ),
        },
        several => {
            let names = several
                .iter()
                .filter_map(|path| path.file_name())
                .map(|n| n.to_string_lossy());
            format!(
                "it has several .safetensors files ({}) and no model.safetensors.index.json that says how they belong together",
                list(names)
            )
        }
    };
    Err(Error::NotACheckpoint {
        path: dir.to_path_buf(),
        problem,
    })
}

/// Whether a file of this name holds weights in some form that is not safetensors.
pub(super) fn holds_weights(name: &str) -> bool {
    const EXTENSIONS: [&str; 11] = [
        ".gguf",
        ".ggml",
        ".h5",
        ".msgpack",
        ".onnx",
        ".onnx_data",
        ".pt",
        ".pth",
        ".ckpt",
        ".ot",
        ".tflite",
    ];
    let name = name.to_ascii_lowercase();
    EXTENSIONS.iter().any(|extension| name.ends_with(extension))
        // pytorch_model-00001-of-00002.bin, openvino_model.bin; not training_args.bin.
        || (name.ends_with(".bin") && name.contains("model"))
}

fn list(names: impl Iterator<Item = impl AsRef<str>>) -> String {
    let names: Vec<_> = names.map(|name| shown(name.as_ref()).to_string()).collect();
    let more = names.len().saturating_sub(LISTED);
    let listed = names[..names.len() - more].join(", ");
    if more == 0 {
        listed
    } else {
        format!("{listed} and {more} more")
    }
}

/// Where the Hugging Face cache is, by the variables its own library reads, in its order.
fn hub(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("HF_HUB_CACHE")
        .or_else(|| Some(set("HF_HOME")?.join("hub")))
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(home?.join(".cache/huggingface/hub")))
}

fn in_cache(model: &str, hub: &Path) -> Result<Source> {
    let repository = match model.split_once('/') {
        Some((org, name)) if is_repo_part(org) && is_repo_part(name) => {
            hub.join(format!("models--{org}--{name}"))
        }
        _ => {
            return Err(Error::NoSuchModel {
                model: model.to_owned(),
                searched: None,
            });
        }
    };
    if !repository.is_dir() {
        return Err(Error::NoSuchModel {
            model: model.to_owned(),
            searched: Some(repository),
        });
    }
    let reference = repository.join("refs").join("main");
    let broken = |path: &Path, problem| Error::BrokenCache {
        path: path.to_path_buf(),
        problem,
    };
    let commit = match untrusted::read(&reference, MAX_REF) {
        Ok(commit) => commit,
        Err(ReadError::TooLong { .. }) => return Err(broken(&reference, "it holds no commit")),
        Err(error) if error.is_not_found() || matches!(error, ReadError::NotRegular) => {
            return Err(broken(
                &reference,
                "there is no such file, so the snapshot that is meant is not known",
            ));
        }
        Err(error) => return Err(Error::reading(&reference)(error)),
    };
    let commit = match str::from_utf8(&commit).map(str::trim) {
        Ok(commit) if is_commit(commit) => commit,
        _ => return Err(broken(&reference, "it holds no commit")),
    };
    let dir = repository.join("snapshots").join(commit);
    if !dir.is_dir() {
        return Err(broken(
            &dir,
            "refs/main names this snapshot, but it is not there",
        ));
    }
    let weights = in_directory(&dir)?;
    Ok(Source::Cache {
        id: model.to_owned(),
        repository,
        dir,
        weights,
    })
}

/// Whether this is the `org` or the `name` of a repository: it becomes part of a path.
fn is_repo_part(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // `--` is what the cache writes for the slash.
    (1..=96).contains(&part.len())
        && part.chars().all(allowed)
        && !part.starts_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--")
}

/// Whether this can be a snapshot's directory name: nothing that leads elsewhere.
fn is_commit(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory_with(names: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for name in names {
            fs::write(dir.path().join(name), "").unwrap();
        }
        dir
    }

    fn locate_in(dir: &Path) -> Result<Source> {
        locate_with(dir.to_str().unwrap(), None)
    }

    fn problem(result: Result<Source>) -> String {
        match result {
            Err(Error::NotACheckpoint { problem, .. }) => problem,
            other => panic!("expected NotACheckpoint, got {other:?}"),
        }
    }

    #[test]
    fn files_are_told_by_their_names() {
        let dir = directory_with(&["a.safetensors", "a.safetensors.index.json", "a.gguf"]);
        let at = |name: &str| dir.path().join(name);
        assert_eq!(
            locate_in(&at("a.safetensors")).unwrap(),
            Source::File(at("a.safetensors"))
        );
        let index = at("a.safetensors.index.json");
        let source = locate_in(&index).unwrap();
        assert_eq!(source, Source::Index(index.clone()));
        assert_eq!(source.weights(), Weights::Sharded(index));
        assert_eq!(source.directory(), Some(dir.path()));
        assert!(problem(locate_in(&at("a.gguf"))).contains("neither"));
    }

    #[test]
    fn a_directory_prefers_the_index_then_the_model_then_the_only_file() {
        let dir = directory_with(&["x.safetensors"]);
        let at = |name: &str| dir.path().join(name);
        let weights = || locate_in(dir.path()).unwrap().weights();
        assert_eq!(weights(), Weights::Single(at("x.safetensors")));
        fs::write(at("model.safetensors"), "").unwrap();
        assert_eq!(weights(), Weights::Single(at("model.safetensors")));
        fs::write(at("model.safetensors.index.json"), "").unwrap();
        assert_eq!(
            weights(),
            Weights::Sharded(at("model.safetensors.index.json"))
        );
    }

    #[test]
    fn a_directory_without_safetensors_says_what_it_has() {
        let dir = directory_with(&[
            "config.json",
            "pytorch_model.bin",
            "m.Q4.gguf",
            "training_args.bin",
        ]);
        let message = problem(locate_in(dir.path()));
        assert!(
            message.contains("m.Q4.gguf, pytorch_model.bin,"),
            "{message}"
        );
        assert!(
            !message.contains("config.json") && !message.contains("training"),
            "{message}"
        );

        let message = problem(locate_in(directory_with(&["README.md"]).path()));
        assert!(message.contains("only README.md"), "{message}");
        assert!(problem(locate_in(directory_with(&[]).path())).contains("empty"));
    }

    #[test]
    fn several_files_without_an_index_are_refused_and_listed() {
        let names: Vec<_> = (0..10).map(|i| format!("part-{i}.safetensors")).collect();
        let dir = directory_with(&names.iter().map(String::as_str).collect::<Vec<_>>());
        let message = problem(locate_in(dir.path()));
        assert!(
            message.contains("part-0.safetensors, part-1") && message.contains("and 2 more"),
            "{message}"
        );
    }

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    /// A cache with one model, `org/name`.
    fn cache(reference: &str) -> tempfile::TempDir {
        let hub = tempfile::tempdir().unwrap();
        let repository = hub.path().join("models--org--name");
        fs::create_dir_all(repository.join("refs")).unwrap();
        fs::write(repository.join("refs/main"), reference).unwrap();
        fs::create_dir_all(repository.join("snapshots").join(COMMIT)).unwrap();
        fs::write(
            repository
                .join("snapshots")
                .join(COMMIT)
                .join("model.safetensors"),
            "",
        )
        .unwrap();
        hub
    }

    #[test]
    fn a_repository_is_found_in_the_cache() {
        let hub = cache(&format!("{COMMIT}\n"));
        let repository = hub.path().join("models--org--name");
        let dir = repository.join("snapshots").join(COMMIT);
        let expected = Source::Cache {
            id: "org/name".into(),
            repository,
            weights: Weights::Single(dir.join("model.safetensors")),
            dir,
        };
        assert_eq!(locate_with("org/name", Some(hub.path())).unwrap(), expected);
    }

    #[test]
    fn a_repository_that_is_not_in_the_cache_is_not_downloaded() {
        let hub = cache(COMMIT);
        let error = locate_with("org/other", Some(hub.path())).unwrap_err();
        assert!(
            matches!(
                &error,
                Error::NoSuchModel {
                    searched: Some(_),
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("nothing is downloaded"),
            "{error}"
        );
    }

    #[test]
    fn a_name_that_is_no_repository_is_not_looked_up() {
        let hub = cache(COMMIT);
        for model in [
            "no-such-thing",
            "org/../name",
            "org/name/x",
            "../name",
            "org/",
            "/name",
            "org\\name",
            "o--rg/name",
            "-o/name",
            "a\0/b",
            "",
        ] {
            let error = locate_with(model, Some(hub.path())).unwrap_err();
            assert!(
                matches!(error, Error::NoSuchModel { searched: None, .. }),
                "{model}: {error:?}"
            );
        }
    }

    #[test]
    fn a_reference_that_leads_elsewhere_is_refused() {
        for reference in [
            "",
            "..",
            "../../x",
            "/etc",
            "a b",
            "a\0",
            ".",
            &"a".repeat(129),
        ] {
            let error = locate_with("org/name", Some(cache(reference).path())).unwrap_err();
            assert!(
                matches!(error, Error::BrokenCache { .. }),
                "{reference}: {error:?}"
            );
        }
        let error = locate_with("org/name", Some(cache("abcdef").path())).unwrap_err();
        assert!(error.to_string().contains("not there"), "{error}");
        let hub = cache(COMMIT);
        fs::remove_file(hub.path().join("models--org--name/refs/main")).unwrap();
        assert!(matches!(
            locate_with("org/name", Some(hub.path())),
            Err(Error::BrokenCache { .. })
        ));
    }

    #[cfg(unix)]
    #[test]
    fn a_dangling_link_is_an_error_and_not_looked_up() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("m.safetensors");
        std::os::unix::fs::symlink("gone", &link).unwrap();
        assert!(matches!(locate_in(&link), Err(Error::Io { .. })));
    }

    #[test]
    fn the_cache_is_where_the_hugging_face_library_puts_it() {
        let home = || Some(PathBuf::from("/h"));
        let with = |set: &[(&str, &str)]| {
            let found = hub(
                |name| {
                    set.iter()
                        .find(|(n, _)| *n == name)
                        .map(|(_, value)| OsString::from(value))
                },
                home(),
            );
            found.unwrap().to_string_lossy().replace('\\', "/")
        };
        assert_eq!(with(&[]), "/h/.cache/huggingface/hub");
        assert_eq!(with(&[("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
        assert_eq!(
            with(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/a")]),
            "/a/hub"
        );
        assert_eq!(with(&[("HF_HOME", "/a"), ("HF_HUB_CACHE", "/b")]), "/b");
        assert_eq!(with(&[("HF_HUB_CACHE", "")]), "/h/.cache/huggingface/hub");
        assert_eq!(hub(|_| None, None), None);
    }
}
