//! Parts of a run, put together to what a single run would have written.

use std::path::{Path, PathBuf};

use super::card;
use super::context::RunContext;
use super::device_pair::DevicePair;
use super::error::Error;
use super::event::Event;
use super::request::check_reports;
use super::shards;
use crate::checkpoint::{
    self, Checkpoint, Output, OutputOptions, Source, Stamp, keep_apart, same_file,
};
use crate::device::DeviceChoice;
use crate::norms::Norms;
use crate::parts::{self, Complete, Content, Directory, InputRecord, RunRecord, Settings};
use crate::plan::{Draft, NormsSource, Plan};
use crate::report::{self, Report, ReportFile};
use crate::stop::Stop;

/// What is asked of a merge. [`MergeRequest::new`] has the defaults; every field can be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MergeRequest {
    /// The output that appears.
    pub output: PathBuf,
    /// Directories that hold parts; none is `OUTPUT.parts`.
    pub from: Vec<PathBuf>,
    /// The model; `None` is where the parts say that it was.
    pub model: Option<String>,
    /// The file of norms; `None` is where the parts say that it was.
    pub norms: Option<PathBuf>,
    /// Replace an existing output. The input is never written to.
    pub overwrite: bool,
    /// Flush the output to disk before moving it into place, also where the parts are kept. Where they are removed, it is flushed
    /// in any case.
    pub sync: bool,
    /// Add the SHA-256 of each weight file to the report.
    pub checksum: bool,
    /// Leave the parts where they are.
    pub keep: bool,
    /// Add a section to the output's README.md, and report.json beside it.
    pub card: bool,
    /// A file to write the report to, as JSON.
    pub report: Option<PathBuf>,
    /// The command line, for the report.
    pub command: Vec<String>,
    /// Threads of the CPU; `None` is all cores.
    pub threads: Option<usize>,
    /// Asks the merge to stop.
    pub stop: Stop,
}

impl MergeRequest {
    /// Merges the parts that wait in `OUTPUT.parts`.
    #[must_use]
    pub fn new(output: impl Into<PathBuf>) -> Self {
        Self {
            output: output.into(),
            from: Vec::new(),
            model: None,
            norms: None,
            overwrite: false,
            sync: false,
            checksum: false,
            keep: false,
            card: true,
            report: None,
            command: Vec::new(),
            threads: None,
            stop: Stop::new(),
        }
    }
}

/// Puts the parts of a run together: weights, index, everything else of the model directory, and the report. The output
/// appears whole, or not at all, and the parts are removed after. Byte for byte it is what a single run writes.
///
/// # Errors
/// [`Error::Parts`] for parts that are missing or do not fit together, and [`parts::Error::Merged`] where an earlier merge was
/// killed while it removed them; [`Error::Checkpoint`], [`Error::Norms`], [`Error::Plan`]
/// and [`Error::Report`].
pub fn merge(request: &MergeRequest, tell: &(dyn Fn(Event<'_>) + Sync)) -> Result<Report, Error> {
    let output = &request.output;
    let directories = directories(request)?;
    let mut removed = None;
    for directory in &directories {
        if directory.finish_removal(output)? {
            removed = Some(directory.path().to_path_buf());
        }
    }
    let run = match (run_of(&directories, output), removed) {
        (Err(Error::Parts(parts::Error::NoParts { .. })), Some(directory)) => {
            let output = output.clone();
            return Err(parts::Error::Merged { output, directory }.into());
        }
        (run, _) => run?,
    };
    let checkpoint = model_of(&run, request)?;
    let norms = request.norms.clone();
    let norms = norms.or_else(|| run.norms.as_deref().map(PathBuf::from));
    check_places(request, &directories, &checkpoint, norms.as_deref())?;
    Output::check_place(&checkpoint, output, request.overwrite)
        .map_err(|error| shards::exists(error, output, &directories[0]))?;
    // Staged before the work: a report that cannot be written should cost none.
    let report_file = match &request.report {
        Some(path) => Some(ReportFile::create(path, request.overwrite)?),
        None => None,
    };
    // It prunes nothing, and takes no adapter.
    let devices = DevicePair::open(&DeviceChoice::Cpu, request.threads)?;
    let context = RunContext::new(&devices, &request.stop, tell);
    let plan = plan_of(&run, checkpoint, norms, request, &context)?;
    let here = RunRecord {
        input: InputRecord::of_all(plan.checkpoint()),
        ..run.clone()
    };
    directories[0].same_run(&run, &here)?;
    let complete = parts::complete(&plan, &run.settings, &directories, &request.stop)?;
    // What parts were copied to is on the disk before they go.
    let options = OutputOptions::new()
        .overwrite(request.overwrite)
        .sync(request.sync || !request.keep);
    let mut report = assemble(&plan, &complete, output, &options)?;
    report.command.clone_from(&request.command);
    if request.checksum {
        let sums = context.checksums(&plan, output)?;
        complete.check(output, &sums)?;
        report.sha256 = Some(sums);
    }
    if request.card {
        card::write(&mut report, &plan, tell)?;
    }
    if let Some(file) = report_file {
        file.write(&report).map_err(report_error(request))?;
    }
    if !request.keep {
        // All before any is removed: should the removal be killed, each says what it is.
        for directory in &directories {
            directory.mark_merged()?;
        }
        for directory in &directories {
            directory.finish_removal(output)?;
        }
    }
    Ok(report)
}

/// The model that the parts were made of, as a directory: a model directory of one file is merged as that directory.
fn model_of(run: &RunRecord, request: &MergeRequest) -> Result<Checkpoint, Error> {
    let model = request.model.as_deref().unwrap_or(&run.model);
    let checkpoint = Checkpoint::open(model)?;
    let Source::File(path) = &checkpoint.source else {
        return Ok(checkpoint);
    };
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let directory = Checkpoint::open_path(above.unwrap_or(Path::new(".")))?;
    if same_file(directory.source.weights().path(), path) {
        Ok(directory)
    } else {
        Err(parts::Error::SingleFile { path: path.clone() }.into())
    }
}

/// Checks that what is written leaves alone what is read.
fn check_places(
    request: &MergeRequest,
    directories: &[Directory],
    checkpoint: &Checkpoint,
    norms: Option<&Path>,
) -> Result<(), checkpoint::Error> {
    let output = &request.output;
    let parts: Vec<&Path> = directories.iter().map(Directory::path).collect();
    for directory in &parts {
        keep_apart(output, "the parts", directory)?;
    }
    if let Some(norms) = norms {
        keep_apart(output, "the norms", norms)?;
    }
    let norms = norms.map(|path| ("the norms", path));
    check_reports(
        request.report.as_slice(),
        (output, &parts),
        checkpoint,
        norms,
    )
}

/// Makes the output of finished parts, and its report.
///
/// # Errors
/// [`Error::Parts`].
pub(super) fn assemble(
    plan: &Plan,
    complete: &Complete,
    output: &Path,
    options: &OutputOptions,
) -> Result<Report, Error> {
    let outcome = complete.assemble(plan, output, options)?;
    let mut report = report::report(plan, complete.device(), &outcome);
    report.device_failures = complete.device_failures();
    report
        .warnings
        .extend(report.device_failures.iter().cloned());
    Ok(report)
}

/// The directories that hold the parts, each once.
fn directories(request: &MergeRequest) -> Result<Vec<Directory>, Error> {
    if request.from.is_empty() {
        return Ok(vec![Directory::of_output(&request.output)]);
    }
    let mut all: Vec<Directory> = Vec::new();
    for path in &request.from {
        let directory = Directory::at(path);
        if !all.iter().any(|other| other.is_same(&directory)) {
            all.push(directory);
        }
    }
    Ok(all)
}

/// The run that all directories hold parts of.
fn run_of(directories: &[Directory], output: &Path) -> Result<RunRecord, Error> {
    let mut run: Option<RunRecord> = None;
    for directory in directories {
        let found = directory.run()?.ok_or_else(|| parts::Error::NoParts {
            output: output.to_path_buf(),
            directory: directory.path().to_path_buf(),
        })?;
        match &run {
            Some(first) => directory.same_run(&found, first)?,
            None => run = Some(found),
        }
    }
    run.ok_or_else(|| {
        let output = output.to_path_buf();
        parts::Error::NoParts {
            directory: output.clone(),
            output,
        }
        .into()
    })
}

/// The plan that the parts were made by.
fn plan_of(
    run: &RunRecord,
    checkpoint: Checkpoint,
    norms: Option<PathBuf>,
    request: &MergeRequest,
    context: &RunContext<'_>,
) -> Result<Plan, Error> {
    if let (None, Some(norms)) = (&run.settings.norms_sha256, &request.norms) {
        let norms = norms.clone();
        return Err(parts::Error::NormsUnused { norms }.into());
    }
    let (source, sum) = match (&run.settings.norms_sha256, norms) {
        (Some(_), Some(path)) => {
            let before = Stamp::at(&path).ok();
            let sum = Content::read(&path, &request.stop)?.sha256;
            let norms = Norms::read(&path)?;
            if Stamp::at(&path).ok() != before {
                return Err(checkpoint::Error::Changed { path }.into());
            }
            (NormsSource::Read(norms.into()), Some(sum))
        }
        _ => (NormsSource::None, None),
    };
    let draft = Draft::new(checkpoint, run.settings.options(), source)?;
    // Says which of version, norms and options is not the one of the parts.
    let ours = Settings::of(&draft, sum);
    let differences = run.settings.differences(&ours);
    if !differences.is_empty() {
        return Err(parts::Error::OtherSettings {
            path: Directory::of_output(&request.output).run_path(),
            differences,
        }
        .into());
    }
    let draft = context.allocated(draft)?;
    Ok(draft.plan()?)
}

fn report_error(request: &MergeRequest) -> impl Fn(std::io::Error) -> Error {
    let path = request.report.clone().unwrap_or_default();
    move |reason| Error::Report {
        path: path.clone(),
        reason,
    }
}
