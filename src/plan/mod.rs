//! The plan: what will happen to every tensor of a checkpoint, decided and checked before anything is written.
//!
//! A [`Draft`] reads headers only. It refuses what cannot work (a score without its norms, norms of another model, a glob
//! that matches nothing), so that a run which starts can fail only on the data itself or on the disk. A [`Plan`] is a
//! draft whose norms are there. Neither can be changed afterwards, so nothing is pruned with norms that were not checked.
//!
//! What is decided for a tensor stands on its own row ([`PlannedTensor::action`]): its matrices, its dtype and its
//! selection, which `allocation.rs` makes out of the one that was asked for.

mod allocation;
mod draft;
mod error;
mod few_tokens;
mod left_dense;
mod options;
mod tensors;

use std::ops::Deref;

pub use draft::Draft;
pub use error::Error;
pub use few_tokens::FEW_TOKENS;
pub use left_dense::{DensePattern, DenseReason, LeftDense};
pub use options::{NormsSource, Options};
pub use tensors::{Action, PlannedTensor};

pub use crate::scores::{NormsUse, SCORES, Score};
pub use crate::selection::{Ewma, Pattern, Selection};
pub use crate::targets::{Error as GlobError, Layout, NameFilter, Reason, Target};

use crate::checkpoint::Checkpoint;
use crate::norms::Norms;
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
    /// Every variant of [`Error`] but [`Error::NotMeasured`].
    pub fn new(
        checkpoint: Checkpoint,
        options: Options,
        norms: Option<Norms>,
    ) -> Result<Self, Error> {
        let norms = norms.map_or(NormsSource::None, NormsSource::Read);
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
    ) -> Result<Option<&[f32]>, Error> {
        match self.norms() {
            Some(norms) => match self.0.stand_ins.get(tensor, expert) {
                Some(instead) => Ok(Some(instead)),
                None => draft::lookup(norms, tensor, target, expert),
            },
            None => Ok(None),
        }
    }
}

impl Draft {
    /// The plan, if nothing is left to measure.
    ///
    /// # Errors
    /// [`Error::NotMeasured`].
    pub fn plan(self) -> Result<Plan, Error> {
        match self.norms {
            NormsSource::ToMeasure(_) => Err(Error::NotMeasured),
            _ => Ok(Plan(self)),
        }
    }

    /// The plan with norms that have been measured since the draft was made. Its warnings are the draft's and, behind them,
    /// what the norms have shown.
    ///
    /// # Errors
    /// [`Error::NormsMissing`] and [`Error::Norms`].
    pub fn measured(mut self, norms: Norms) -> Result<Plan, Error> {
        if self.uses_norms() {
            self.stand_ins = StandIns::of(&norms, self.pruned())?;
            let warnings = self.check_measured(&norms, &self.stand_ins)?;
            self.warnings.extend(warnings);
        }
        self.norms = NormsSource::Read(norms);
        Ok(Plan(self))
    }
}
