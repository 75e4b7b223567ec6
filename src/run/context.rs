//! What the steps of a run share: its devices, whoever is told of it, whether it is to stop, and what it notes on its way.

use std::collections::BTreeMap;
use std::path::Path;

use parking_lot::Mutex;

use std::time::Instant;

use super::device_pair::{DevicePair, by_the_cpu};
use super::error::Error;
use super::event::{Event, Phase};
use crate::calibration::{self, Watch};
use crate::device::{self, Device};
use crate::plan::{Draft, Plan};
use crate::prune::{self, PruneEvent};
use crate::report;
use crate::stop::Stop;

/// A run under way.
pub(super) struct RunContext<'r> {
    pub(super) devices: &'r DevicePair,
    pub(super) stop: &'r Stop,
    tell: &'r (dyn Fn(Event<'_>) + Sync),
    noted: Mutex<Noted>,
}

/// What a report has of how a run went.
#[derive(Default)]
pub(super) struct Noted {
    /// What devices have failed at, and what was done about it.
    pub(super) device_failures: Vec<String>,
    /// Seconds by phase.
    pub(super) seconds: BTreeMap<&'static str, f64>,
}

impl<'r> RunContext<'r> {
    pub(super) fn new(
        devices: &'r DevicePair,
        stop: &'r Stop,
        tell: &'r (dyn Fn(Event<'_>) + Sync),
    ) -> Self {
        Self {
            devices,
            stop,
            tell,
            noted: Mutex::default(),
        }
    }

    /// Tells what happens.
    pub(super) fn tell(&self, event: Event<'_>) {
        (self.tell)(event);
    }

    /// Tells what a user should know.
    pub(super) fn warn(&self, warning: &str) {
        self.tell(Event::Warning(warning));
    }

    /// What was noted so far.
    pub(super) fn noted(self) -> Noted {
        self.noted.into_inner()
    }

    fn note(&self, note: impl FnOnce(&mut Noted)) {
        note(&mut self.noted.lock());
    }

    /// Tells when a phase starts and when it has succeeded.
    pub(super) fn timed<T, E>(
        &self,
        phase: Phase,
        work: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.tell(Event::Started(phase));
        let start = Instant::now();
        let done = work()?;
        let elapsed = start.elapsed();
        let name = match phase {
            Phase::Calibrate => "calibrate",
            Phase::Allocate => "allocate",
            Phase::Prune => "prune",
            Phase::Verify => "verify",
            Phase::Checksum => "checksum",
            Phase::EvaluateBefore | Phase::EvaluateAfter => "evaluate",
        };
        self.note(|noted| *noted.seconds.entry(name).or_default() += elapsed.as_secs_f64());
        self.tell(Event::Finished { phase, elapsed });
        Ok(done)
    }

    /// Runs the model, by the CPU from the start where another device fails.
    ///
    /// # Errors
    /// Those of `work`; a stop as one of the phase, with the output that is in place.
    pub(super) fn forward<T>(
        &self,
        phase: Phase,
        output: Option<&Path>,
        work: impl Fn(&Device, &Watch<'_>) -> Result<T, calibration::Error>,
    ) -> Result<Result<T, calibration::Error>, Error> {
        let watch = |at| {
            self.tell(Event::Forward(at));
            self.stop.flow()
        };
        let done = self.devices.run_forward(
            |device| work(device, &watch),
            |error| self.device_failed(phase, error),
        );
        match done {
            Err(error) if error.is_stopped() => Err(Error::Stopped {
                phase,
                output: output.map(Path::to_path_buf),
            }),
            done => Ok(done),
        }
    }

    /// Tells what pruning comes to.
    pub(super) fn pruning(&self, event: PruneEvent<'_>) {
        if let PruneEvent::DeviceFailed(error) = event {
            self.device_failed(Phase::Prune, error);
        }
        self.tell(Event::Prune(event));
    }

    fn device_failed(&self, phase: Phase, error: &device::Error) {
        let what = match phase {
            Phase::Prune => {
                format!("{error}. The CPU does the rest of the pruning, and the bytes are the same")
            }
            _ => by_the_cpu(error),
        };
        self.tell(Event::DeviceFailed { phase, what: &what });
        self.note(|noted| noted.device_failures.push(what));
    }

    /// The draft with its sparsity shared out, for which the scores of all weights may have to be counted.
    ///
    /// # Errors
    /// [`Error::Prune`], [`Error::Plan`].
    pub(super) fn allocated(&self, draft: Draft) -> Result<Draft, Error> {
        if draft.is_allocated() {
            return Ok(draft);
        }
        let scores = self.timed(Phase::Allocate, || {
            let progress = |bytes| self.tell(Event::Scored(bytes));
            prune::block_scores(&draft, self.devices.threads(), &progress, self.stop)
        });
        Ok(draft.allocated(&scores?)?)
    }

    /// The plan of a draft; the warnings behind the first `known` ones are told.
    ///
    /// # Errors
    /// As [`Self::allocated`].
    pub(super) fn plan(&self, draft: Draft, known: usize) -> Result<Plan, Error> {
        let plan = self.allocated(draft)?.plan()?;
        for warning in &plan.warnings()[known..] {
            self.warn(warning);
        }
        Ok(plan)
    }

    /// The SHA-256 of each file of weights of an output that is in place, which is read back.
    ///
    /// # Errors
    /// [`Error::Checksum`], [`Error::Stopped`].
    pub(super) fn checksums(
        &self,
        plan: &Plan,
        output: &Path,
    ) -> Result<BTreeMap<String, String>, Error> {
        self.timed(Phase::Checksum, || {
            let sums = report::checksums(plan, output, self.stop);
            let sums = sums.map_err(|reason| Error::Checksum {
                path: output.to_path_buf(),
                reason,
            })?;
            sums.ok_or_else(|| Error::Stopped {
                phase: Phase::Checksum,
                output: Some(output.to_path_buf()),
            })
        })
    }
}
