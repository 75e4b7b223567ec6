//! Why a case of the self-test could not be run.

use crate::{checkpoint, device, norms, plan, prune};

/// Why a case could not be run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] device::Error),
    /// The example model could not be pruned.
    #[error("the example model: {_0}")]
    Model(String),
}

macro_rules! model_errors {
    ($($error:ty),*) => {
        $(impl From<$error> for Error {
            fn from(error: $error) -> Self {
                Self::Model(error.to_string())
            }
        })*
    };
}
model_errors!(
    std::io::Error,
    checkpoint::Error,
    norms::Error,
    plan::Error,
    prune::Error
);
