//! Why a benchmark could not be run.

use std::io;

use crate::device;
#[cfg(feature = "native")]
use crate::{checkpoint, forward, model, norms, plan, prune, run};

/// Why a benchmark could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The temporary checkpoint could not be written: there must be room for it and for two copies.
    #[error("cannot write the temporary checkpoint in {dir}: {error}")]
    Temporary {
        /// Where.
        dir: String,
        /// Why.
        error: io::Error,
    },
    /// The temporary checkpoint could not be pruned or run; an error of this program.
    #[error("the temporary checkpoint: {_0}")]
    Checkpoint(String),
}

#[cfg(feature = "native")]
macro_rules! checkpoint_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Checkpoint(error.to_string())
            }
        })*
    };
}
#[cfg(feature = "native")]
checkpoint_errors!(
    checkpoint::Error,
    forward::Error,
    model::Error,
    norms::Error,
    plan::Error,
    prune::Error,
    run::Error
);
