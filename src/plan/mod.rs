//! The plan: what will happen to every tensor of a checkpoint, decided and checked before anything is written.
//!
//! A [`Draft`] reads headers only. It refuses what cannot work (a score without its norms, norms of another model, a glob
//! that matches nothing), so that a run which starts can fail only on the data itself or on the disk. A [`Plan`] is a
//! draft whose norms are there. Neither can be changed afterwards, so nothing is pruned with norms that were not checked.
//!
//! What is decided for a tensor stands on its own row ([`PlannedTensor::action`]): its matrices, its dtype and its
//! selection, which `allocation/` makes out of the one that was asked for.

mod allocation;
mod blocks;
mod draft;
mod error;
mod few_tokens;
mod left_dense;
mod norms_of;
mod options;
mod shares;
mod tensors;

use std::borrow::Cow;
use std::ops::Deref;

pub(crate) use allocation::ScoreCounts;
pub use allocation::{Allocation, BlockScores, OUTLIER};
pub use blocks::PlannedBlock;
pub use draft::Draft;
pub use error::Error;
pub use few_tokens::FEW_TOKENS;
pub use left_dense::{DensePattern, DenseReason, LeftDense};
pub use options::{NormsSource, Options};
pub use tensors::{Action, PlannedTensor};

pub use crate::scores::{NormsUse, SCORES, Score, WeightsUse};
pub use crate::selection::{Ewma, Pattern, Selection};
pub use crate::targets::{Error as GlobError, Layout, NameFilter, Reason, Target};

pub use crate::compensation::Compensation;

use crate::checkpoint::Checkpoint;
#[cfg(feature = "native")]
use crate::compensation::Hessian;
use crate::norms::{Lookup, Norms};
use few_tokens::StandIns;

/// A [`Draft`] whose norms are there: what [`prune`](crate::prune::prune) runs. It reads as its draft does.
///
/// What was checked cannot be changed:
///
/// ```compile_fail,E0616
/// # fn change(mut plan: swiftprune_wgpu::plan::Plan) {
/// plan.norms = swiftprune_wgpu::plan::NormsSource::None;
/// # }
/// ```
#[derive(Debug)]
pub struct Plan(Draft);

impl Deref for Plan {
    type Target = Draft;

    fn deref(&self) -> &Draft {
        &self.0
    }
}

impl Plan {
    /// A plan with these norms, or without any.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::NotMeasured`]; [`Error::NotAllocated`] for a rule that goes by scores, which has
    /// to be drafted first.
    pub fn new(
        checkpoint: Checkpoint,
        options: Options,
        norms: Option<Norms>,
    ) -> Result<Self, Error> {
        let norms = norms.map_or(NormsSource::None, |norms| NormsSource::Read(norms.into()));
        Draft::new(checkpoint, options, norms)?.plan()
    }

    /// The norms, where the score uses them.
    #[must_use]
    pub fn norms(&self) -> Option<&Norms> {
        match &self.0.norms {
            NormsSource::Read(norms) if self.uses_norms() => Some(norms),
            _ => None,
        }
    }

    /// The norms of one matrix, those of its layer for an expert that saw fewer than [`FEW_TOKENS`] tokens: `None` when the
    /// score goes without, and where no calibration token reached it.
    ///
    /// # Errors
    /// [`Error::NormsMissing`] and [`Error::Norms`], which a plan has been checked for.
    pub(crate) fn norms_of(
        &self,
        tensor: &str,
        target: &Target,
        expert: usize,
    ) -> Result<Option<Cow<'_, [f32]>>, Error> {
        match self.norms() {
            Some(_) => self.0.given_norms_of(tensor, target, expert),
            None => Ok(None),
        }
    }
}

impl Plan {
    /// What tells the sketch of one matrix's input from all others; `None` where it is of no use: of an expert that few tokens
    /// reached, whose norms are its layer's.
    pub(crate) fn sketch_place(&self, tensor: &str, target: &Target, expert: usize) -> Option<u64> {
        let sketches = self.norms()?.sketches.as_ref()?;
        match self.0.stand_ins.get(tensor, expert) {
            Some(_) => None,
            None => sketches.place(tensor, expert, target.in_features),
        }
    }

    /// What the output error of one matrix is measured with, where compensation is asked for: `None` where there is no sketch
    /// of its input to be had (an expert that few tokens reached), or none that can be used.
    ///
    /// # Errors
    /// [`Error::NormsMissing`] and [`Error::Norms`].
    #[cfg(feature = "native")]
    pub(crate) fn hessian_of(
        &self,
        tensor: &str,
        target: &Target,
        expert: usize,
    ) -> Result<Option<Hessian>, Error> {
        let (Some(norms), Some(options)) = (self.norms(), self.0.options().compensation) else {
            return Ok(None);
        };
        let Some(sketches) = &norms.sketches else {
            return Ok(None);
        };
        let sketch = sketches.get(tensor, expert, target.in_features)?;
        let expert = (target.experts > 1).then_some(expert);
        let of_input = norms.get(tensor, expert, target.in_features)?;
        let (Some(sketch), Lookup::Measured(of_input)) = (sketch, of_input) else {
            return Ok(None);
        };
        Ok(Hessian::new(of_input, &sketch, options.rank, options.ridge))
    }
}

impl Draft {
    /// The plan, if nothing is left to measure.
    ///
    /// # Errors
    /// [`Error::NotMeasured`], [`Error::NotAllocated`].
    pub fn plan(self) -> Result<Plan, Error> {
        match self.norms {
            NormsSource::ToMeasure(_) => Err(Error::NotMeasured),
            _ if !self.is_allocated() => Err(Error::NotAllocated),
            _ => Ok(Plan(self)),
        }
    }

    /// The draft with norms that have been measured since it was made. Its warnings are the draft's and, behind them,
    /// what the norms have shown.
    ///
    /// # Errors
    /// [`Error::NormsMissing`] and [`Error::Norms`].
    pub fn measured(mut self, norms: Norms) -> Result<Self, Error> {
        if self.looks_at_norms() {
            self.stand_ins = StandIns::of(&norms, self.pruned(), self.score().about_mean)?;
            let warnings = self.check_measured(&norms, &self.stand_ins)?;
            self.warnings.extend(warnings);
        }
        self.norms = NormsSource::Read(norms.into());
        Ok(self)
    }

    /// A plan for those tensors alone that these norms are of, as this draft has them: for weights that are pruned before all
    /// norms are there.
    ///
    /// # Errors
    /// [`Error::NotAllocated`], [`Error::Norms`].
    pub(crate) fn part(&self, norms: Norms) -> Result<Plan, Error> {
        if !self.is_allocated() {
            return Err(Error::NotAllocated);
        }
        let mut tensors = Vec::new();
        for (tensor, target) in self.pruned() {
            let expert = (target.experts > 1).then_some(0);
            if norms.get(&tensor.name, expert, target.in_features)? != Lookup::Absent {
                tensors.push(tensor.clone());
            }
        }
        let mut part = self.of_tensors(tensors);
        part.stand_ins = StandIns::of(&norms, part.pruned(), part.score().about_mean)?;
        part.norms = NormsSource::Read(norms.into());
        Ok(Plan(part))
    }
}
