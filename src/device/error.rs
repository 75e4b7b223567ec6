//! What can go wrong with a device.

/// What can go wrong with a device.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter fits the choice.
    #[error("no device fits `{choice}`: {found}")]
    NoAdapter {
        /// What was asked for.
        choice: String,
        /// What there is.
        found: String,
    },
    /// The adapter has less than the passes need.
    #[error("{device} cannot run the passes: {reason}")]
    Unfit {
        /// The adapter.
        device: String,
        /// What it lacks.
        reason: String,
    },
    /// The driver reported an error, ran out of memory or lost the device; nothing it returned is used.
    #[error("{device} failed: {reason}")]
    Failed {
        /// The adapter.
        device: String,
        /// The driver's words.
        reason: String,
    },
}
