//! A calibration block by block on what pruned blocks give.
//!
//! The norms of a block make a plan for that block alone, and the model goes on with the weights of that plan. The run that
//! writes the output makes the same weights once more, of the same norms.

use super::error::Error;
use super::request::{NormsRequest, Request};
use crate::calibration::{Calibration, Watch};
use crate::device::Device;
use crate::norms::Norms;
use crate::plan::Draft;
use crate::prune::PrunedWeights;
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

/// Measures the norms of `draft`. Blocks are pruned on so many threads of the CPU, whatever the device: masks are the same on all.
pub(super) fn run(
    calibration: &Calibration,
    draft: &Draft,
    (device, threads, stop): (&Device, usize, &Stop),
    watch: &Watch<'_>,
) -> Result<Norms, Error> {
    calibration.run_on_pruned(draft.checkpoint(), device, watch, &mut |norms, go_on| {
        let plan = draft.part(norms)?;
        let weights = PrunedWeights::new(&plan, threads, stop)?;
        let gone_on = go_on(&weights);
        match weights.failure() {
            Some(error) => Err(error.into()),
            None => Ok(gone_on?),
        }
    })
}
