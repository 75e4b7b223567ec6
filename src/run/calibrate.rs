//! The norms of a run: where they come from, and how they are measured.

use super::context::RunContext;
use super::error::Error;
use super::event::Phase;
use super::request::{NormsRequest, Request};
use super::shards;
use crate::calibration::{self, Calibration, Watch};
use crate::checkpoint::{Checkpoint, Source};
use crate::device::Device;
use crate::norms::Norms;
use crate::parts::{Content, Directory};
use crate::plan::{Draft, NormsSource};
use crate::prune::{self, PrunedWeights};
use crate::text::Text;

/// Where the norms will come from, and the calibration, if one is to be run.
///
/// # Errors
/// [`Error::Norms`], [`Error::Calibration`].
pub(super) fn norms_source(
    request: &Request,
    checkpoint: &Checkpoint,
) -> Result<(NormsSource, Option<Calibration>), Error> {
    let without = Ok((NormsSource::None, None));
    let is_unused = !request.options.takes_norms();
    let is_lone_file = matches!(checkpoint.source, Source::File(_)) && checkpoint.config.is_none();
    let text = match &request.norms {
        NormsRequest::Read(path) => {
            let norms = Norms::read(path)?;
            return Ok((NormsSource::Read(norms.into()), None));
        }
        NormsRequest::WeightsOnly => return without,
        _ if is_unused => return without,
        NormsRequest::Automatic if is_lone_file => return without,
        NormsRequest::Automatic => Text::calibration(),
        NormsRequest::Measure(text) => text.clone(),
    };
    let calibration = Calibration::new(checkpoint, text, request.tokens, request.context)
        .map_err(Error::Calibration)?
        .with_means(request.options.score.is_some_and(|score| score.about_mean))
        .with_sketch(request.options.compensation.map(|options| options.rank))
        .with_sketches_beside(&request.output_of(checkpoint));
    let coverage = calibration.coverage(checkpoint);
    Ok((NormsSource::ToMeasure(coverage), Some(calibration)))
}

/// Refuses a request that cannot be run block by block.
///
/// # Errors
/// [`Error::NothingMeasured`], [`Error::AllocationNeedsAllBlocks`].
pub(super) fn check_sequential(request: &Request, calibrates: bool) -> Result<(), Error> {
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

/// The draft with measured norms, and, of a run that keeps them in `parts`, what is in the files of weights that they were
/// measured on. Norms that an earlier run has kept there are taken if they are the same.
///
/// # Errors
/// [`Error::Calibration`], [`Error::Stopped`], [`Error::Parts`], [`Error::Plan`].
pub(super) fn measured(
    draft: Draft,
    calibration: &Calibration,
    parts: Option<&Directory>,
    request: &Request,
    run: &RunContext<'_>,
) -> Result<(Draft, Option<Vec<Content>>), Error> {
    let measure = || measure(&draft, calibration, request, run);
    let Some(parts) = parts else {
        let norms = measure()?;
        return Ok((draft.measured(norms)?, None));
    };
    let kept = shards::kept_norms(parts, draft.checkpoint(), calibration, request, run)?;
    let (norms, contents) = match kept {
        Some(kept) => kept,
        None => {
            let (norms, calibrated) = shards::calibrated_meanwhile(draft.checkpoint(), measure)?;
            shards::keep_norms(parts, &norms, &calibrated)?;
            (norms, calibrated.input)
        }
    };
    Ok((draft.measured(norms)?, Some(contents)))
}

fn measure(
    draft: &Draft,
    calibration: &Calibration,
    request: &Request,
    run: &RunContext<'_>,
) -> Result<Norms, Error> {
    let work = |device: &Device, watch: &Watch<'_>| {
        if !request.sequential {
            return calibration.run(draft.checkpoint(), device, watch).map(Ok);
        }
        match on_pruned(calibration, draft, device, run, watch) {
            Err(Error::Calibration(error)) => Err(error),
            done => Ok(done),
        }
    };
    run.timed(Phase::Calibrate, || {
        let done: Result<Result<Norms, Error>, calibration::Error> =
            run.forward(Phase::Calibrate, None, work)?;
        done.map_err(Error::Calibration)?
    })
}

/// Measures the norms of each block on what the blocks before it give once they are pruned. The norms of a block make a plan for
/// that block alone, and the model goes on with the weights of that plan. Blocks are pruned on the CPU, whatever the device: masks are
/// the same on all. The run that writes the output makes the same weights once more, of the same norms.
fn on_pruned(
    calibration: &Calibration,
    draft: &Draft,
    device: &Device,
    run: &RunContext<'_>,
    watch: &Watch<'_>,
) -> Result<Norms, Error> {
    calibration.run_on_pruned(draft.checkpoint(), device, watch, &mut |norms, go_on| {
        let plan = draft.part(norms)?;
        let weights = PrunedWeights::new(&plan, run.devices.threads(), run.stop)?;
        go_on(&weights).map_err(|error| match prune::of_overlay(error) {
            Ok(error) => error.into(),
            Err(error) => error.into(),
        })
    })
}
