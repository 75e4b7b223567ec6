//! Steps that more than one kind of run has.

use std::time::Instant;

use super::error::Error;
use super::event::{Event, Phase};
use crate::plan::Draft;
use crate::prune;
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
