//! A whole run: calibrate, plan, prune, evaluate, report.
//!
//! [`prepare`] opens the model, drafts the plan and checks all that can be wrong with the request; nothing has been
//! computed or written then, and the [`Prepared`] run can be shown. [`Prepared::run`] does the work and gives the
//! [`Report`]. The command line is a [`Request`] and a way to print [`Event`]s; a program that wants a pruned model needs
//! no more:
//!
//! ```no_run
//! use swiftprune_wgpu::plan::Options;
//! use swiftprune_wgpu::run::{Request, run};
//! use swiftprune_wgpu::plan::{Pattern, Selection};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let two_of_four = Pattern::new(2, 4).ok_or("no such pattern")?;
//! let request = Request::new("my-model", Options::new(Selection::Pattern(two_of_four)));
//! let report = run(request, &|_| ())?;
//! println!("{}: {:.1} % zeros", report.output.display(), 100.0 * report.prunable.sparsity);
//! # Ok(())
//! # }
//! ```

mod calibrate;
mod card;
mod context;
mod device_pair;
mod error;
mod event;
mod merge;
mod request;
mod shards;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{Duration, Instant};

pub use device_pair::DevicePair;
pub(crate) use device_pair::{by_the_cpu, stand_in};
pub use error::Error;
pub use event::{Event, Phase};
pub use merge::{MergeRequest, merge};
pub use request::{NormsRequest, Request};
pub use shards::PartReport;

pub use crate::stop::Stop;

use crate::calibration::Calibration;
use crate::checkpoint::{Checkpoint, Output, Stamp};
use crate::evaluation::{Evaluation, Windows};
use crate::model;
use crate::parts::{self, Directory, Part};
use crate::plan::{Draft, Plan};
use crate::prune::{self, Survivors, VerifyError};
use crate::report::{self, EvaluationReport, Report, ReportFile};
use crate::text::Text;
use context::RunContext;
use shards::{Finished, Keeper, NormsFile};

/// Prepares and runs.
///
/// # Errors
/// Every variant of [`Error`].
pub fn run(request: Request, tell: &(dyn Fn(Event<'_>) + Sync)) -> Result<Report, Error> {
    prepare(request)?.run(tell)
}

/// A run that is ready: everything that can be wrong with the request has been checked.
#[derive(Debug)]
pub struct Prepared {
    request: Request,
    draft: Draft,
    /// Of the file of norms, before it was read.
    norms_stamp: Option<Stamp>,
    calibration: Option<Calibration>,
    devices: DevicePair,
    evaluation: Option<(Text, Windows)>,
}

/// What a run would take.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Estimate {
    /// Bytes of memory while pruning.
    pub memory: u64,
    /// The device's time while pruning, measured on a sample; `None` for a plan without weights, and with compensation.
    pub time: Option<Duration>,
}

/// Opens the model and drafts the plan. Nothing is computed or written.
///
/// # Errors
/// Every variant of [`Error`] but those of pruning and of the report.
pub fn prepare(request: Request) -> Result<Prepared, Error> {
    let checkpoint = Checkpoint::open(&request.model)?;
    // Before a calibration fails for want of it.
    model::check_absent(&checkpoint)?;
    let output = request.output_of(&checkpoint);
    let parts = Directory::of_output(&output);
    let parts = keeps_shards(&request, &checkpoint).then_some(parts.path());
    request.check_places(&checkpoint, &output, parts)?;
    // Before they are read: what is hashed later must be what was read.
    let norms_stamp = match &request.norms {
        NormsRequest::Read(path) => Stamp::at(path).ok(),
        _ => None,
    };
    let (norms, calibration) = calibrate::norms_source(&request, &checkpoint)?;
    if calibration.is_none() {
        model::check_complete(&checkpoint).map_err(Error::Incomplete)?;
    }
    if request.sequential {
        calibrate::check_sequential(&request, calibration.is_some())?;
    }
    let draft = Draft::new(checkpoint, request.options.clone(), norms)?;
    let mut devices = DevicePair::open(&request.device, request.threads)?;
    if calibration.is_some() || request.evaluate {
        devices.prepare_forward()?;
    }
    if request.options.compensation.is_some() {
        devices.prepare_compensation()?;
    }
    let evaluation = if request.evaluate {
        let text = Text::held_out();
        let windows = Windows::new(draft.checkpoint(), &text, request.context, None);
        Some((text, windows.map_err(Error::Evaluation)?))
    } else {
        None
    };
    Ok(Prepared {
        request,
        draft,
        norms_stamp,
        calibration,
        devices,
        evaluation,
    })
}

/// Whether a run keeps its shards one by one: a single file of weights has nothing to keep.
fn keeps_shards(request: &Request, checkpoint: &Checkpoint) -> bool {
    request.resume && !shards::is_single_file(checkpoint)
}

/// Where a run writes to.
enum Destination {
    /// One output, staged as a whole.
    Whole(Box<Output>),
    /// A directory of finished shards, of which the output is made at the end.
    Parts(Directory),
}

impl Destination {
    /// Stages the output at `path`, or finds the directory of its shards, if the run keeps them.
    fn open(
        request: &Request,
        draft: &Draft,
        path: &Path,
        run: &RunContext<'_>,
    ) -> Result<Self, Error> {
        let checkpoint = draft.checkpoint();
        if keeps_shards(request, checkpoint) {
            let parts = shards::directory(checkpoint, path, request.overwrite, run)?;
            shards::check_settings(&parts, draft)?;
            Ok(Self::Parts(parts))
        } else {
            shards::finish_removal(&Directory::of_output(path), path, run)?;
            let output = Output::create(checkpoint, path, &request.output_options())?;
            Ok(Self::Whole(Box::new(output)))
        }
    }

    fn parts(&self) -> Option<&Directory> {
        match self {
            Self::Whole(_) => None,
            Self::Parts(directory) => Some(directory),
        }
    }
}

impl Prepared {
    /// What will happen to every tensor.
    #[must_use]
    pub const fn draft(&self) -> &Draft {
        &self.draft
    }

    /// The calibration that will be run, if there is one.
    #[must_use]
    pub const fn calibration(&self) -> Option<&Calibration> {
        self.calibration.as_ref()
    }

    /// The devices that will be used.
    #[must_use]
    pub const fn devices(&self) -> &DevicePair {
        &self.devices
    }

    /// What pruning would take.
    ///
    /// # Errors
    /// When the sample cannot be read, or the device fails.
    pub fn estimate(&self) -> Result<Estimate, Error> {
        let device = self.devices.pruning();
        Ok(Estimate {
            memory: prune::memory(&self.draft, device),
            time: prune::time(&self.draft, device)?,
        })
    }

    /// The same run with the sparsity shared out over the blocks, as far as the norms are there already: so that
    /// [`Self::draft`] shows every share. [`Self::run`] does so in any case.
    ///
    /// # Errors
    /// When the weights cannot be read, and when the run is asked to stop.
    pub fn allocated(mut self, tell: &(dyn Fn(Event<'_>) + Sync)) -> Result<Self, Error> {
        if self.calibration.is_none() {
            let run = RunContext::new(&self.devices, &self.request.stop, tell);
            self.draft = run.allocated(self.draft)?;
        }
        Ok(self)
    }

    /// Runs one part alone: its shards wait in a directory beside the output until [`merge()`] puts all parts together. Parts may
    /// run at the same time, in other processes and on other machines.
    ///
    /// # Errors
    /// Every variant of [`Error`]; [`Error::PartNeedsNorms`] for a run that would measure its norms itself.
    pub fn run_part(
        self,
        part: Part,
        tell: &(dyn Fn(Event<'_>) + Sync),
    ) -> Result<PartReport, Error> {
        let start = Instant::now();
        let Self {
            request,
            draft,
            norms_stamp,
            calibration,
            devices,
            ..
        } = self;
        shards::check_part(draft.checkpoint(), part)?;
        if calibration.is_some() {
            return Err(Error::PartNeedsNorms);
        }
        let run = RunContext::new(&devices, &request.stop, tell);
        let output = request.output_of(draft.checkpoint());
        let directory = shards::directory(draft.checkpoint(), &output, request.overwrite, &run)?;
        request.check_places(draft.checkpoint(), &output, Some(directory.path()))?;
        let known = draft.warnings().len();
        let plan = run.plan(draft, known)?;
        let given = NormsFile::Given(norms_stamp);
        let keeper = Keeper::begin(&plan, &request, directory, given)?;
        let own = shards::shards_of(plan.checkpoint(), part);
        let finished = match (request.resume, request.overwrite) {
            (true, _) => Finished::Kept,
            (false, true) => Finished::Again,
            (false, false) => Finished::Refused,
        };
        let kept = shards::prune_shards(&plan, &keeper, &own, finished, &run)?;
        let inputs = own.iter().map(|&shard| &plan.checkpoint().shards[shard]);
        Ok(PartReport {
            version: env!("CARGO_PKG_VERSION"),
            part: part.to_string(),
            directory: keeper.directory.path().to_path_buf(),
            files: inputs
                .clone()
                .map(|shard| shard.file_name.clone())
                .collect(),
            kept,
            bytes: inputs.map(|shard| shard.len).sum(),
            seconds: start.elapsed().as_secs_f64(),
        })
    }

    /// Runs. The output appears whole, or not at all.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn run(self, tell: &(dyn Fn(Event<'_>) + Sync)) -> Result<Report, Error> {
        let Self {
            request,
            draft,
            norms_stamp,
            calibration,
            devices,
            evaluation,
        } = self;
        // Staged before the work: a report that cannot be written should not cost a run.
        let mut report_files = Vec::new();
        for path in &request.reports {
            report_files.push((path, ReportFile::create(path, request.overwrite)?));
        }
        let run = RunContext::new(&devices, &request.stop, tell);
        let path = request.output_of(draft.checkpoint());
        let to = Destination::open(&request, &draft, &path, &run)?;
        let known = draft.warnings().len();
        let (draft, contents) = match &calibration {
            Some(of) => calibrate::measured(draft, of, to.parts(), &request, &run)?,
            None => (draft, None),
        };
        let plan = run.plan(draft, known)?;
        let (mut report, parts) = match to {
            Destination::Whole(output) => (prune_whole(&plan, *output, &run)?, None),
            Destination::Parts(directory) => {
                let from = match &contents {
                    Some(contents) => NormsFile::Kept(contents),
                    None => NormsFile::Given(norms_stamp),
                };
                let keeper = Keeper::begin(&plan, &request, directory, from)?;
                let all: Vec<usize> = (0..plan.checkpoint().shards.len()).collect();
                shards::prune_shards(&plan, &keeper, &all, Finished::Kept, &run)?;
                let directories = [keeper.directory];
                let settings = &keeper.run.settings;
                let complete = parts::complete(&plan, settings, &directories, run.stop)?;
                // The parts go after it.
                let options = request.output_options().sync(true);
                let report = merge::assemble(&plan, &complete, &path, &options)?;
                let [directory] = directories;
                (report, Some((directory, complete)))
            }
        };
        let written = report.output.clone();
        report.command.clone_from(&request.command);
        if let Some((path, _)) = report_files.first() {
            add_details(&mut report, &plan, path)?;
        }
        if request.verify {
            let survivors = Survivors::of(plan.options());
            let output = Checkpoint::open_path(&written)?;
            let threads = devices.threads();
            report.verified = Some(run.timed(Phase::Verify, || {
                let progress = |bytes| run.tell(Event::Compared(bytes));
                prune::verify(&plan, &output, survivors, threads, &progress, run.stop)
                    .map_err(|error| stopped_or(error, &written))
            })?);
        }
        if request.checksum {
            let sums = run.checksums(&plan, &written)?;
            if let Some((_, complete)) = &parts {
                complete.check(&written, &sums)?;
            }
            report.sha256 = Some(sums);
        }
        if let Some((text, windows)) = &evaluation {
            let (before, after) = evaluate(windows, &plan, &written, &run)?;
            report.evaluation = Some(EvaluationReport::new(text, &before, Some(&after)));
        }
        let noted = run.noted();
        report
            .warnings
            .extend(noted.device_failures.iter().cloned());
        report.device_failures = noted.device_failures;
        report.phases = noted.seconds;
        if request.card {
            card::write(&mut report, &plan, tell)?;
        }
        for (path, file) in report_files {
            file.write(&report).map_err(report_error(path))?;
        }
        // Last: whatever went wrong with the output, the next run need not do all again.
        if let Some((directory, _)) = parts {
            directory.mark_merged()?;
            directory.finish_removal(&path)?;
        }
        Ok(report)
    }
}

/// Prunes all shards into one staged output.
fn prune_whole(plan: &Plan, output: Output, run: &RunContext<'_>) -> Result<Report, Error> {
    let device = run.devices.pruning();
    let outcome = run.timed(Phase::Prune, || {
        prune::prune(plan, device, output, &|event| run.pruning(event), run.stop)
    })?;
    let report = report::report(plan, device.info(), &outcome);
    if outcome.device_failure.is_some() {
        run.devices.failed();
    }
    Ok(report)
}

/// The perplexity of the original and of the output, on the same windows.
fn evaluate(
    windows: &Windows,
    plan: &Plan,
    output: &Path,
    run: &RunContext<'_>,
) -> Result<(Evaluation, Evaluation), Error> {
    let mut pruned = Checkpoint::open_path(output)?;
    // Beside a single file there is no config.json, or another one's.
    pruned.config.clone_from(&plan.checkpoint().config);
    let measure = |phase, checkpoint| {
        run.timed(phase, || {
            let measured = run.forward(phase, Some(output), |device, watch| {
                windows.run(checkpoint, device, watch)
            });
            measured?.map_err(Error::Evaluation)
        })
    };
    let before = measure(Phase::EvaluateBefore, plan.checkpoint())?;
    let after = measure(Phase::EvaluateAfter, &pruned)?;
    Ok((before, after))
}

/// Adds what a report file has beside the numbers of a run: sample rows, column norms and the time of a plain copy. The output is in
/// place; it takes seconds at most, so it does not ask whether to stop.
fn add_details(report: &mut Report, plan: &Plan, file: &Path) -> Result<(), Error> {
    let output = Checkpoint::open_path(&report.output)?;
    let samples = prune::samples(plan, &output, &Stop::new())?;
    let shard = &plan.checkpoint().shards[0].path;
    let dir = if report.output.is_dir() {
        Some(report.output.as_path())
    } else {
        report.output.parent()
    };
    let dir = dir.filter(|dir| !dir.as_os_str().is_empty());
    let copy = report::plain_copy(shard, dir.unwrap_or(Path::new(".")));
    report.add_details(plan, samples, copy.map_err(report_error(file))?);
    Ok(())
}

/// What went wrong with verifying; a stop says where the output is.
fn stopped_or(error: VerifyError, output: &Path) -> Error {
    match error {
        VerifyError::Stopped => Error::Stopped {
            phase: Phase::Verify,
            output: Some(output.to_path_buf()),
        },
        error => Error::Verify(error),
    }
}

fn report_error(path: &Path) -> impl Fn(std::io::Error) -> Error {
    move |reason| Error::Report {
        path: path.to_path_buf(),
        reason,
    }
}
