//! Why there is no plan.

use std::path::{Path, PathBuf};

use super::left_dense::LeftDense;
use crate::checkpoint;
use crate::error::Kind;
use crate::norms;
use crate::recipe::MAX_IN_FEATURES;
use crate::untrusted::{named, shown, shown_path};

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sparsity outside 0 to 1, a lambda outside -16 to 16, or a spread outside 0 to 0.5.
    #[error("{what} is {value}, but must be {range}")]
    OutOfRange {
        /// `sparsity`, `lambda` or `spread`.
        what: &'static str,
        /// What was asked.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// The index names a tensor that the decoder needs, and that is in no file of weights.
    #[error(transparent)]
    Incomplete(#[from] checkpoint::Error),
    /// The score is not defined without norms.
    #[error("the score {score} needs column norms of the activations, but there are none")]
    NormsRequired {
        /// The score.
        score: &'static str,
    },
    /// Compensation needs sketches of the layers' inputs, and there are none, or smaller ones.
    #[error("{}", sketch_required(norms.as_deref(), *found, *wanted))]
    SketchRequired {
        /// Where the norms come from, if there are any.
        norms: Option<PathBuf>,
        /// Columns of the sketches that are there.
        found: Option<usize>,
        /// Columns that are asked for.
        wanted: usize,
    },
    /// Compensation needs sketches that a norms file does not have.
    #[error(
        "{}: there is no sketch of the input of {}; measure the norms of this model with sketches",
        shown_path(norms),
        listed(tensors)
    )]
    SketchesMissing {
        /// The norms file.
        norms: PathBuf,
        /// The tensors without one.
        tensors: Vec<String>,
    },
    /// The rule of allocation goes by scores, which need norms.
    #[error(
        "the allocation {allocation} goes by the scores of all weights, which need column norms, but there are none"
    )]
    AllocationNeedsNorms {
        /// The rule.
        allocation: &'static str,
    },
    /// The selection has no sparsity that could be shared out.
    #[error(
        "the allocation {allocation} shares a sparsity out over the blocks, but {selection} has none to share: it is the same in every row"
    )]
    NothingToAllocate {
        /// The rule.
        allocation: &'static str,
        /// What was asked for.
        selection: &'static str,
    },
    /// A table of sparsities lacks a tensor that is pruned.
    #[error("no sparsity is given for tensor {}", shown(tensor))]
    NotGiven {
        /// The tensor.
        tensor: String,
    },
    /// The scores that the shares go by have not been counted.
    #[error("the sparsity of this plan has not been shared out yet")]
    NotAllocated,
    /// The norms have nothing for tensors that are to be pruned.
    #[error(
        "{}: there are no norms for {}; they belong to another model or are incomplete",
        shown_path(norms),
        listed(tensors)
    )]
    NormsMissing {
        /// The norms file, or the model that would be calibrated.
        norms: PathBuf,
        /// The tensors, all of them.
        tensors: Vec<String>,
        /// Globs that match these tensors and none that have norms; none if no tensor has.
        globs: Vec<String>,
    },
    /// The norms are of another number of blocks.
    #[error(
        "{}: norms of {theirs} blocks, but the model has {ours}; they belong to another model",
        shown_path(norms)
    )]
    OtherBlocks {
        /// The norms file.
        norms: PathBuf,
        /// Blocks that there are norms of.
        theirs: usize,
        /// Blocks of the model.
        ours: usize,
    },
    /// One set of norms would serve two weights that do not read the same input.
    #[error(
        "{}: `{}` would serve both {} and {}, which are in different parts of the model",
        shown_path(norms),
        shown(entry),
        shown(first),
        shown(second)
    )]
    NormsAmbiguous {
        /// The norms file.
        norms: PathBuf,
        /// The name in it.
        entry: String,
        /// One of the weights.
        first: String,
        /// The other.
        second: String,
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
        /// Whether tensors were chosen by name: with others there may be some.
        by_globs: bool,
    },
}

fn sketch_required(norms: Option<&Path>, found: Option<usize>, wanted: usize) -> String {
    const NEEDS: &str = "compensation needs a sketch of every layer's input";
    match (norms, found) {
        (None, _) => format!("{NEEDS}, but the model is pruned by its weights alone"),
        (Some(norms), None) => format!(
            "{}: {NEEDS}, but there are none beside the norms",
            shown_path(norms)
        ),
        (Some(norms), Some(found)) => format!(
            "{}: the sketches have rank {found}, less than the {wanted} that compensation is to use",
            shown_path(norms)
        ),
    }
}

fn listed(tensors: &[String]) -> String {
    match tensors.len() {
        1 => format!("tensor {}", named(tensors)),
        n => format!("{n} tensors: {}", named(tensors)),
    }
}

impl Error {
    /// What the error means for whoever asked.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::OutOfRange { .. }
            | Self::NormsRequired { .. }
            | Self::SketchRequired { .. }
            | Self::AllocationNeedsNorms { .. }
            | Self::NothingToAllocate { .. }
            | Self::GlobMatchesNothing { .. }
            | Self::MostlyUnknown { .. }
            | Self::NothingToPrune { by_globs: true, .. } => Kind::Usage,
            _ => Kind::Failed,
        }
    }
}
