//! What is asked of a plan.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::allocation::Allocation;
use crate::compensation::Compensation;
use crate::norms::{Coverage, Norms};
use crate::scores::{NormsUse, Score};
use crate::selection::Selection;
use crate::targets;

/// What to prune, by which score and rule. Serialized, it is what a record of a run says of that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Options {
    /// How many weights go, and by which rule.
    pub selection: Selection,
    /// How that is shared out over the decoder blocks.
    pub allocation: Allocation,
    /// The score; `None` takes `swiftprune` where there are norms and `ria` where there are none.
    #[serde(with = "by_name")]
    pub score: Option<&'static Score>,
    /// Which tensors.
    #[serde(flatten)]
    pub targets: targets::NameFilter,
    /// Leave NaN and infinities alone instead of refusing them.
    pub keep_non_finite: bool,
    /// Compensate the weights that stay for those that go.
    pub compensation: Option<Compensation>,
    /// Also add up `sum dW^2` and `sum W^2`. It changes no weight.
    #[serde(skip)]
    pub squared_error: bool,
}

/// A score by its name.
mod by_name {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use crate::scores::Score;

    pub(super) fn serialize<S: Serializer>(
        score: &Option<&'static Score>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        score.map(|score| score.name).serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(
        from: D,
    ) -> Result<Option<&'static Score>, D::Error> {
        let name = Option::<String>::deserialize(from)?;
        let by_name = |name: String| {
            let score = Score::by_name(&name);
            score.ok_or_else(|| serde::de::Error::custom("no score that there is"))
        };
        name.map(by_name).transpose()
    }
}

impl Options {
    /// The defaults: the best score for the norms there are, on the linear weights of the decoder blocks.
    #[must_use]
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            allocation: Allocation::Uniform,
            score: None,
            targets: targets::NameFilter::default(),
            keep_non_finite: false,
            compensation: None,
            squared_error: false,
        }
    }

    /// Whether anything that is asked for goes by column norms, where there are any.
    #[must_use]
    pub fn takes_norms(&self) -> bool {
        self.score
            .is_none_or(|score| score.norms != NormsUse::Unused)
            || self.compensation.is_some()
            || self.allocation.needs_scores()
    }
}

/// Where the column norms of a plan come from.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NormsSource {
    /// There are none: the score uses the weights alone.
    None,
    /// They were read from a file, or measured before.
    Read(Arc<Norms>),
    /// They will be measured once the plan is drawn up.
    ToMeasure(Coverage),
}
