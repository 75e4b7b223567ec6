//! Why a run was given up: the errors of every module it goes through.

use std::path::PathBuf;

use super::event::Phase;
use crate::error::Kind;
use crate::prune::VerifyError;
use crate::untrusted::shown_path;
use crate::{calibration, checkpoint, device, model, norms, parts, plan, prune};

/// Why a run was given up; no output appeared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, or the output.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// The norms file.
    #[error(transparent)]
    Norms(#[from] norms::Error),
    /// The device.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The model cannot be calibrated.
    #[error("cannot calibrate: {_0}")]
    Calibration(calibration::Error),
    /// The model cannot be evaluated.
    #[error("cannot evaluate: {_0}")]
    Evaluation(calibration::Error),
    /// The plan.
    #[error(transparent)]
    Plan(#[from] plan::Error),
    /// Tensors that the model needs are missing, as far as its architecture is known.
    #[error("{_0}; the checkpoint is incomplete, download or save it again")]
    Incomplete(model::Error),
    /// Block by block on pruned blocks, and nothing is calibrated in this run.
    #[error(
        "block by block on pruned blocks, the norms are measured while pruning; here {}",
        match norms {
            Some(path) => format!("they are read from {}", shown_path(path)),
            None => "none are measured".to_owned(),
        }
    )]
    NothingMeasured {
        /// The file of the norms, if there is one.
        norms: Option<PathBuf>,
    },
    /// Block by block on pruned blocks, and the sparsity is shared out by the scores of all blocks.
    #[error(
        "the allocation {allocation} goes by the scores of all blocks, which are not known while a block is pruned before the \
         next one is calibrated"
    )]
    AllocationNeedsAllBlocks {
        /// The rule.
        allocation: &'static str,
    },
    /// Pruning.
    #[error(transparent)]
    Prune(#[from] prune::Error),
    /// The output is not what it should be.
    #[error(transparent)]
    Verify(#[from] VerifyError),
    /// The run was asked to stop before or after pruning; while pruning, it is [`prune::Error::Stopped`].
    #[error(
        "stopped {}; {}",
        match phase {
            Phase::Calibrate => "while calibrating",
            Phase::Allocate => "while sharing out the sparsity",
            Phase::Prune => "before pruning",
            Phase::Verify => "while verifying",
            Phase::Checksum => "while hashing the output",
            Phase::EvaluateBefore | Phase::EvaluateAfter => "while evaluating",
        },
        match output {
            Some(path) => format!("the output {} is whole", shown_path(path)),
            None => "nothing was written".to_owned(),
        }
    )]
    Stopped {
        /// The phase that was under way.
        phase: Phase,
        /// The output, if it is in place.
        output: Option<PathBuf>,
    },
    /// Parts of a run that cannot be made, kept or merged.
    #[error(transparent)]
    Parts(#[from] parts::Error),
    /// A part was asked for of a run that would measure its norms itself: every part would do so.
    #[error("a part of a run needs column norms from a file, so that all parts have the same")]
    PartNeedsNorms,
    /// The run was asked to stop; the shards that are finished are kept.
    #[error(
        "stopped; {finished} of {shards} files of weights are finished and wait in {}",
        shown_path(directory)
    )]
    Interrupted {
        /// How many are finished.
        finished: usize,
        /// Of how many that the run was about.
        shards: usize,
        /// Where they are.
        directory: PathBuf,
    },
    /// The report cannot be written.
    #[error("cannot write the report {}: {reason}", shown_path(path))]
    Report {
        /// Its file.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
    /// The output cannot be read back to be hashed.
    #[error(
        "cannot read the output {} back to hash it: {reason}",
        shown_path(path)
    )]
    Checksum {
        /// The output.
        path: PathBuf,
        /// Why.
        reason: std::io::Error,
    },
}

impl From<calibration::Error> for Error {
    fn from(error: calibration::Error) -> Self {
        Self::Calibration(error)
    }
}

impl From<calibration::ForwardError> for Error {
    fn from(error: calibration::ForwardError) -> Self {
        Self::Calibration(error.into())
    }
}

impl Error {
    /// Whether nothing went wrong but that the run was asked to stop.
    #[must_use]
    pub const fn is_stop(&self) -> bool {
        matches!(
            self,
            Self::Stopped { .. }
                | Self::Interrupted { .. }
                | Self::Parts(parts::Error::Stopped)
                | Self::Prune(prune::Error::Stopped { .. })
        )
    }

    /// What the error means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Calibration(error) | Self::Evaluation(error) => error.kind(),
            Self::Plan(error) => error.kind(),
            Self::Prune(error) => error.kind(),
            Self::Verify(error) => error.kind(),
            Self::NothingMeasured { .. } | Self::AllocationNeedsAllBlocks { .. } => Kind::Usage,
            Self::Parts(error) => error.kind(),
            Self::PartNeedsNorms => Kind::Usage,
            _ => Kind::Failed,
        }
    }
}
