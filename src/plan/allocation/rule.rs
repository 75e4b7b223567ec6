//! The rules by which sparsity is shared out over the decoder blocks.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How the sparsity that is asked for is shared out over the decoder blocks. Every row of a tensor has the same share, and
/// over all weights of a stack of blocks there are as many zeros as [`Uniform`](Self::Uniform) makes.
///
/// `spread` is half of the distance between the least and the most pruned block: 0.1 is 20 percentage points from one to
/// the other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase")]
#[non_exhaustive]
pub enum Allocation {
    /// The same for every block.
    #[default]
    Uniform,
    /// Less for a block with many outliers among its scores: those above [`OUTLIER`](crate::plan::OUTLIER) times the
    /// block's mean. OWL, arXiv 2310.05175.
    Owl {
        /// Half of the range, 0 to 0.5.
        spread: f64,
    },
    /// More for a block whose median score is high. DLP, arXiv 2505.23807.
    Dlp {
        /// Half of the range, 0 to 0.5.
        spread: f64,
    },
    /// More from block to block, by one common difference. ATP, arXiv 2502.14770.
    Atp {
        /// Half of the range, 0 to 0.5.
        spread: f64,
    },
    /// As a table says.
    Given {
        /// By the name of the tensor: a fraction of each row. It must have every tensor that is pruned.
        sparsities: Arc<BTreeMap<String, f64>>,
    },
}

impl Allocation {
    /// OWL with the paper's spread, 0.08.
    pub const OWL: Self = Self::Owl { spread: 0.08 };
    /// DLP with the paper's spread, 0.15.
    pub const DLP: Self = Self::Dlp { spread: 0.15 };
    /// ATP. The paper tries common differences until perplexity is best; this is what measured best here.
    pub const ATP: Self = Self::Atp { spread: 0.1 };

    /// The name on the command line and in reports.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Owl { .. } => "owl",
            Self::Dlp { .. } => "dlp",
            Self::Atp { .. } => "atp",
            Self::Given { .. } => "given",
        }
    }

    /// Half of the distance between the least and the most pruned block, of the rules that have one.
    #[must_use]
    pub const fn spread(&self) -> Option<f64> {
        match *self {
            Self::Owl { spread } | Self::Dlp { spread } | Self::Atp { spread } => Some(spread),
            Self::Uniform | Self::Given { .. } => None,
        }
    }

    /// The same rule with this spread; those without one stay as they are.
    #[must_use]
    pub fn with_spread(self, spread: f64) -> Self {
        match self {
            Self::Owl { .. } => Self::Owl { spread },
            Self::Dlp { .. } => Self::Dlp { spread },
            Self::Atp { .. } => Self::Atp { spread },
            other => other,
        }
    }

    /// Whether it has to see the scores of all weights first.
    #[must_use]
    pub const fn needs_scores(&self) -> bool {
        matches!(self, Self::Owl { .. } | Self::Dlp { .. })
    }
}
