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

mod card;
mod details;
mod device_pair;
mod error;
mod event;
mod failures;
mod merge;
mod part;
mod phase_seconds;
mod phases;
mod request;
mod sequential;
mod shards;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::time::{Duration, Instant};

pub use device_pair::DevicePair;
pub(crate) use device_pair::stand_in;
pub use error::Error;
pub use event::{Event, Phase};
pub use merge::{MergeRequest, merge};
pub use part::PartReport;
pub use request::{NormsRequest, Request};

pub use crate::stop::Stop;

use crate::calibration::Calibration;
use crate::checkpoint::{Checkpoint, Output, OutputOptions, Source, Stamp};
use crate::evaluation::{Evaluation, Windows};
use crate::model;
use crate::norms::Norms;
use crate::parts::{self, Part};
use crate::plan::{Draft, NormsSource, Plan};
use crate::prune::{self, Survivors, VerifyError};
use crate::report::{self, EvaluationReport, Report, ReportFile};
use crate::text::Text;
use details::{Details, add_details};
use failures::Failures;
use phase_seconds::Phases;
use phases::{allocated, checksums, timed};
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
    let parts = parts::Directory::of_output(&output);
    let parts = keeps_shards(&request, &checkpoint).then_some(parts.path());
    request.check_places(&checkpoint, &output, parts)?;
    // Before they are read: what is hashed later must be what was read.
    let norms_stamp = match &request.norms {
        NormsRequest::Read(path) => Stamp::at(path).ok(),
        _ => None,
    };
    let (norms, calibration) = norms_source(&request, &checkpoint)?;
    if calibration.is_none() {
        model::check_complete(&checkpoint).map_err(Error::Incomplete)?;
    }
    if request.sequential {
        sequential::check(&request, calibration.is_some())?;
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

/// Where the norms will come from, and the calibration, if one is to be run.
fn norms_source(
    request: &Request,
    checkpoint: &Checkpoint,
) -> Result<(NormsSource, Option<Calibration>), Error> {
    let without = Ok((NormsSource::None, None));
    let is_unused = !request.options.takes_norms();
    let is_lone_file = matches!(checkpoint.source, Source::File(_)) && checkpoint.config.is_none();
    let text = match &request.norms {
        NormsRequest::Read(path) => return Ok((NormsSource::Read(Norms::read(path)?), None)),
        NormsRequest::WeightsOnly => return without,
        _ if is_unused => return without,
        NormsRequest::Automatic if is_lone_file => return without,
        NormsRequest::Automatic => Text::calibration(),
        NormsRequest::Measure(text) => text.clone(),
    };
    let calibration = Calibration::new(checkpoint, text, request.tokens, request.context)
        .map_err(Error::Calibration)?
        .with_means(request.options.score.is_some_and(|score| score.about_mean))
        .with_sketch(request.options.compensation.map(|options| options.rank));
    let output = request.output.clone();
    let output = output.unwrap_or_else(|| checkpoint.default_output());
    let calibration = calibration.with_sketches_beside(&output);
    let coverage = calibration.coverage(checkpoint);
    Ok((NormsSource::ToMeasure(coverage), Some(calibration)))
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
            self.draft = allocated(self.draft, self.devices.threads(), &self.request.stop, tell)?;
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
        let output = request.output_of(draft.checkpoint());
        let directory = shards::directory(draft.checkpoint(), &output, request.overwrite, tell)?;
        request.check_places(draft.checkpoint(), &output, Some(directory.path()))?;
        let known = draft.warnings().len();
        let plan = allocated(draft, devices.threads(), &request.stop, tell)?.plan()?;
        for warning in &plan.warnings()[known..] {
            tell(Event::Warning(warning));
        }
        let given = NormsFile::Given(norms_stamp);
        let keeper = Keeper::begin(&plan, &request, directory, given)?;
        let own = shards::shards_of(plan.checkpoint(), part);
        let finished = match (request.resume, request.overwrite) {
            (true, _) => Finished::Kept,
            (false, true) => Finished::Again,
            (false, false) => Finished::Refused,
        };
        let failures = Failures::default();
        let with = (&devices, &failures, &request.stop);
        let kept = shards::prune_shards(&plan, &keeper, &own, finished, with, tell)?;
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
        let phases = Phases::default();
        let tell = &phases.watching(tell);
        let path = request.output_of(draft.checkpoint());
        let options = OutputOptions::new()
            .overwrite(request.overwrite)
            .sync(request.sync);
        // A run that keeps its shards stages each by itself.
        let (output, parts) = if keeps_shards(&request, draft.checkpoint()) {
            let parts = shards::directory(draft.checkpoint(), &path, request.overwrite, tell)?;
            shards::check_settings(&parts, &draft)?;
            (None, Some(parts))
        } else {
            shards::finish_removal(&parts::Directory::of_output(&path), &path, tell)?;
            let output = Output::create(draft.checkpoint(), &path, &options)?;
            (Some(output), None)
        };

        let failures = Failures::default();
        let known = draft.warnings().len();
        let kept_norms = match (&calibration, &parts) {
            (Some(calibration), Some(parts)) => {
                shards::kept_norms(parts, draft.checkpoint(), calibration, &request, tell)?
            }
            _ => None,
        };
        // What is in the input, of a run that keeps its norms.
        let mut contents = None;
        let draft = match (&calibration, kept_norms) {
            (_, Some((norms, input))) => {
                contents = Some(input);
                draft.measured(norms)?
            }
            (Some(calibration), None) => {
                let measure = || {
                    timed(Phase::Calibrate, tell, || {
                        let watch = |at| {
                            tell(Event::Forward(at));
                            request.stop.flow()
                        };
                        let measured = devices.run_forward(
                            |device| {
                                if !request.sequential {
                                    let norms = calibration.run(draft.checkpoint(), device, &watch);
                                    return norms.map(Ok);
                                }
                                let on = (device, devices.threads(), &request.stop);
                                match sequential::run(calibration, &draft, on, &watch) {
                                    Err(Error::Calibration(error)) => Err(error),
                                    done => Ok(done),
                                }
                            },
                            |error| failures.add(Phase::Calibrate, error, tell),
                        );
                        match measured {
                            Ok(done) => done,
                            Err(error) if error.is_stopped() => Err(Error::Stopped {
                                phase: Phase::Calibrate,
                                output: None,
                            }),
                            Err(error) => Err(Error::Calibration(error)),
                        }
                    })
                };
                let norms = match &parts {
                    Some(parts) => {
                        let (norms, calibrated) =
                            shards::calibrated_meanwhile(draft.checkpoint(), measure)?;
                        shards::keep_norms(parts, &norms, &calibrated)?;
                        contents = Some(calibrated.input);
                        norms
                    }
                    None => measure()?,
                };
                draft.measured(norms)?
            }
            (None, None) => draft,
        };
        let plan = allocated(draft, devices.threads(), &request.stop, tell)?.plan()?;
        for warning in &plan.warnings()[known..] {
            tell(Event::Warning(warning));
        }

        let (mut report, parts) = match (output, parts) {
            (Some(output), _) => {
                let with = (&devices, &failures, &request.stop);
                (prune_whole(&plan, output, with, tell)?, None)
            }
            (None, parts) => {
                let parts = parts.unwrap_or_else(|| parts::Directory::of_output(&path));
                let from = match &contents {
                    Some(contents) => NormsFile::Kept(contents),
                    None => NormsFile::Given(norms_stamp),
                };
                let keeper = Keeper::begin(&plan, &request, parts, from)?;
                let all: Vec<usize> = (0..plan.checkpoint().shards.len()).collect();
                let with = (&devices, &failures, &request.stop);
                shards::prune_shards(&plan, &keeper, &all, Finished::Kept, with, tell)?;
                let directories = [keeper.directory];
                let settings = &keeper.run.settings;
                let complete = parts::complete(&plan, settings, &directories, &request.stop)?;
                // The parts go after it.
                let options = options.sync(true);
                let report = merge::assemble(&plan, &complete, &path, &options)?;
                let [directory] = directories;
                (report, Some((directory, complete)))
            }
        };
        let written = report.output.clone();
        report.command.clone_from(&request.command);
        if let Some((path, _)) = report_files.first() {
            add_details(&mut report, &plan).map_err(|error| match error {
                Details::Prune(error) => Error::Prune(error),
                Details::Checkpoint(error) => Error::Checkpoint(error),
                Details::Copy(error) => report_error(path)(error),
            })?;
        }
        if request.verify {
            let survivors = Survivors::of(plan.options());
            let output = Checkpoint::open_path(&written)?;
            let threads = devices.threads();
            report.verified = Some(timed(Phase::Verify, tell, || {
                let progress = |bytes| tell(Event::Compared(bytes));
                prune::verify_until(&plan, &output, survivors, threads, &progress, &request.stop)
                    .map_err(|error| stopped_or(error, &written))
            })?);
        }
        if request.checksum {
            let sums = checksums(&plan, &written, &request.stop, tell)?;
            if let Some((_, complete)) = &parts {
                complete.check(&written, &sums)?;
            }
            report.sha256 = Some(sums);
        }
        if let Some((text, windows)) = &evaluation {
            let with = (&devices, &failures, &request.stop);
            let (before, after) = evaluate(windows, &plan, &report, with, tell)?;
            report.evaluation = Some(EvaluationReport::new(text, &before, Some(&after)));
        }
        report.device_failures = failures.into_inner();
        report
            .warnings
            .extend(report.device_failures.iter().cloned());
        report.phases = phases.seconds();
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
fn prune_whole(
    plan: &Plan,
    output: Output,
    (devices, failures, stop): (&DevicePair, &Failures, &Stop),
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<Report, Error> {
    let outcome = timed(Phase::Prune, tell, || {
        let progress = |event: prune::PruneEvent<'_>| {
            if let prune::PruneEvent::DeviceFailed(error) = event {
                failures.add(Phase::Prune, error, tell);
            }
            tell(Event::Prune(event));
        };
        prune::prune_until(plan, devices.pruning(), output, &progress, stop)
    })?;
    let report = report::report(plan, devices.pruning().info(), &outcome);
    if outcome.device_failure.is_some() {
        devices.failed();
    }
    Ok(report)
}

/// The perplexity of the original and of the output, on the same windows.
fn evaluate(
    windows: &Windows,
    plan: &Plan,
    report: &Report,
    (devices, failures, stop): (&DevicePair, &Failures, &Stop),
    tell: &(dyn Fn(Event<'_>) + Sync),
) -> Result<(Evaluation, Evaluation), Error> {
    let mut pruned = Checkpoint::open_path(&report.output)?;
    // Beside a single file there is no config.json, or another one's.
    pruned.config.clone_from(&plan.checkpoint().config);
    let measure = |phase, checkpoint| {
        timed(phase, tell, || {
            let watch = |at| {
                tell(Event::Forward(at));
                stop.flow()
            };
            let measured = devices.run_forward(
                |device| windows.run(checkpoint, device, &watch),
                |error| failures.add(phase, error, tell),
            );
            measured.map_err(|error| {
                if error.is_stopped() {
                    Error::Stopped {
                        phase,
                        output: Some(report.output.clone()),
                    }
                } else {
                    Error::Evaluation(error)
                }
            })
        })
    };
    let before = measure(Phase::EvaluateBefore, plan.checkpoint())?;
    let after = measure(Phase::EvaluateAfter, &pruned)?;
    Ok((before, after))
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
