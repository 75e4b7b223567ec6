//! An open checkpoint: its shards, their headers and its config.json, read and checked.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::config::Config;
use super::error::{Error, Result};
use super::file_names::SINGLE_FILE;
use super::header::{self, Header, HeaderError, Tensor};
use super::hub_cache;
use super::index::{self, Discrepancy, Index, IndexError, MAX_INDEX};
use super::locate::{Source, Weights, directory_of, locate, locate_path};
use super::positional::read_exact_at;
use super::quantized;
use super::stamp::Stamp;
use crate::names::grammar::is_beside_the_decoder;
use crate::untrusted::{self, LFS_POINTER, open_regular};

/// An open checkpoint: all its headers, checked, and none of its data.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checkpoint {
    /// Where it was found.
    pub source: Source,
    /// Its files of weights, in the order of their names; at least one.
    pub shards: Vec<Shard>,
    /// The config.json beside the weights, if there is one.
    pub config: Option<Config>,
    /// In what its index disagrees with its files of weights.
    pub(super) discrepancies: Vec<Discrepancy>,
}

/// One file of weights.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Shard {
    /// The path of the file.
    pub path: PathBuf,
    /// Its name without the directory; the output's shard has the same name.
    pub file_name: String,
    header: Arc<Header>,
    /// Its length in bytes, header included.
    pub len: u64,
    stamp: Stamp,
}

impl Shard {
    /// Its header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }
}

impl Checkpoint {
    /// Opens the checkpoint that `model` means: a file, an index, a directory, or `org/name` in the local cache.
    ///
    /// # Errors
    /// What [`locate()`] says, and [`Error::Header`], [`Error::Index`], [`Error::Config`], [`Error::NotRegular`],
    /// [`Error::LfsPointer`] or [`Error::Io`] for files that cannot be used; [`Error::TwoCheckpoints`] for a directory in
    /// which it is not clear which files are the model; [`Error::Quantized`].
    pub fn open(model: impl AsRef<Path>) -> Result<Self> {
        Self::open_source(locate(model.as_ref())?)
    }

    /// Opens the checkpoint at a path, which is an output's: it is not looked up in the cache, and need not be Unicode.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub(crate) fn open_path(path: &Path) -> Result<Self> {
        Self::open_source(locate_path(path)?)
    }

    /// Opens a checkpoint that [`locate()`] found.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_source(source: Source) -> Result<Self> {
        let (checkpoint, quantized) = Self::open_with_refusal(source, false)?;
        match quantized {
            Some(error) => Err(error),
            None => Ok(checkpoint),
        }
    }

    /// Opens a checkpoint to look at it: also a quantised one, with the error that says so.
    ///
    /// # Errors
    /// As [`Checkpoint::open`], but not [`Error::Quantized`].
    pub(crate) fn open_even_quantized(model: &Path) -> Result<(Self, Option<Error>)> {
        Self::open_with_refusal(locate(model)?, true)
    }

    /// Opens a checkpoint, and tells whether it is quantised. `goes_on` says whether a quantised one is opened.
    fn open_with_refusal(source: Source, goes_on: bool) -> Result<(Self, Option<Error>)> {
        let weights = source.weights();
        let dir = directory_of(weights.path());
        let config_path = dir.join("config.json");
        let config = Config::read(&config_path)?;
        let mut refused = None;
        // Before the weights are looked at: what is wrong with them may be that they are packed.
        if let Some(method) = config.as_ref().and_then(quantized::by_config) {
            let path = config_path;
            refused = Some(Error::Quantized { path, method });
        }
        if let Some(error) = refused.take_if(|_| !goes_on) {
            return Err(error);
        }
        let named = matches!(source, Source::File(_) | Source::Index(_));
        let (shards, discrepancies) = match &weights {
            Weights::Single(path) => (vec![Shard::open(path)?], Vec::new()),
            Weights::Sharded(path) => open_shards(path, dir, named)?,
        };
        let checkpoint = Self {
            source,
            shards,
            config,
            discrepancies,
        };
        for (shard, tensor) in checkpoint.tensors() {
            if let Some(method) = quantized::by_tensor(tensor) {
                let path = checkpoint.shards[shard].path.clone();
                refused.get_or_insert(Error::Quantized { path, method });
                break;
            }
        }
        Ok((checkpoint, refused))
    }

    /// One file of weights that cannot be opened by a path, as in a browser: its name, its header, and its config.json where
    /// there is one. A [`Reader`](super::Reader) finds no data of it.
    ///
    /// # Errors
    /// [`Error::Quantized`].
    pub fn of_header(name: &str, header: Header, config: Option<Config>) -> Result<Self> {
        let path = PathBuf::from(name);
        let by_config = config.as_ref().and_then(quantized::by_config);
        let method = by_config.or_else(|| {
            let mut tensors = header.tensors().iter();
            tensors.find_map(|tensor| quantized::by_tensor(tensor))
        });
        if let Some(method) = method {
            return Err(Error::Quantized { path, method });
        }
        let len = header.file_len();
        let shard = Shard {
            file_name: name.to_owned(),
            header: Arc::new(header),
            len,
            stamp: Stamp::of_bytes(len),
            path: path.clone(),
        };
        Ok(Self {
            source: Source::File(path),
            shards: vec![shard],
            config,
            discrepancies: Vec::new(),
        })
    }

    /// What a user should know of the index: in what it disagrees with the files of weights, though no loader minds.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        index::warnings(&self.discrepancies)
    }

    /// The tensors of the index that are in no file of weights.
    #[cfg_attr(
        not(feature = "native"),
        expect(dead_code, reason = "without an index")
    )]
    pub(crate) fn absent(&self) -> impl Iterator<Item = &str> {
        let absent = |one: &&Discrepancy| matches!(one, Discrepancy::Absent { .. });
        self.discrepancies
            .iter()
            .filter(absent)
            .map(Discrepancy::tensor)
    }

    /// The error that one of [these](Self::absent) is needed.
    #[cfg_attr(
        not(feature = "native"),
        expect(dead_code, reason = "without an index")
    )]
    pub(crate) fn absent_error(&self, tensor: &str) -> Error {
        let file = self.discrepancies.iter().find_map(|one| match one {
            Discrepancy::Absent { tensor: name, file } if name == tensor => Some(file.clone()),
            _ => None,
        });
        Error::Index {
            path: self.source.weights().path().to_path_buf(),
            problem: IndexError::MissingTensor {
                tensor: tensor.to_owned(),
                file: file.unwrap_or_default(),
            },
        }
    }

    /// The architecture that config.json names: `llama`, `gpt_neox` ...
    #[must_use]
    pub fn model_type(&self) -> Option<&str> {
        self.config.as_ref()?.model_type()
    }

    /// Every tensor with the number of its shard, shard by shard, in the order of the data.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &Arc<Tensor>)> {
        let shards = self.shards.iter().enumerate();
        shards.flat_map(|(shard, Shard { header, .. })| {
            header.tensors().iter().map(move |t| (shard, t))
        })
    }

    /// Where the output goes by default: `NAME-pruned.safetensors` beside a file, `DIR-pruned` beside a directory (or the
    /// directory of an index), `./name-pruned` for a model from the cache, which is no place for an output.
    #[must_use]
    pub fn default_output(&self) -> PathBuf {
        let cached = self.source.weights();
        let cached = hub_cache::repository_of(directory_of(cached.path()));
        match &self.source {
            Source::File(_) if let Some(repository) = &cached => {
                PathBuf::from(format!("{}-pruned.safetensors", repository.name()))
            }
            Source::Index(_) | Source::Directory { .. } if let Some(repository) = &cached => {
                PathBuf::from(format!("{}-pruned", repository.name()))
            }
            Source::File(path) => {
                let stem = path.file_stem().unwrap_or_default().to_string_lossy();
                path.with_file_name(format!("{stem}-pruned.safetensors"))
            }
            Source::Index(path) => beside(directory_of(path)),
            Source::Directory { dir, .. } => beside(dir),
            Source::Cache { id, .. } => {
                let name = id.rsplit('/').next().unwrap_or(id);
                PathBuf::from(format!("{name}-pruned"))
            }
        }
    }
}

/// `DIR-pruned`; for `.` and `..`, the directory's real name is used.
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
        let (file, len) = open_regular(path).map_err(Error::reading(path))?;
        // Before the header: what is written after that is noticed.
        let stamp = Stamp::of(&file).map_err(Error::io("open", path))?;
        let header = read_header(&file, len, path)?;
        let file_name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Ok(Self {
            path: path.to_path_buf(),
            file_name,
            header: Arc::new(header),
            len,
            stamp,
        })
    }

    /// The stamp of the file, from before its header was read.
    pub(crate) const fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Checks that the file at its path is still the one whose header was read.
    ///
    /// # Errors
    /// [`Error::Changed`], [`Error::NotRegular`] and [`Error::Io`].
    pub(crate) fn check_still_unchanged(&self) -> Result<()> {
        let (file, _) = open_regular(&self.path).map_err(Error::reading(&self.path))?;
        self.check_unchanged(&file)
    }

    /// Checks that an open file is the one whose header was read, and that nobody has written to it since.
    pub(super) fn check_unchanged(&self, file: &File) -> Result<()> {
        let path = &self.path;
        if Stamp::of(file).map_err(Error::io("open", path))? == self.stamp {
            return Ok(());
        }
        let path = path.clone();
        Err(Error::Changed { path })
    }
}

/// The shards of an index, and in what it disagrees with them; `named` if the user named the index itself, and not the directory
/// that holds it.
fn open_shards(
    index_path: &Path,
    dir: &Path,
    named: bool,
) -> Result<(Vec<Shard>, Vec<Discrepancy>)> {
    let wrong = |problem| Error::Index {
        path: index_path.to_path_buf(),
        problem,
    };
    let json = untrusted::read(index_path, MAX_INDEX).map_err(Error::reading(index_path))?;
    let index = Index::parse(&json).map_err(wrong)?;
    let single = dir.join(SINGLE_FILE);
    if !named && single.exists() && !index.files().contains(&SINGLE_FILE) {
        return Err(Error::TwoCheckpoints {
            index: index_path.to_path_buf(),
            file: single,
        });
    }
    let mut shards = Vec::new();
    let mut missing = Vec::new();
    for file in index.files() {
        match Shard::open(&dir.join(file)) {
            Ok(shard) => shards.push(shard),
            Err(Error::Io {
                action: "open",
                source,
                ..
            }) if source.kind() == io::ErrorKind::NotFound => missing.push(file),
            Err(error) => return Err(error),
        }
    }
    // A file that holds only what the decoder does without need not be there.
    let is_needed = |file: &&&str| {
        let mut tensors = index.weight_map.iter().filter(|(_, of)| of == *file);
        tensors.any(|(tensor, _)| !is_beside_the_decoder(tensor))
    };
    let needed = missing.iter().find(is_needed);
    if let Some(file) = needed.or(missing.first().filter(|_| shards.is_empty())) {
        return Err(wrong(IndexError::MissingShard {
            file: (*file).to_owned(),
        }));
    }
    let headers = shards.iter().map(|s| (s.file_name.as_str(), s.header()));
    let same = |places: [(usize, &Tensor); 2]| have_equal_bytes(&shards, places);
    let discrepancies = index.compare(headers, same).map_err(|error| match error {
        Disagreement::Index(problem) => wrong(problem),
        Disagreement::Reading(error) => error,
    })?;
    Ok((shards, discrepancies))
}

/// Why an index could not be compared with its shards.
enum Disagreement {
    Index(IndexError),
    Reading(Error),
}

impl From<IndexError> for Disagreement {
    fn from(problem: IndexError) -> Self {
        Self::Index(problem)
    }
}

/// Bytes of each tensor that are compared at a time.
const COMPARED_BYTES: usize = 1 << 20;

/// Whether two tensors of one length hold the same.
fn have_equal_bytes(shards: &[Shard], places: [(usize, &Tensor); 2]) -> Result<bool, Disagreement> {
    let len = places[0].1.len;
    let mut parts = [vec![0; COMPARED_BYTES], vec![0; COMPARED_BYTES]];
    let open = |shard: usize| {
        let path = &shards[shard].path;
        let file = open_regular(path).map_err(Error::reading(path));
        file.map(|(file, _)| file).map_err(Disagreement::Reading)
    };
    let files = [open(places[0].0)?, open(places[1].0)?];
    for first in (0..len).step_by(COMPARED_BYTES) {
        let part = usize::try_from(len - first).map_or(COMPARED_BYTES, |n| n.min(COMPARED_BYTES));
        for ((bytes, file), (shard, tensor)) in parts.iter_mut().zip(&files).zip(places) {
            let read = read_exact_at(file, &mut bytes[..part], tensor.offset + first);
            read.map_err(Error::io("read", &shards[shard].path))
                .map_err(Disagreement::Reading)?;
        }
        if parts[0][..part] != parts[1][..part] {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether an open file of `len` bytes is a Git LFS pointer.
fn is_lfs_pointer(file: &File, len: u64) -> bool {
    let mut start = [0; LFS_POINTER.len()];
    len >= start.len() as u64 && read_exact_at(file, &mut start, 0).is_ok() && start == LFS_POINTER
}

/// Reads and checks the header of an open file of `len` bytes; `path` is for messages only.
fn read_header(file: &File, len: u64, path: &Path) -> Result<Header> {
    let wrong = |problem| Error::Header {
        path: path.to_path_buf(),
        problem,
    };
    let mut prefix = [0; header::PREFIX];
    if len < prefix.len() as u64 {
        return Err(wrong(HeaderError::TooShort { len }));
    }
    read_exact_at(file, &mut prefix, 0).map_err(Error::io("read", path))?;
    if is_lfs_pointer(file, len) {
        return Err(Error::LfsPointer {
            path: path.to_path_buf(),
        });
    }
    let json_len = header::json_len(prefix, len).map_err(wrong)?;
    // At most the length of the file and 100 MB, so it can be allocated.
    let mut raw = vec![0; header::PREFIX + json_len];
    read_exact_at(file, &mut raw, 0).map_err(Error::io("read", path))?;
    Header::parse(raw, len).map_err(wrong)
}
