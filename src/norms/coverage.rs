//! What norms there will be: the names and lengths that a calibration measures, before it has run.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The weights that a calibration will measure norms for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Coverage {
    /// The weights of the model that will be run.
    pub model: PathBuf,
    /// in_features by the weight's name.
    pub in_features: BTreeMap<String, usize>,
    /// Columns of the sketches that will be there, too.
    pub sketch_rank: Option<usize>,
}

impl Coverage {
    /// These weights of this model.
    #[must_use]
    pub fn new(
        model: PathBuf,
        in_features: BTreeMap<String, usize>,
        sketch_rank: Option<usize>,
    ) -> Self {
        Self {
            model,
            in_features,
            sketch_rank,
        }
    }
}
