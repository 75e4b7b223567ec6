//! What a report file has beside the numbers of a run: sample rows, column norms and the time of a plain copy.

use std::path::Path;

use crate::checkpoint::{self, Checkpoint};
use crate::plan::Plan;
use crate::prune;
use crate::report::{Report, plain_copy};
use crate::stop::Stop;

/// Why they could not be had; the output is in place.
#[derive(Debug)]
pub(super) enum Details {
    Prune(prune::Error),
    Checkpoint(checkpoint::Error),
    Copy(std::io::Error),
}

/// Adds them to the report of a run whose output is in place. It takes seconds at most, so it does not ask whether to stop.
pub(super) fn add_details(report: &mut Report, plan: &Plan) -> Result<(), Details> {
    let output = Checkpoint::open_path(&report.output).map_err(Details::Checkpoint)?;
    let samples = prune::samples(plan, &output, &Stop::new()).map_err(Details::Prune)?;
    let shard = &plan.checkpoint().shards[0].path;
    let dir = if report.output.is_dir() {
        Some(report.output.as_path())
    } else {
        report.output.parent()
    };
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty());
    let copy = plain_copy(shard, dir.unwrap_or(Path::new("."))).map_err(Details::Copy)?;
    report.add_details(plan, samples, copy);
    Ok(())
}
