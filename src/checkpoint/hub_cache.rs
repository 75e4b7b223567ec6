//! The local Hugging Face cache: where it is, and which snapshot of a repository is current.
//!
//! A repository `org/name` lies in `models--org--name`; its file `refs/main` names the snapshot, a directory whose files are
//! links into `blobs/`. What that file says becomes part of a path, so it must be the plain name of a directory.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::error::{Error, Result};
use crate::untrusted::{self, ReadError};

/// The longest `refs/main` that is read, in bytes; a commit has 40.
const MAX_REF: u64 = 256;

/// One snapshot of a repository.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// The repository: `org/name`.
    pub id: String,
    /// The `models--org--name` directory.
    pub repository: PathBuf,
    /// The snapshot's directory in it.
    pub dir: PathBuf,
}

/// A repository of a cache, found by what its path looks like: `models--org--name`, with `snapshots` in it.
#[derive(Debug)]
pub(super) struct Repository {
    /// `org/name`, or `name` alone for the few that have no organisation.
    pub id: String,
    /// Its directory.
    pub dir: PathBuf,
}

impl Repository {
    /// The name without the organisation.
    pub(super) fn name(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(&self.id)
    }
}

/// The repository whose snapshot this directory is, or lies in; whatever links lead to it.
pub(super) fn repository_of(dir: &Path) -> Option<Repository> {
    let real = dir.canonicalize().ok()?;
    let snapshot = |dir: &Path| {
        let snapshots = dir.parent()?;
        let repository = snapshots.parent()?;
        let id = repository_id(repository)?;
        (snapshots.file_name()? == "snapshots").then(|| Repository {
            id,
            dir: repository.to_path_buf(),
        })
    };
    real.ancestors().find_map(snapshot)
}

/// The cache, or the repository of one, that this path lies in; it need not exist, but its parent must be a real path.
pub(super) fn cache_around(path: &Path) -> Option<PathBuf> {
    let here = directory().and_then(|hub| hub.canonicalize().ok());
    let mut above = path.ancestors().skip(1);
    above
        .find(|dir| here.as_deref() == Some(*dir) || repository_id(dir).is_some())
        .map(Path::to_path_buf)
}

/// What a directory called `models--org--name` holds, if it looks like a repository of a cache inside, too.
fn repository_id(dir: &Path) -> Option<String> {
    let name = dir.file_name()?.to_str()?;
    let id = ["models--", "datasets--", "spaces--"]
        .iter()
        .find_map(|kind| name.strip_prefix(kind))?;
    let is_repository = ["snapshots", "blobs", "refs"]
        .iter()
        .any(|part| dir.join(part).is_dir());
    (is_repository && !id.is_empty()).then(|| id.replacen("--", "/", 1))
}

/// Where the cache is on this machine; it need not exist.
pub(super) fn directory() -> Option<PathBuf> {
    hub(|name| std::env::var_os(name), std::env::home_dir())
}

/// Where the Hugging Face cache is, by the variables its own library reads, in its order.
fn hub(variable: impl Fn(&str) -> Option<OsString>, home: Option<PathBuf>) -> Option<PathBuf> {
    let set = |name| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    set("HF_HUB_CACHE")
        .or_else(|| set("HUGGINGFACE_HUB_CACHE"))
        .or_else(|| Some(set("HF_HOME")?.join("hub")))
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("huggingface/hub")))
        .or_else(|| Some(home?.join(".cache/huggingface/hub")))
}

/// Finds the snapshot that the repository `model`, called `org/name`, has in the cache at `hub`.
///
/// # Errors
/// [`Error::NoSuchModel`] if it is not there, [`Error::BrokenCache`] if the cache does not say which snapshot it is.
pub(super) fn snapshot(model: &Path, hub: &Path) -> Result<Snapshot> {
    let parts = model.to_str().and_then(|id| id.split_once('/'));
    let (id, repository) = match parts {
        Some((org, name)) if is_repo_part(org) && is_repo_part(name) => {
            let directory = hub.join(format!("models--{org}--{name}"));
            (format!("{org}/{name}"), directory)
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
                "there is no such file, so the current snapshot is not known",
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
    Ok(Snapshot {
        id,
        repository,
        dir,
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

/// Whether this can be the name of a snapshot's directory; a path that leads elsewhere cannot.
fn is_commit(text: &str) -> bool {
    (1..=128).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let old = ("HUGGINGFACE_HUB_CACHE", "/o");
        assert_eq!(with(&[("HF_HOME", "/a"), old]), "/o");
        assert_eq!(with(&[old, ("HF_HUB_CACHE", "/b")]), "/b");
        assert_eq!(with(&[("HF_HUB_CACHE", "")]), "/h/.cache/huggingface/hub");
        assert_eq!(hub(|_| None, None), None);
    }
}
