//! A checkpoint on disk: opened safely, and its output staged so that it appears whole or not at all.
//!
//! A checkpoint is a stranger's file. [`Checkpoint::open`] finds it ([`locate()`]), reads every header ([`header`])
//! and the index ([`index`]), and checks all that is said about the data before anything is allocated, opened or
//! printed by it. No tensor data is read: an open checkpoint costs its headers. After that every [`Tensor`] is a
//! range of bytes that its shard really has; a file that is cut short later gives an error on reading, never a wrong
//! result.
//!
//! [`Output`] is the other end: a transaction that stages the same files with the same headers beside their
//! destination, takes the data from many threads, and is renamed into place at the end ([`output`]).

mod companions;
mod destination;
pub mod error;
pub mod header;
pub mod index;
mod json;
pub mod locate;
pub mod output;
pub mod positional;

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

pub use destination::same_file;
pub use error::{Error, Result};
pub use header::{Header, HeaderError, Tensor};
pub use index::{Index, IndexError};
pub use locate::{Source, Weights, locate};
pub use output::{Finished, Output};

pub(crate) use error::{shown, shown_path};

/// The longest config.json that is read, in bytes.
pub const MAX_CONFIG: u64 = 16 << 20;

/// An open checkpoint: all its headers, checked; none of its data.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Where it was found.
    pub source: Source,
    /// Its files of weights, in the order of their names; at least one.
    pub shards: Vec<Shard>,
    /// The config.json beside the weights, if there is one.
    pub config: Option<serde_json::Value>,
}

/// One file of weights.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name without the directory; the output's shard is called the same.
    pub file_name: String,
    /// Its header.
    pub header: Header,
    /// Its length in bytes, header included.
    pub len: u64,
}

impl Checkpoint {
    /// Opens the checkpoint that `model` means: a file, an index, a directory, or `org/name` in the local cache.
    ///
    /// # Errors
    /// What [`locate()`] says, and [`Error::Header`], [`Error::Index`], [`Error::Config`], [`Error::NotRegular`] or
    /// [`Error::Io`] for files that cannot be used.
    pub fn open(model: &str) -> Result<Self> {
        Self::open_source(locate(model)?)
    }

    /// Opens a checkpoint that [`locate()`] found.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_source(source: Source) -> Result<Self> {
        let weights = source.weights();
        let dir = locate::directory_of(weights.path());
        let shards = match &weights {
            Weights::Single(path) => vec![Shard::open(path)?],
            Weights::Sharded(path) => open_shards(path, dir)?,
        };
        let config = read_config(&dir.join("config.json"))?;
        Ok(Self {
            source,
            shards,
            config,
        })
    }

    /// The architecture that config.json names: `llama`, `gpt_neox` ...
    #[must_use]
    pub fn model_type(&self) -> Option<&str> {
        self.config.as_ref()?.get("model_type")?.as_str()
    }

    /// Every tensor with the number of its shard, shard by shard, in the order of the data.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &Tensor)> {
        let shards = self.shards.iter().enumerate();
        shards.flat_map(|(shard, Shard { header, .. })| {
            header.tensors.iter().map(move |t| (shard, t))
        })
    }

    /// Where the output goes if nothing else is said: `NAME-pruned.safetensors` beside a file, `DIR-pruned` beside a
    /// directory (for an index, beside the one it lies in), `./name-pruned` for a model from the cache.
    #[must_use]
    pub fn default_output(&self) -> PathBuf {
        match &self.source {
            Source::File(path) => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!("{stem}-pruned.safetensors"))
            }
            Source::Index(path) => beside(locate::directory_of(path)),
            Source::Directory { dir, .. } => beside(dir),
            Source::Cache { id, .. } => {
                let name = id.rsplit('/').next().unwrap_or(id);
                PathBuf::from(format!("{name}-pruned"))
            }
        }
    }
}

/// `DIR-pruned`; a directory that is given as `.` or `..` is asked for its real name.
fn beside(dir: &Path) -> PathBuf {
    let real = || {
        dir.canonicalize()
            .ok()
            .filter(|real| real.file_name().is_some())
    };
    let dir = match dir.file_name() {
        Some(_) => dir.to_path_buf(),
        None => real().unwrap_or_else(|| PathBuf::from("model")),
    };
    let mut name = dir.file_name().unwrap_or_default().to_os_string();
    name.push("-pruned");
    dir.with_file_name(name)
}

impl Shard {
    /// Reads and checks the header of one file of weights.
    ///
    /// # Errors
    /// [`Error::Header`], [`Error::NotRegular`] or [`Error::Io`].
    pub fn open(path: &Path) -> Result<Self> {
        let (file, len) = open_regular(path)?;
        let header = Header::read(&file, len, path)?;
        let file_name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            path: path.to_path_buf(),
            file_name,
            header,
            len,
        })
    }
}

fn open_shards(index_path: &Path, dir: &Path) -> Result<Vec<Shard>> {
    let wrong = |problem| Error::Index {
        path: index_path.to_path_buf(),
        problem,
    };
    let index = Index::read(index_path)?;
    let mut shards = Vec::new();
    for file in index.files() {
        match Shard::open(&dir.join(file)) {
            Ok(shard) => shards.push(shard),
            Err(Error::Io {
                action: "open",
                source,
                ..
            }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(wrong(IndexError::MissingShard {
                    file: file.to_owned(),
                }));
            }
            Err(error) => return Err(error),
        }
    }
    index
        .check(shards.iter().map(|s| (s.file_name.as_str(), &s.header)))
        .map_err(wrong)?;
    Ok(shards)
}

/// Opens a file for reading if it is a regular one (or a link to one), and tells its length in bytes.
pub(crate) fn open_regular(path: &Path) -> Result<(File, u64)> {
    // Asked before it is opened: to open a pipe is to wait for ever.
    if !fs::metadata(path)
        .map_err(Error::io("open", path))?
        .is_file()
    {
        return Err(Error::NotRegular {
            path: path.to_path_buf(),
        });
    }
    let file = File::open(path).map_err(Error::io("open", path))?;
    let meta = file.metadata().map_err(Error::io("open", path))?;
    if !meta.is_file() {
        return Err(Error::NotRegular {
            path: path.to_path_buf(),
        });
    }
    Ok((file, meta.len()))
}

fn read_config(path: &Path) -> Result<Option<serde_json::Value>> {
    let wrong = |problem| Error::Config {
        path: path.to_path_buf(),
        problem,
    };
    let (file, len) = match open_regular(path) {
        Ok(opened) => opened,
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    if len > MAX_CONFIG {
        return Err(wrong(format!(
            "{len} bytes are too many for it, the limit is {MAX_CONFIG}"
        )));
    }
    let mut json = Vec::new();
    // The limit holds for a file that grows meanwhile, too.
    file.take(MAX_CONFIG)
        .read_to_end(&mut json)
        .map_err(Error::io("read", path))?;
    let config = serde_json::from_slice(&json)
        .map_err(|e| wrong(format!("it is no valid JSON: {}", shown(&e.to_string()))))?;
    Ok(Some(config))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The bytes of a safetensors file with one U8 tensor per name and length; byte `i` of the data is `i`.
    pub(crate) fn safetensors(tensors: &[(&str, u64)]) -> Vec<u8> {
        let mut end = 0;
        let entries: Vec<_> = tensors
            .iter()
            .map(|(name, len)| {
                let begin = end;
                end += len;
                format!(
                    r#"{name:?}:{{"dtype":"U8","shape":[{len}],"data_offsets":[{begin},{end}]}}"#
                )
            })
            .collect();
        let json = format!("{{{}}}  ", entries.join(","));
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend((0..end).map(|i| i as u8));
        bytes
    }

    /// A model directory `model` in a fresh directory, with two shards, an index and a config.json.
    pub(crate) fn sharded() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("model");
        fs::create_dir(&dir).unwrap();
        fs::write(
            dir.join("a-1.safetensors"),
            safetensors(&[("x", 300), ("y", 5)]),
        )
        .unwrap();
        fs::write(dir.join("a-2.safetensors"), safetensors(&[("z", 70)])).unwrap();
        let index =
            r#"{"weight_map":{"x":"a-1.safetensors","y":"a-1.safetensors","z":"a-2.safetensors"}}"#;
        fs::write(dir.join("model.safetensors.index.json"), index).unwrap();
        fs::write(dir.join("config.json"), r#"{"model_type":"llama"}"#).unwrap();
        (root, dir)
    }

    /// A file `model.safetensors` in a fresh directory.
    pub(crate) fn single() -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("model.safetensors");
        fs::write(&path, safetensors(&[("x", 300), ("y", 5)])).unwrap();
        (root, path)
    }

    pub(crate) fn open(path: &Path) -> Result<Checkpoint> {
        Checkpoint::open(path.to_str().unwrap())
    }

    #[test]
    fn a_file_is_opened_with_the_config_beside_it() {
        let (root, path) = single();
        assert_eq!(open(&path).unwrap().model_type(), None);
        fs::write(root.path().join("config.json"), r#"{"model_type":"qwen2"}"#).unwrap();
        let checkpoint = open(&path).unwrap();
        assert_eq!(checkpoint.model_type(), Some("qwen2"));
        assert_eq!(checkpoint.shards.len(), 1);
        assert_eq!(checkpoint.shards[0].file_name, "model.safetensors");
        assert_eq!(checkpoint.shards[0].len, fs::metadata(&path).unwrap().len());
        assert_eq!(open(root.path()).unwrap().shards[0].path, path);
    }

    #[test]
    fn a_directory_in_shards_gives_the_tensors_of_all() {
        let (_root, dir) = sharded();
        let checkpoint = open(&dir).unwrap();
        let tensors: Vec<_> = checkpoint
            .tensors()
            .map(|(s, t)| (s, t.name.as_str(), t.len))
            .collect();
        assert_eq!(tensors, [(0, "x", 300), (0, "y", 5), (1, "z", 70)]);
        assert_eq!(checkpoint.model_type(), Some("llama"));
        let by_index = open(&dir.join("model.safetensors.index.json")).unwrap();
        assert_eq!(by_index.tensors().count(), 3);
    }

    #[test]
    fn a_shard_that_is_missing_is_named() {
        let (_root, dir) = sharded();
        fs::remove_file(dir.join("a-2.safetensors")).unwrap();
        let error = open(&dir).unwrap_err();
        assert!(
            matches!(&error, Error::Index { problem: IndexError::MissingShard { file }, .. } if file == "a-2.safetensors"),
            "{error:?}"
        );
    }

    #[test]
    fn shards_that_disagree_with_the_index_are_refused() {
        let (_root, dir) = sharded();
        fs::write(
            dir.join("a-2.safetensors"),
            safetensors(&[("z", 70), ("x", 1)]),
        )
        .unwrap();
        let error = open(&dir).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Index {
                    problem: IndexError::TwoShards { .. },
                    ..
                }
            ),
            "{error:?}"
        );
    }

    #[test]
    fn a_broken_or_huge_config_is_an_error_that_names_it() {
        let (root, path) = single();
        let config = root.path().join("config.json");
        fs::write(&config, "{\"model_type\":").unwrap();
        let error = open(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Config { path, .. } if *path == config),
            "{error:?}"
        );
        assert!(error.to_string().contains("config.json"), "{error}");
        let file = File::create(&config).unwrap();
        file.set_len(MAX_CONFIG + 1).unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.to_string().contains("too many"), "{error}");
    }

    #[test]
    fn a_truncated_file_is_refused_at_every_length() {
        let (_root, path) = single();
        let whole = fs::read(&path).unwrap();
        for len in 0..whole.len() {
            fs::write(&path, &whole[..len]).unwrap();
            let error = open(&path).unwrap_err();
            assert!(matches!(error, Error::Header { .. }), "{len}: {error:?}");
        }
        fs::write(&path, &whole).unwrap();
        assert!(open(&path).is_ok());
    }

    #[test]
    fn weights_that_are_not_a_regular_file_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("model.safetensors")).unwrap();
        assert!(matches!(open(root.path()), Err(Error::NotRegular { .. })));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/dev/zero", root.path().join("zero.safetensors")).unwrap();
            let error = open(&root.path().join("zero.safetensors")).unwrap_err();
            assert!(matches!(error, Error::NotRegular { .. }), "{error:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn weights_may_be_links_to_regular_files() {
        let (root, path) = single();
        let link = root.path().join("link.safetensors");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(open(&link).unwrap().shards[0].file_name, "link.safetensors");
    }

    #[test]
    fn the_default_output_lies_beside_the_input() {
        let checkpoint = |source| Checkpoint {
            source,
            shards: Vec::new(),
            config: None,
        };
        let output = |source| checkpoint(source).default_output();
        let weights = || Weights::Single(PathBuf::new());
        let directory = |dir: &str| Source::Directory {
            dir: dir.into(),
            weights: weights(),
        };
        assert_eq!(
            output(Source::File("d/model.safetensors".into())),
            Path::new("d/model-pruned.safetensors")
        );
        assert_eq!(output(directory("d/llama/")), Path::new("d/llama-pruned"));
        assert_eq!(
            output(directory("Llama-3.2-1B")),
            Path::new("Llama-3.2-1B-pruned")
        );
        assert_eq!(
            output(Source::Index("d/llama/model.safetensors.index.json".into())),
            Path::new("d/llama-pruned")
        );
        let cache = Source::Cache {
            id: "org/name".into(),
            repository: "r".into(),
            dir: "r/snapshots/1".into(),
            weights: weights(),
        };
        assert_eq!(output(cache), Path::new("name-pruned"));
        let here = std::env::current_dir().unwrap();
        let name = here.file_name().unwrap().to_str().unwrap();
        assert_eq!(
            output(directory(".")),
            here.with_file_name(format!("{name}-pruned"))
        );
    }
}
