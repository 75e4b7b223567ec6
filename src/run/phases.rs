//! Steps that more than one kind of run has.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use super::error::Error;
use super::event::{Event, Phase};
use crate::plan::{Draft, Plan};
use crate::prune;
use crate::report;
use crate::stop::Stop;

/// Tells when a phase starts and when it has succeeded.
pub(super) fn timed<T, E>(
    phase: Phase,
    tell: &(dyn Fn(Event<'_>) + Sync),
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    tell(Event::Started(phase));
    let start = Instant::now();
    let done = work()?;
    let elapsed = start.elapsed();
    tell(Event::Finished { phase, elapsed });
    Ok(done)
}

/// The draft with its sparsity shared out, for which the scores of all weights may have to be counted.
pub(super) fn allocated(
    draft: Draft,
    threads: usize,
    stop: &Stop,
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Draft, Error> {
    if draft.is_allocated() {
        return Ok(draft);
    }
    let scores = timed(Phase::Allocate, tell, || {
        let progress = |bytes| tell(Event::Scored(bytes));
        prune::block_scores(&draft, threads, &progress, stop)
    });
    Ok(draft.allocated(&scores?)?)
}

/// The SHA-256 of each file of weights of an output that is in place, which is read back.
pub(super) fn checksums(
    plan: &Plan,
    output: &Path,
    stop: &Stop,
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<BTreeMap<String, String>, Error> {
    timed(Phase::Checksum, tell, || {
        let sums = report::checksums(plan, output, stop).map_err(|reason| Error::Checksum {
            path: output.to_path_buf(),
            reason,
        })?;
        sums.ok_or_else(|| Error::Stopped {
            phase: Phase::Checksum,
            output: Some(output.to_path_buf()),
        })
    })
}
