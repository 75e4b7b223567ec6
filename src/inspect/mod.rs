//! What a checkpoint holds: every tensor with what `prune` would do to it and why, and what its weights are like.
//!
//! It opens more than pruning does: quantised checkpoints and dtypes that cannot be pruned are read as they are stored, and
//! [`Inspection::refused`] says why pruning would refuse them. Every byte is read once, by threads that share the files.

mod groups;
mod pieces;
mod scan;
mod statistics;

use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::Serialize;

pub use statistics::Statistics;

use crate::calibration::{Calibration, DEFAULT_TOKENS};
use crate::checkpoint::{self, Checkpoint, Reader};
use crate::error::Kind;
use crate::evaluation::Windows;
use crate::plan::{Draft, NameFilter, NormsSource, Options, Selection};
use crate::stop::Stop;
use crate::targets::{self, Decision};
use crate::text::Text;
use crate::workers::{Panicked, share_out};
use pieces::{Piece, cut, groups_of, rows_of};
use scan::{Groups, Scratch, is_counted, scan};
use statistics::Sums;

/// What a checkpoint holds.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// Version of this program.
    pub version: &'static str,
    /// The file, the index or the file of weights of the directory.
    #[serde(serialize_with = "as_text")]
    pub model: PathBuf,
    /// The architecture that config.json names.
    pub model_type: Option<String>,
    /// Files of weights.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Why `prune` would refuse the checkpoint, whatever the norms; none if it would not.
    pub refused: Option<String>,
    /// Whether the model can be calibrated, and why not.
    pub calibrates: Ability,
    /// Whether its perplexity can be measured, and why not.
    pub evaluates: Ability,
    /// In what the index disagrees with the files of weights; none needs to be repaired.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// The tensors that were chosen, shard by shard in the order of the bytes.
    pub tensors: Vec<TensorInspection>,
    /// Sums over those that would be pruned.
    pub prunable: Totals,
    /// Sums over all that were chosen.
    pub all: Totals,
}

/// Whether something can be done with a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Ability {
    /// Whether it can.
    pub can: bool,
    /// Why not.
    pub because: Option<String>,
}

impl Ability {
    fn of<T, E: std::fmt::Display>(result: Result<T, E>) -> Self {
        let because = result.err().map(|error| error.to_string());
        Self {
            can: because.is_none(),
            because,
        }
    }
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TensorInspection {
    /// Its name, as the checkpoint has it.
    pub name: String,
    /// Its file of weights.
    pub file: String,
    /// Its dtype.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its bytes.
    pub bytes: u64,
    /// What `prune` would do by default.
    pub action: Action,
    /// Why; for one that is pruned, its kind.
    pub because: String,
    /// What its weights are like; none for a dtype that has no numbers to count.
    pub statistics: Option<Statistics>,
}

/// What `prune` would do to a tensor by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Action {
    /// It would be pruned.
    Prune,
    /// It would be copied.
    Copy,
    /// The run would be refused because of it.
    Refuse,
}

impl Action {
    /// Its word in tables and in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prune => "prune",
            Self::Copy => "copy",
            Self::Refuse => "refuse",
        }
    }
}

/// Sums over some tensors.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Totals {
    /// Tensors.
    pub tensors: usize,
    /// Bytes.
    pub bytes: u64,
    /// Weights that were counted.
    pub weights: u64,
    /// Zeros among them.
    pub zeros: u64,
    /// Zeros over weights.
    pub sparsity: f64,
    /// NaN and infinities among them.
    pub non_finite: u64,
}

fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// Why a checkpoint could not be inspected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It cannot be opened or read.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// A glob matches no tensor.
    #[error("no tensor of the model matches `{}`", crate::untrusted::shown(_0))]
    GlobMatchesNothing(String),
    /// A thread panicked, which is a bug.
    #[error("a thread panicked: {0}; this is a bug, please report it")]
    Panicked(String),
    /// It was asked to stop.
    #[error("stopped before all was read")]
    Stopped,
}

impl From<Panicked> for Error {
    fn from(Panicked(message): Panicked) -> Self {
        Self::Panicked(message)
    }
}

impl Error {
    /// What the error means for whoever asked.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::GlobMatchesNothing(_) => Kind::Usage,
            Self::Checkpoint(_) | Self::Panicked(_) | Self::Stopped => Kind::Failed,
        }
    }
}

/// A checkpoint that is to be inspected: opened, and its tensors chosen; nothing of its data is read.
#[derive(Debug)]
pub struct Inspector {
    checkpoint: Checkpoint,
    refused: Option<String>,
    decisions: Vec<Decision>,
    /// The tensors that were chosen, by their numbers.
    chosen: Vec<usize>,
}

impl Inspector {
    /// Opens `model`, as [`Checkpoint::open`] finds it, and chooses the tensors whose names match `include` (all, if there is
    /// none) and not `exclude`.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::GlobMatchesNothing`].
    pub fn new(model: impl AsRef<Path>, globs: &NameFilter) -> Result<Self, Error> {
        let (checkpoint, quantized) = Checkpoint::open_even_quantized(model.as_ref())?;
        let described: Vec<targets::Tensor<'_>> = checkpoint
            .tensors()
            .map(|(_, tensor)| targets::Tensor {
                name: &tensor.name,
                dtype: tensor.dtype,
                shape: &tensor.shape,
            })
            .collect();
        let config = checkpoint.config.as_ref();
        let of_config = config.map(targets::Model::from_config).unwrap_or_default();
        let decisions = targets::decide(&described, &of_config, &NameFilter::default()).decisions;
        let (include, exclude) = globs.globs();
        let names = described.iter().map(|tensor| tensor.name);
        for glob in include.iter().chain(&exclude) {
            if !names.clone().any(|name| globs.glob_matches(glob, name)) {
                return Err(Error::GlobMatchesNothing(glob.clone()));
            }
        }
        let chosen = names.enumerate().filter(|(_, name)| globs.chooses(name));
        let chosen: Vec<usize> = chosen.map(|(index, _)| index).collect();
        let refused = match quantized {
            Some(error) => Some(error.to_string()),
            None => {
                let options = Options::new(Selection::Exact { sparsity: 0.5 });
                let draft = Draft::new(checkpoint.clone(), options, NormsSource::None);
                draft.err().map(|error| error.to_string())
            }
        };
        Ok(Self {
            checkpoint,
            refused,
            decisions,
            chosen,
        })
    }

    /// The bytes that will be read.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let tensors: Vec<_> = self.checkpoint.tensors().collect();
        self.chosen.iter().map(|&index| tensors[index].1.len).sum()
    }

    /// Reads the tensors, with so many threads. `progress` is told of every so many bytes.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] for what cannot be read, [`Error::Stopped`].
    pub fn run(
        &self,
        threads: usize,
        progress: &(dyn Fn(u64) + Sync),
        stop: &Stop,
    ) -> Result<Inspection, Error> {
        let tensors: Vec<_> = self.checkpoint.tensors().collect();
        let mut work = Work {
            reader: Reader::open(&self.checkpoint)?,
            pieces: Vec::new(),
            groups: Vec::new(),
            sums: Vec::new(),
        };
        for (at, &index) in self.chosen.iter().enumerate() {
            let (shard, tensor) = tensors[index];
            let groups = groups_of(&self.decisions[index], &tensor.shape);
            work.groups.push(groups);
            work.sums.push(Mutex::new(Sums::default()));
            if is_counted(tensor.dtype) {
                let bytes = tensor.offset..tensor.offset + tensor.len;
                let rows_of = rows_of(&self.decisions[index], &tensor.shape);
                cut(
                    &mut work.pieces,
                    (at, shard, tensor.dtype),
                    bytes,
                    groups,
                    rows_of,
                );
            }
        }
        let pieces = std::mem::take(&mut work.pieces);
        let counted = share_out(
            threads,
            &pieces,
            || Ok((Vec::new(), Scratch::default())),
            |(buffer, scratch), piece| {
                if stop.is_requested() {
                    return Err(Error::Stopped);
                }
                progress(work.count(piece, buffer, scratch)?);
                Ok(())
            },
            drop,
        );
        work.reader.check_unchanged()?;
        counted?;
        let (mut prunable, mut all) = (Totals::default(), Totals::default());
        let mut rows = Vec::with_capacity(self.chosen.len());
        for ((&index, sums), groups) in self.chosen.iter().zip(work.sums).zip(work.groups) {
            let (shard, tensor) = tensors[index];
            let sums = sums.into_inner();
            let (action, because) = match &self.decisions[index] {
                Decision::Prune(target) => (Action::Prune, target.kind.clone()),
                Decision::Skip(reason) => (Action::Copy, reason.to_string()),
                Decision::Unsupported { dtype, .. } => {
                    (Action::Refuse, format!("{dtype} cannot be pruned"))
                }
            };
            let statistics = is_counted(tensor.dtype).then(|| sums.finish(groups != Groups::None));
            all.add(tensor.len, &sums);
            if action == Action::Prune {
                prunable.add(tensor.len, &sums);
            }
            rows.push(TensorInspection {
                name: tensor.name.clone(),
                file: self.checkpoint.shards[shard].file_name.clone(),
                dtype: tensor.dtype.to_string(),
                shape: tensor.shape.clone(),
                bytes: tensor.len,
                action,
                because,
                statistics,
            });
        }
        let checkpoint = &self.checkpoint;
        Ok(Inspection {
            version: env!("CARGO_PKG_VERSION"),
            model: checkpoint.source.weights().path().to_path_buf(),
            model_type: checkpoint.model_type().map(str::to_owned),
            files: checkpoint.shards.len(),
            bytes: checkpoint.shards.iter().map(|shard| shard.len).sum(),
            refused: self.refused.clone(),
            calibrates: Ability::of(Calibration::new(
                checkpoint,
                Text::calibration(),
                DEFAULT_TOKENS,
                None,
            )),
            evaluates: Ability::of(Windows::new(checkpoint, &Text::held_out(), None, None)),
            warnings: checkpoint.warnings(),
            tensors: rows,
            prunable: prunable.finish(),
            all: all.finish(),
        })
    }
}

impl Totals {
    fn add(&mut self, bytes: u64, sums: &Sums) {
        self.tensors += 1;
        self.bytes += bytes;
        self.weights += sums.weights;
        self.zeros += sums.zeros;
        self.non_finite += sums.non_finite;
    }

    fn finish(mut self) -> Self {
        self.sparsity = self.zeros as f64 / self.weights.max(1) as f64;
        self
    }
}

/// What the threads share.
struct Work<'a> {
    reader: Reader<'a>,
    pieces: Vec<Piece>,
    groups: Vec<Groups>,
    sums: Vec<Mutex<Sums>>,
}

impl Work<'_> {
    fn count(
        &self,
        piece: &Piece,
        buffer: &mut Vec<u64>,
        scratch: &mut Scratch,
    ) -> Result<u64, Error> {
        // A piece is read into memory: it fits, as it is part of a row or a few megabytes.
        let len = (piece.bytes.end - piece.bytes.start) as usize;
        buffer.resize(len.div_ceil(8), 0);
        let bytes = &mut bytemuck::cast_slice_mut::<u64, u8>(buffer)[..len];
        self.reader.read_at(piece.shard, piece.bytes.start, bytes)?;
        let sums = &self.sums[piece.tensor];
        let lock = || sums.lock();
        let full = lock().most.is_full();
        let groups = self.groups[piece.tensor];
        let counted = scan(piece.dtype, bytes, groups, full, scratch);
        lock().add(&counted);
        Ok(len as u64)
    }
}
