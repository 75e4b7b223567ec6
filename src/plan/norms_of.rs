//! The norms of each matrix of a draft, as its score takes them.

use std::borrow::Cow;

use super::draft::Draft;
use super::error::Error;
use super::options::NormsSource;
use crate::norms::{Lookup, Norms};
use crate::targets::Target;

impl Draft {
    /// Whether anybody looks at the norms: the score, or the rule of allocation.
    #[must_use]
    pub fn looks_at_norms(&self) -> bool {
        self.uses_norms() || self.options.allocation.needs_scores()
    }

    /// The norms that are there, whether or not anybody looks at them.
    pub(crate) fn given_norms(&self) -> Option<&Norms> {
        match &self.norms {
            NormsSource::Read(norms) => Some(norms),
            NormsSource::None | NormsSource::ToMeasure(_) => None,
        }
    }

    /// The norms of one matrix, those of its layer for an expert that saw fewer than
    /// [`FEW_TOKENS`](super::FEW_TOKENS) tokens: `None` where there are none, and where no calibration token reached it.
    ///
    /// # Errors
    /// [`Error::NormsMissing`] and [`Error::Norms`], which a draft has been checked for.
    pub(crate) fn given_norms_of(
        &self,
        tensor: &str,
        target: &Target,
        expert: usize,
    ) -> Result<Option<Cow<'_, [f32]>>, Error> {
        match (&self.norms, self.stand_ins.get(tensor, expert)) {
            (_, Some(instead)) => Ok(Some(instead.into())),
            (NormsSource::Read(norms), None) => self.measured_of(norms, tensor, target, expert),
            _ => Ok(None),
        }
    }

    /// How many tokens went into the norms of one matrix; 1 where nobody knows.
    pub(crate) fn tokens_of(&self, tensor: &str, target: &Target, expert: usize) -> f64 {
        let NormsSource::Read(norms) = &self.norms else {
            return 1.0;
        };
        let expert = (target.experts > 1).then_some(expert);
        let tokens = norms.tokens(tensor, expert).or(norms.source.tokens);
        tokens.unwrap_or(1).max(1) as f64
    }

    /// The same out of norms that are not the draft's yet, but for experts that saw few tokens: `None` where no calibration token reached it.
    pub(super) fn measured_of<'a>(
        &self,
        norms: &'a Norms,
        tensor: &str,
        target: &Target,
        expert: usize,
    ) -> Result<Option<Cow<'a, [f32]>>, Error> {
        let expert = (target.experts > 1).then_some(expert);
        match norms.get(tensor, expert, target.in_features)? {
            Lookup::Measured(_) if self.score.about_mean => {
                let norms = norms.about_mean(tensor, expert, target.in_features)?;
                let norms = norms.filter(|norms| norms.iter().any(|&n| n != 0.0));
                Ok(norms.map(Cow::from))
            }
            Lookup::Absent => Err(Error::NormsMissing {
                norms: norms.source.path.clone(),
                tensors: vec![tensor.to_owned()],
                globs: Vec::new(),
            }),
            Lookup::Unseen => Ok(None),
            Lookup::Measured(norms) => Ok(norms.iter().any(|&n| n != 0.0).then_some(norms.into())),
        }
    }
}
