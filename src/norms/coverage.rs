//! What norms there will be: the names and lengths that a calibration measures, before it has run.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// The part of the widest input's features that norms are measured on fewer tokens than, and the most tokens that are asked for:
/// docs/calibration.md has the measurements.
const FEW: (usize, u64) = (4, 1024);

/// What is to be said of norms of so few tokens, for inputs of up to so many features; `None` where they are enough.
#[must_use]
pub fn few_tokens(tokens: u64, widest: usize) -> Option<String> {
    let (part, most) = FEW;
    let enough = most.min((widest / part) as u64);
    (tokens < enough).then(|| {
        format!(
            "the norms are of {tokens} {}, which is few for inputs of up to {widest} features: below {enough} the pruned model gets \
             noticeably worse; calibrate on more text",
            if tokens == 1 { "token" } else { "tokens" }
        )
    })
}

/// The weights that a calibration will measure norms for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Coverage {
    /// The weights of the model that will be run.
    pub model: PathBuf,
    /// in_features by the weight's name.
    pub in_features: BTreeMap<String, usize>,
    /// Tokens that it will run.
    pub tokens: usize,
    /// Columns of the sketches that will be there, too.
    pub sketch_rank: Option<usize>,
}

impl Coverage {
    /// These weights of this model.
    #[must_use]
    pub fn new(
        model: PathBuf,
        in_features: BTreeMap<String, usize>,
        tokens: usize,
        sketch_rank: Option<usize>,
    ) -> Self {
        Self {
            model,
            in_features,
            tokens,
            sketch_rank,
        }
    }
}
