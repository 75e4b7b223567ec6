//! A calibration block by block on what pruned blocks give.
//!
//! The norms of a block make a plan for that block alone, and the model goes on with the weights of that plan. The run that
//! writes the output makes the same weights once more, of the same norms.

use std::sync::{Mutex, PoisonError};

use super::error::Error;
use super::request::{NormsRequest, Request};
use crate::calibration::{self, Calibration, ForwardError, Progress};
use crate::device::Device;
use crate::norms::Norms;
use crate::plan::{self, Draft};
use crate::prune::{self, PrunedWeights};
use crate::stop::Stop;

/// Refuses a request that cannot be run block by block.
pub(super) fn check(request: &Request, calibrates: bool) -> Result<(), Error> {
    if !calibrates {
        return Err(Error::NothingMeasured {
            norms: match &request.norms {
                NormsRequest::Read(path) => Some(path.clone()),
                _ => None,
            },
        });
    }
    if request.options.allocation.needs_scores() {
        return Err(Error::AllocationNeedsAllBlocks {
            allocation: request.options.allocation.name(),
        });
    }
    Ok(())
}

/// What went wrong with pruning a block, which the calibration has no error for.
#[derive(Debug, Default)]
pub(super) struct Broken(Mutex<Option<Error>>);

impl Broken {
    fn set(&self, error: Error) {
        let mut broken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        broken.get_or_insert(error);
    }

    pub(super) fn into_inner(self) -> Option<Error> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Measures the norms of `draft`. Blocks are pruned on so many threads of the CPU, whatever the device: masks are the same on all.
pub(super) fn run(
    calibration: &Calibration,
    draft: &Draft,
    (device, threads, stop): (&Device, usize, &Stop),
    progress: &dyn Fn(Progress),
    broken: &Broken,
) -> Result<Norms, calibration::Error> {
    let failed = |reason: String, error: Error| {
        broken.set(error);
        calibration::Error::Forward(ForwardError::Engine(reason))
    };
    let of_plan = |error: plan::Error| failed(error.to_string(), error.into());
    let of_prune = |error: prune::Error| failed(error.to_string(), error.into());
    calibration.run_on_pruned(draft.checkpoint(), device, progress, &mut |norms, go_on| {
        let plan = draft.part(norms).map_err(of_plan)?;
        let weights = PrunedWeights::new(&plan, threads, stop).map_err(of_prune)?;
        let gone_on = go_on(&weights);
        match weights.failure() {
            Some(error) => Err(of_prune(error)),
            None => Ok(gone_on?),
        }
    })
}
