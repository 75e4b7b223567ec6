//! Why there is no plan.

use std::path::PathBuf;

use super::left_dense::LeftDense;
use crate::error::Kind;
use crate::norms;
use crate::recipe::MAX_IN_FEATURES;
use crate::untrusted::{shown, shown_path};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sparsity outside 0 to 1, or a lambda outside -16 to 16.
    #[error("{what} is {value}, but must be {range}")]
    OutOfRange {
        /// `sparsity` or `lambda`.
        what: &'static str,
        /// What was asked.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// The score is not defined without norms.
    #[error("the score {score} needs column norms of the activations, but there are none")]
    NormsRequired {
        /// The score.
        score: &'static str,
    },
    /// The norms have nothing for a tensor that is to be pruned.
    #[error(
        "{}: there are no norms for tensor {}; they belong to another model or are incomplete",
        shown_path(norms),
        shown(tensor)
    )]
    NormsMissing {
        /// The norms file, or the model that would be calibrated.
        norms: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The norms do not fit a tensor.
    #[error(transparent)]
    Norms(#[from] norms::Error),
    /// The norms are still to be measured.
    #[error("the norms of this plan have not been measured yet")]
    NotMeasured,
    /// A target's dtype cannot be pruned.
    #[error(
        "{}: tensor {} is {dtype}, but only BF16, F16 and F32 can be pruned; exclude the tensor or convert the checkpoint",
        shown_path(file),
        shown(tensor)
    )]
    UnsupportedDtype {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype, as safetensors names it.
        dtype: String,
    },
    /// A target has more weights a row than the passes' integer widths allow.
    #[error(
        "{}: tensor {} has {in_features} input features, more than the maximum of {MAX_IN_FEATURES}; exclude the tensor",
        shown_path(file),
        shown(tensor)
    )]
    RowTooLong {
        /// The file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// Weights a row.
        in_features: usize,
    },
    /// A glob names nothing.
    #[error(
        "the {list} pattern {} matches no tensor that could be pruned",
        shown(glob)
    )]
    GlobMatchesNothing {
        /// `include` or `exclude`.
        list: &'static str,
        /// The glob.
        glob: String,
    },
    /// No rule knows the names of most of the decoder's weights, and they were not chosen by name.
    #[error(
        "{left_dense} would stay dense{}: no rule knows these names, so most of the model would not be pruned",
        model_type.as_ref().map_or_else(String::new, |name| format!(" (model_type {})", shown(name)))
    )]
    MostlyUnknown {
        /// What would stay dense.
        left_dense: LeftDense,
        /// The model's type, where config.json names it.
        model_type: Option<String>,
    },
    /// Nothing would be pruned.
    #[error(
        "no tensor of this checkpoint would be pruned{}",
        model_type.as_ref().map_or_else(String::new, |name| format!(" (model_type {})", shown(name)))
    )]
    NothingToPrune {
        /// The model's type, where config.json names it.
        model_type: Option<String>,
    },
}

impl Error {
    /// What the error means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::OutOfRange { .. }
            | Self::NormsRequired { .. }
            | Self::GlobMatchesNothing { .. }
            | Self::MostlyUnknown { .. } => Kind::Usage,
            _ => Kind::Failed,
        }
    }
}
