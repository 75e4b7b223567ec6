//! Why a sweep was given up.

use std::path::PathBuf;

use crate::error::Kind;
use crate::run;
use crate::untrusted::shown_path;

/// Why a sweep was given up. Cells that were finished are in the state file, where there is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, a text, the norms or a cell.
    #[error(transparent)]
    Run(#[from] run::Error),
    /// No cell was asked for.
    #[error("there is nothing to measure: give at least one sparsity or pattern")]
    NothingToDo,
    /// Sparsity is to be shared out, and only patterns are asked for.
    #[error(
        "an N:M pattern cannot be shared out over the blocks, as every group has the same zeros"
    )]
    PatternsAlone,
    /// The sweep was asked to stop.
    #[error(
        "stopped after {done} of {cells} cells{}",
        state.as_ref().map_or_else(String::new, |path| format!("; they are kept in {}", shown_path(path)))
    )]
    Stopped {
        /// Cells that were finished.
        done: usize,
        /// Cells that were asked for.
        cells: usize,
        /// Where they are kept.
        state: Option<PathBuf>,
    },
    /// The state file cannot be used.
    #[error("cannot {action} the state file {}: {reason}", shown_path(path))]
    State {
        /// What was tried: lock, read, use, write.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl Error {
    /// Whether nothing went wrong but that the sweep was asked to stop.
    #[must_use]
    pub const fn is_stop(&self) -> bool {
        match self {
            Self::Run(error) => error.is_stop(),
            error => matches!(error, Self::Stopped { .. }),
        }
    }

    /// What the error means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Run(error) => error.kind(),
            Self::NothingToDo | Self::PatternsAlone => Kind::Usage,
            _ => Kind::Failed,
        }
    }
}
