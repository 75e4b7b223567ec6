//! What can go wrong between the name of a model and a finished output, in words that a user can act on.
//!
//! Every message names the file, and the tensor if there is one, and says what would help. Names and paths are kept in the
//! variants as they are, and escaped when a message is printed.

use std::io;
use std::path::{Path, PathBuf};

use super::header::HeaderError;
use super::index::IndexError;
use crate::untrusted::{ReadError, shown, shown_path};

/// The result of opening a checkpoint or staging its output.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be opened, or its output not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to do something with a file.
    #[error("cannot {action} {}", shown_path(path))]
    Io {
        /// What was tried, as a verb: `open`, `read`, `write` ...
        action: &'static str,
        /// The file or directory it was tried on.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The model is neither a path that exists nor a repository in the local Hugging Face cache.
    #[error("there is no file or directory {}{}", shown_path(model), in_cache(searched.as_deref()))]
    NoSuchModel {
        /// The model as it was given.
        model: PathBuf,
        /// The directory of the Hugging Face cache that was looked for, if the model is given as `org/name` and there is a
        /// cache.
        searched: Option<PathBuf>,
    },

    /// The Hugging Face cache has the repository, but does not say which snapshot is current.
    #[error(
        "{}: {problem}; name the snapshot directory itself, or download the model again",
        shown_path(path)
    )]
    BrokenCache {
        /// The file or directory of the cache that is missing or wrong.
        path: PathBuf,
        /// What is wrong with it.
        problem: &'static str,
    },

    /// A path exists, but holds no safetensors checkpoint.
    #[error(
        "{} is not a safetensors checkpoint: {problem}; name a .safetensors file, a .safetensors.index.json, or a directory \
         with a model.safetensors",
        shown_path(path)
    )]
    NotACheckpoint {
        /// The file or directory.
        path: PathBuf,
        /// What was found there instead (names already escaped).
        problem: String,
    },

    /// A regular file is needed, and the path leads to a pipe, a device or a directory.
    #[error(
        "{} is not a regular file; weights are only read from regular files",
        shown_path(path)
    )]
    NotRegular {
        /// The file.
        path: PathBuf,
    },

    /// A file is longer than any that is read of its kind.
    #[error(
        "{}: {len} bytes are too many for it, the limit is {limit}",
        shown_path(path)
    )]
    TooLong {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The longest that is read.
        limit: u64,
    },

    /// The weights are quantised: there are no floating-point weights to prune or to run.
    #[error(
        "{} is quantised ({}); prune the model that it was made from and quantise the result, or convert it to BF16 first",
        shown_path(path),
        shown(method)
    )]
    Quantized {
        /// The config.json that says so, or the file of weights whose tensors show it.
        path: PathBuf,
        /// The method, or the tensor that shows it.
        method: String,
    },

    /// A directory holds an index with its shards, and a file of weights that the index does not name.
    #[error(
        "{} is beside {}, which does not name it: two checkpoints in one directory, and loaders disagree which of them is the \
         model; name the file or the index instead of the directory, or move one away",
        shown_path(file),
        shown_path(index)
    )]
    TwoCheckpoints {
        /// The index.
        index: PathBuf,
        /// The file that it does not name.
        file: PathBuf,
    },

    /// A Git LFS pointer stands in place of the file.
    #[error(
        "{} is a Git LFS pointer, not the file itself; run `git lfs pull` where it was cloned, or download the file",
        shown_path(path)
    )]
    LfsPointer {
        /// The file.
        path: PathBuf,
    },

    /// A safetensors header breaks the format.
    #[error(
        "{}: {problem}; the file is damaged or not a safetensors file; copy or download it again",
        shown_path(path)
    )]
    Header {
        /// The safetensors file.
        path: PathBuf,
        /// The rule it breaks.
        problem: HeaderError,
    },

    /// An index of shards is broken, or does not agree with its shards.
    #[error(
        "{}: {problem}; the checkpoint is incomplete or damaged; copy or download it again",
        shown_path(path)
    )]
    Index {
        /// The index file.
        path: PathBuf,
        /// The rule it breaks.
        problem: IndexError,
    },

    /// The config.json beside the weights cannot be used.
    #[error("{}: {problem}; repair it or move it away", shown_path(path))]
    Config {
        /// The config.json.
        path: PathBuf,
        /// What is wrong with it (already escaped).
        problem: String,
    },

    /// No tensor of the checkpoint has this name.
    #[error("{}: there is no tensor `{}`", shown_path(path), shown(tensor))]
    NoSuchTensor {
        /// The file of weights, or the index of the shards.
        path: PathBuf,
        /// The name that was looked for.
        tensor: String,
    },

    /// The operating system refused to read a tensor.
    #[error("cannot read tensor `{}` of {}", shown(tensor), shown_path(path))]
    ReadTensor {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What the operating system said.
        source: io::Error,
    },

    /// A caller asked for bytes that do not belong to the tensor, which is a bug.
    #[error(
        "{}: {len} bytes at {first} are not all of tensor `{}`, which has {tensor_len}; this is a bug, please report it",
        shown_path(path),
        shown(tensor)
    )]
    OutsideTensor {
        /// The file of weights.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The first byte asked for, counted in the tensor.
        first: u64,
        /// Bytes asked for.
        len: u64,
        /// Bytes of the tensor.
        tensor_len: u64,
    },

    /// An input file is shorter than when it was opened: another program is writing to it.
    #[error(
        "{} changed while it was being read; wait until nothing writes to it, then try again",
        shown_path(path)
    )]
    Changed {
        /// The input file.
        path: PathBuf,
    },

    /// There is something at the output's path, and it may not be replaced.
    #[error(
        "{} exists; give another output, or allow it to be replaced",
        shown_path(path)
    )]
    OutputExists {
        /// The output.
        path: PathBuf,
    },

    /// The output would replace the input, lie inside it or contain it. No option allows this.
    #[error(
        "the output {} {relation} the input {}. The input is never modified; choose another output",
        shown_path(path),
        shown_path(input)
    )]
    OutputIsInput {
        /// The output.
        path: PathBuf,
        /// How the output relates to the input, as a verb: `is`, `is inside`, `holds`.
        relation: &'static str,
        /// The file or directory of the input that would be damaged.
        input: PathBuf,
    },

    /// What is to be written would replace, or lie in, something else that the same run reads or writes.
    #[error(
        "{} cannot be written: it {relation} {role}, {}; choose another name",
        shown_path(path),
        shown_path(other)
    )]
    Overlap {
        /// What is to be written.
        path: PathBuf,
        /// How it relates to the other, as a verb: `is`, `is inside`, `holds`.
        relation: &'static str,
        /// What the other is to the run: `the norms`.
        role: &'static str,
        /// The other.
        other: PathBuf,
    },

    /// The output would lie in the Hugging Face cache, whose own tools delete what they do not know.
    #[error(
        "the output {} is inside the Hugging Face cache {}, whose own tools may delete it; choose another output",
        shown_path(path),
        shown_path(cache)
    )]
    OutputInCache {
        /// The output.
        path: PathBuf,
        /// The cache, or the repository in it.
        cache: PathBuf,
    },

    /// What is at the output's path is never replaced, whatever the options say.
    #[error(
        "{} {problem}; give another output, or move it away yourself",
        shown_path(path)
    )]
    NotReplaceable {
        /// The output.
        path: PathBuf,
        /// What is there, as the end of a sentence that starts with the path: `is a directory, but a file is to be written`.
        problem: &'static str,
    },

    /// The directory at the output's path holds something that a model directory does not.
    #[error(
        "the directory {} holds {}, which is no part of a checkpoint, so it is not replaced; give another output, or move it \
         away yourself",
        shown_path(path),
        shown(file)
    )]
    HoldsForeignFile {
        /// The output.
        path: PathBuf,
        /// The first foreign file or directory, within the output.
        file: String,
    },

    /// The output's path does not end in a name: `/`, `.`, `dir/..`.
    #[error(
        "the output path {} does not end in a name; choose a path that does",
        shown_path(path)
    )]
    NoOutputName {
        /// The output.
        path: PathBuf,
    },

    /// The directory that is to contain the output does not exist, or is a file.
    #[error(
        "the output's directory {} does not exist or is a file; make it first (mkdir -p)",
        shown_path(parent)
    )]
    NoOutputDirectory {
        /// The missing directory.
        parent: PathBuf,
    },

    /// The disk is full, a quota is reached, or the file system does not allow files as large as the output.
    #[error(
        "not enough space for the output: {needed} bytes are needed in {}. Free some space, or choose an output on another disk",
        shown_path(directory)
    )]
    NoSpace {
        /// Bytes that the whole output takes.
        needed: u64,
        /// The directory that was to contain the output.
        directory: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// The files beside the weights are larger than those of any model.
    #[error(
        "{} has {len} bytes, and the files beside the weights, which are copied, may have {limit} in all; move it elsewhere",
        shown_path(path)
    )]
    CompanionsTooLarge {
        /// The file with which they become too large.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
        /// The most bytes that all of them may have.
        limit: u64,
    },

    /// A caller wrote outside the data of a shard, which is a bug.
    #[error(
        "{len} bytes at {offset} lie outside the data of {} ({data_start} to {end}); this is a bug, please report it",
        shown(shard)
    )]
    OutOfRange {
        /// File name of the shard; its number, if there is no such shard.
        shard: String,
        /// First byte, from the start of the file.
        offset: u64,
        /// Length in bytes.
        len: u64,
        /// Where the shard's data starts.
        data_start: u64,
        /// Where the shard's data ends: the length of the file.
        end: u64,
    },

    /// A caller finished the output before all its bytes were written, which is a bug.
    #[error(
        "{}: {written} of {needed} bytes of data were written; nothing was kept; this is a bug, please report it",
        shown(shard)
    )]
    Incomplete {
        /// File name of the shard.
        shard: String,
        /// Bytes of data written.
        written: u64,
        /// Bytes of data the shard has.
        needed: u64,
    },

    /// The old output was moved away, the new one could not take its place, and the old one could not be moved back.
    #[error(
        "cannot move the output to {}; what was there before is safe in {}",
        shown_path(path),
        shown_path(kept)
    )]
    OldMovedAside {
        /// The output.
        path: PathBuf,
        /// Where the old output is now.
        kept: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The output could not take its name, though the system was asked for a while; it is whole where it was staged.
    #[error(
        "cannot move the output to {}; it is whole in {}",
        shown_path(path),
        shown_path(kept)
    )]
    OutputKept {
        /// The output.
        path: PathBuf,
        /// Where it is.
        kept: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

impl Error {
    /// Names the file in an operating-system error: `.map_err(Error::io("open", path))`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    }

    /// Names the file that could not be opened or read: `.map_err(Error::reading(path))`.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(ReadError) -> Self {
        let path = path.to_path_buf();
        move |error| match error {
            ReadError::Io { action, source } => Self::Io {
                action,
                path,
                source,
            },
            ReadError::NotRegular => Self::NotRegular { path },
            ReadError::TooLong { len, limit } => Self::TooLong { path, len, limit },
            ReadError::LfsPointer => Self::LfsPointer { path },
        }
    }
}

fn in_cache(searched: Option<&Path>) -> String {
    match searched {
        Some(path) => format!(
            ", and no {} in the Hugging Face cache; check the path, or download the model first (this program downloads nothing)",
            shown_path(path)
        ),
        None => "; check the path".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::StoredDtype;
    use crate::untrusted::tests::{HOSTILE, is_fit_for_a_terminal};

    /// One of every variant, with hostile names wherever a name can come from a file or a user.
    fn every_error() -> Vec<Error> {
        let (path, name) = (|| PathBuf::from(HOSTILE), || HOSTILE.to_owned());
        let source = || io::Error::from(io::ErrorKind::NotFound);
        let mut errors = vec![
            Error::Io {
                action: "open",
                path: path(),
                source: source(),
            },
            Error::NoSuchModel {
                model: name().into(),
                searched: None,
            },
            Error::NoSuchModel {
                model: name().into(),
                searched: Some(path()),
            },
            Error::BrokenCache {
                path: path(),
                problem: "it holds no commit",
            },
            Error::NotACheckpoint {
                path: path(),
                problem: "it is empty".to_owned(),
            },
            Error::NotRegular { path: path() },
            Error::TooLong {
                path: path(),
                len: 2,
                limit: 1,
            },
            Error::Config {
                path: path(),
                problem: "it is no JSON".to_owned(),
            },
            Error::NoSuchTensor {
                path: path(),
                tensor: name(),
            },
            Error::ReadTensor {
                path: path(),
                tensor: name(),
                source: source(),
            },
            Error::OutsideTensor {
                path: path(),
                tensor: name(),
                first: 1,
                len: 2,
                tensor_len: 1,
            },
            Error::Changed { path: path() },
            Error::OutputExists { path: path() },
            Error::OutputIsInput {
                path: path(),
                relation: "is",
                input: path(),
            },
            Error::NotReplaceable {
                path: path(),
                problem: "is a directory",
            },
            Error::Overlap {
                path: path(),
                relation: "is",
                role: "the norms",
                other: path(),
            },
            Error::HoldsForeignFile {
                path: path(),
                file: name(),
            },
            Error::Quantized {
                path: path(),
                method: name(),
            },
            Error::TwoCheckpoints {
                index: path(),
                file: path(),
            },
            Error::LfsPointer { path: path() },
            Error::OutputInCache {
                path: path(),
                cache: path(),
            },
            Error::NoOutputName { path: path() },
            Error::NoOutputDirectory { parent: path() },
            Error::CompanionsTooLarge {
                path: path(),
                len: 2,
                limit: 1,
            },
            Error::NoSpace {
                needed: 1,
                directory: path(),
                source: source(),
            },
            Error::OutOfRange {
                shard: name(),
                offset: 0,
                len: 1,
                data_start: 2,
                end: 3,
            },
            Error::Incomplete {
                shard: name(),
                written: 0,
                needed: 1,
            },
            Error::OldMovedAside {
                path: path(),
                kept: path(),
                source: source(),
            },
            Error::OutputKept {
                path: path(),
                kept: path(),
                source: source(),
            },
        ];
        let tensor = name;
        let headers = [
            HeaderError::UnknownDtype {
                tensor: tensor(),
                dtype: name(),
            },
            HeaderError::TooManyDimensions {
                tensor: tensor(),
                rank: 65,
            },
            HeaderError::ImpossibleSize {
                tensor: tensor(),
                shape: vec![1],
                dtype: StoredDtype::F4,
            },
            HeaderError::WrongLength {
                tensor: tensor(),
                needed: 1,
                begin: 2,
                end: 3,
            },
            HeaderError::NotContiguous {
                tensor: tensor(),
                begin: 1,
                expected: 2,
            },
        ];
        let indices = [
            IndexError::BadFileName { file: name() },
            IndexError::MissingShard { file: name() },
            IndexError::MissingTensor {
                tensor: tensor(),
                file: name(),
            },
            IndexError::TwoShards {
                tensor: tensor(),
                first: name(),
                second: name(),
            },
        ];
        let header = |problem| Error::Header {
            path: path(),
            problem,
        };
        let index = |problem| Error::Index {
            path: path(),
            problem,
        };
        errors.extend(headers.map(header));
        errors.extend(indices.map(index));
        errors
    }

    const VARIANTS: usize = 30;

    /// The number of a variant. A new one does not compile until it has an arm here: give it the next number, raise
    /// `VARIANTS`, and add it to the list above.
    fn number(error: &Error) -> usize {
        use Error as E;
        match error {
            E::Io { .. } => 0,
            E::NoSuchModel { .. } => 1,
            E::BrokenCache { .. } => 2,
            E::NotACheckpoint { .. } => 3,
            E::NotRegular { .. } => 4,
            E::TooLong { .. } => 5,
            E::Header { .. } => 6,
            E::Index { .. } => 7,
            E::Config { .. } => 8,
            E::NoSuchTensor { .. } => 9,
            E::ReadTensor { .. } => 10,
            E::OutsideTensor { .. } => 11,
            E::Changed { .. } => 12,
            E::OutputExists { .. } => 13,
            E::OutputIsInput { .. } => 14,
            E::NotReplaceable { .. } => 15,
            E::NoOutputName { .. } => 16,
            E::NoOutputDirectory { .. } => 17,
            E::NoSpace { .. } => 18,
            E::OutOfRange { .. } => 19,
            E::Incomplete { .. } => 20,
            E::OldMovedAside { .. } => 21,
            E::HoldsForeignFile { .. } => 22,
            E::Quantized { .. } => 23,
            E::TwoCheckpoints { .. } => 24,
            E::LfsPointer { .. } => 25,
            E::OutputInCache { .. } => 26,
            E::OutputKept { .. } => 27,
            E::CompanionsTooLarge { .. } => 28,
            E::Overlap { .. } => 29,
        }
    }

    #[test]
    fn no_error_prints_a_name_raw() {
        let errors = every_error();
        let numbers: std::collections::BTreeSet<usize> = errors.iter().map(number).collect();
        assert_eq!(numbers, (0..VARIANTS).collect());
        for error in errors {
            is_fit_for_a_terminal(&error.to_string());
        }
    }
}
