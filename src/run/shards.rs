//! A run shard by shard: which are to be pruned, which are kept.

use std::path::{Path, PathBuf, absolute};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde::Serialize;

use super::context::RunContext;
use super::error::Error;
use super::event::{Event, Phase};
use super::request::Request;
use crate::calibration::Calibration;
use crate::checkpoint::{self, Checkpoint, Output, Source, Stamp};
use crate::norms::{Format, Norms};
use crate::parts::{
    self, CalibratedRecord, Content, Directory, InputRecord, Part, RunRecord, Settings, State,
};
use crate::plan::{Draft, Plan};
use crate::prune;
use crate::stop::Stop;
use crate::untrusted::{shown, shown_path};

/// What one part of a run has done.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct PartReport {
    /// Version of this program.
    pub version: &'static str,
    /// Which part, as K/N.
    pub part: String,
    /// Where its files wait to be merged.
    pub directory: PathBuf,
    /// Its files of weights.
    pub files: Vec<String>,
    /// How many of them were finished before, and kept.
    pub kept: usize,
    /// Bytes of its files.
    pub bytes: u64,
    /// Wall time in seconds, hashing and flushing included.
    pub seconds: f64,
}

/// Whether the checkpoint is one file of weights, beside which there is no place for an index or a config.json.
pub(super) fn is_single_file(checkpoint: &Checkpoint) -> bool {
    matches!(checkpoint.source, Source::File(_))
}

/// Checks that a checkpoint can be cut into so many parts.
pub(super) fn check_part(checkpoint: &Checkpoint, part: Part) -> Result<(), parts::Error> {
    if is_single_file(checkpoint) {
        return Err(parts::Error::SingleFile {
            path: checkpoint.source.weights().path().to_path_buf(),
        });
    }
    let shards = checkpoint.shards.len();
    if part.of() > shards {
        Err(parts::Error::TooManyParts {
            parts: part.of(),
            shards,
        })
    } else {
        Ok(())
    }
}

/// The shards of a part.
pub(super) fn shards_of(checkpoint: &Checkpoint, part: Part) -> Vec<usize> {
    let bytes: Vec<u64> = checkpoint.shards.iter().map(|shard| shard.len).collect();
    part.shards(&bytes)
}

/// Where the parts of an output wait, if the output may be written at all. What a killed run has left of a directory that it was
/// removing is removed.
pub(super) fn directory(
    checkpoint: &Checkpoint,
    output: &Path,
    overwrite: bool,
    run: &RunContext<'_>,
) -> Result<Directory, Error> {
    let directory = Directory::of_output(output);
    finish_removal(&directory, output, run)?;
    match Output::check_place(checkpoint, output, overwrite) {
        Ok(()) => Ok(directory),
        Err(error) => Err(exists(error, output, &directory).into()),
    }
}

/// Removes what a killed run has left of a directory of parts that it was removing, and tells so.
pub(super) fn finish_removal(
    directory: &Directory,
    output: &Path,
    run: &RunContext<'_>,
) -> Result<(), Error> {
    if directory.finish_removal(output)? {
        let (output, directory) = (output.to_path_buf(), directory.path().to_path_buf());
        let merged = parts::Error::Merged { output, directory };
        run.warn(&merged.to_string());
    }
    Ok(())
}

/// An error that says so where the output is in place, and its parts are, too.
pub(super) fn exists(
    error: checkpoint::Error,
    output: &Path,
    directory: &Directory,
) -> parts::Error {
    let is_there = matches!(error, checkpoint::Error::OutputExists { .. });
    if is_there && directory.run().is_ok_and(|run| run.is_some()) {
        parts::Error::OutputExists {
            output: output.to_path_buf(),
            directory: directory.path().to_path_buf(),
        }
    } else {
        error.into()
    }
}

/// Checks before any work that what an earlier run has kept is of the same settings, as far as they are known without norms.
///
/// # Errors
/// [`parts::Error::OtherSettings`].
pub(super) fn check_settings(directory: &Directory, draft: &Draft) -> Result<(), Error> {
    let Some(there) = directory.run()? else {
        return Ok(());
    };
    let ours = Settings::of(draft, there.settings.norms_sha256.clone());
    let differences = there.settings.differences(&ours);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(parts::Error::OtherSettings {
            path: directory.run_path(),
            differences,
        }
        .into())
    }
}

/// What a run that keeps its shards is, and where it keeps them.
pub(super) struct Keeper {
    pub directory: Directory,
    pub run: RunRecord,
    /// What is in the input's files of weights, as far as that is known.
    known: Vec<Content>,
}

/// Where the norms of a run that keeps its shards come from.
#[derive(Clone, Copy)]
pub(super) enum NormsFile<'a> {
    /// A file, which had this stamp before it was read.
    Given(Option<Stamp>),
    /// They were measured on weights with these contents, and are kept.
    Kept(&'a [Content]),
}

impl Keeper {
    /// Hashes the norms, and says in the directory what run it is for, or checks that it is for this one.
    ///
    /// # Errors
    /// [`Error::Parts`].
    pub(super) fn begin(
        plan: &Plan,
        request: &Request,
        directory: Directory,
        from: NormsFile<'_>,
    ) -> Result<Self, Error> {
        // Also those that the score has no use for: the rule of allocation may go by them.
        let norms = match (plan.given_norms(), from) {
            (None, _) => None,
            (Some(_), NormsFile::Kept(_)) => Some(directory.norms()),
            (Some(norms), NormsFile::Given(_)) => Some(norms.source.path.clone()),
        };
        let sha256 = match &norms {
            Some(path) => Some(Content::read(path, &request.stop)?.sha256),
            None => None,
        };
        if let (Some(path), NormsFile::Given(Some(read))) = (&norms, from)
            && Stamp::at(path).ok() != Some(read)
        {
            let path = path.clone();
            return Err(checkpoint::Error::Changed { path }.into());
        }
        let run = RunRecord {
            settings: Settings::of(plan, sha256),
            model: whole(plan.checkpoint().source.path()),
            norms: norms.as_deref().map(whole),
            input: InputRecord::of_all(plan.checkpoint()),
        };
        directory.begin(&run)?;
        let known = match from {
            NormsFile::Given(_) => Vec::new(),
            NormsFile::Kept(known) => known.to_vec(),
        };
        Ok(Self {
            directory,
            run,
            known,
        })
    }
}

/// An absolute path as text.
fn whole(path: &Path) -> String {
    let whole = absolute(path).unwrap_or_else(|_| path.to_path_buf());
    whole.to_string_lossy().into_owned()
}

/// The norms that an interrupted run has measured and left in the directory, and what is in the files of weights, on which they
/// were measured.
///
/// # Errors
/// [`parts::Error::OtherSettings`] and [`parts::Error::OtherInput`] if they were measured otherwise; [`Error::Norms`].
pub(super) fn kept_norms(
    directory: &Directory,
    checkpoint: &Checkpoint,
    calibration: &Calibration,
    request: &Request,
    run: &RunContext<'_>,
) -> Result<Option<(Norms, Vec<Content>)>, Error> {
    let path = directory.norms();
    if !path.exists() {
        return Ok(None);
    }
    let Some(calibrated) = directory.calibrated()? else {
        let path = shown_path(&path);
        run.warn(&format!(
            "{path} is measured again: it is not recorded which weights it was measured on"
        ));
        return Ok(None);
    };
    // Those depend on all settings, which are checked where there is a record of the run.
    if request.sequential && directory.run()?.is_none() {
        return Ok(None);
    }
    let rank = request.options.compensation.map(|options| options.rank);
    let mut norms = Norms::read(&path)?;
    let said = |key: &str| norms.source.metadata.get(key).cloned().unwrap_or_default();
    let tokens = norms.source.tokens.unwrap_or(0);
    let rank_of = |rank: Option<usize>| rank.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let pairs = [
        ("text", said("text_sha256"), calibration.text().sha256()),
        (
            "context",
            said("context"),
            calibration.context().to_string(),
        ),
        ("prefix", said("prefix"), calibration.prefix().to_string()),
        (
            "tokens",
            tokens.to_string(),
            calibration.tokens().to_string(),
        ),
        (
            "order of blocks",
            order(norms.source.metadata.contains_key("sequential")),
            order(request.sequential),
        ),
        (
            "rank of the sketches",
            rank_of(norms.sketch_rank()),
            rank_of(rank),
        ),
    ];
    let differences: Vec<String> = pairs
        .into_iter()
        .filter(|(_, theirs, ours)| theirs != ours)
        .map(|(what, theirs, ours)| {
            let theirs = shown(&theirs).to_string();
            format!("the {what} of the calibration is {theirs}, not {ours}")
        })
        .collect();
    if !differences.is_empty() {
        return Err(parts::Error::OtherSettings { path, differences }.into());
    }
    if let Some(what) = calibrated.difference(checkpoint, &request.stop)? {
        let path = directory.calibrated_path();
        return Err(parts::Error::OtherInput { path, what }.into());
    }
    norms.source.format = Format::Measured;
    norms.source.path = checkpoint.source.weights().path().to_path_buf();
    Ok(Some((norms, calibrated.input)))
}

/// Measures norms, and hashes what they are measured on meanwhile.
pub(super) fn calibrated_meanwhile(
    checkpoint: &Checkpoint,
    measure: impl FnOnce() -> Result<Norms, Error>,
) -> Result<(Norms, CalibratedRecord), Error> {
    let in_vain = Stop::new();
    std::thread::scope(|scope| {
        let hashing = scope.spawn(|| CalibratedRecord::of(checkpoint, &in_vain));
        let norms = measure();
        if norms.is_err() {
            in_vain.request();
        }
        match hashing.join() {
            Ok(calibrated) => Ok((norms?, calibrated?)),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// How blocks are calibrated, in words.
fn order(is_sequential: bool) -> String {
    let order = if is_sequential {
        "sequential"
    } else {
        "all at once"
    };
    order.to_owned()
}

/// Keeps norms that were measured, for a run that goes on.
pub(super) fn keep_norms(
    directory: &Directory,
    norms: &Norms,
    calibrated: &CalibratedRecord,
) -> Result<(), Error> {
    directory.make()?;
    // In this order: norms without the record of what they were measured on are not believed, and a record of newer weights
    // must not stand beside older norms.
    directory.forget_norms()?;
    directory.keep_calibrated(calibrated)?;
    Ok(norms.write(&directory.norms())?)
}

/// What is done with shards that are finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finished {
    /// They are kept, if they are right.
    Kept,
    /// They are refused.
    Refused,
    /// They are pruned again.
    Again,
}

/// Prunes those of `shards` that are not finished; tells how many were kept.
///
/// # Errors
/// [`Error::Prune`], [`Error::Parts`], [`Error::Interrupted`].
pub(super) fn prune_shards(
    plan: &Plan,
    keeper: &Keeper,
    shards: &[usize],
    finished: Finished,
    run: &RunContext<'_>,
) -> Result<usize, Error> {
    let (directory, settings) = (&keeper.directory, &keeper.run.settings);
    let inputs = &plan.checkpoint().shards;
    let mut left = Vec::new();
    for &shard in shards {
        let path = directory.shard(&inputs[shard].file_name);
        match (
            parts::state(plan, shard, settings, directory, run.stop)?,
            finished,
        ) {
            (State::Missing, _) | (State::Finished(_), Finished::Again) => left.push(shard),
            (State::Finished(_), Finished::Kept) => {}
            (State::Finished(_), Finished::Refused) => {
                return Err(parts::Error::Finished { path }.into());
            }
            (State::Wrong(problem), _) => {
                let path = shown_path(&path);
                run.warn(&format!("{path} is pruned again: {problem}"));
                left.push(shard);
            }
        }
    }
    let kept = shards.len() - left.len();
    if kept > 0 {
        let of = shards.len();
        run.tell(Event::Kept { kept, of });
    }
    let done = AtomicUsize::new(kept);
    let interrupted = || Error::Interrupted {
        finished: done.load(Ordering::Relaxed),
        shards: shards.len(),
        directory: directory.path().to_path_buf(),
    };
    let pruned: Result<(), Error> = run.timed(Phase::Prune, || {
        let known = keeper.known.as_slice();
        parts::prune_shards(
            plan,
            settings,
            (directory, known),
            &left,
            |shard, output| {
                if run.stop.is_requested() {
                    return Err(interrupted());
                }
                let device = run.devices.pruning();
                let progress = |event: prune::PruneEvent<'_>| run.pruning(event);
                let outcome = prune::prune_shard(plan, shard, device, output, &progress, run.stop);
                let outcome = outcome.map_err(|error| match error {
                    prune::Error::Stopped { .. } => interrupted(),
                    error => error.into(),
                })?;
                let info = device.info().clone();
                if outcome.device_failure.is_some() {
                    run.devices.failed();
                }
                done.fetch_add(1, Ordering::Relaxed);
                Ok((outcome, info))
            },
        )
    });
    pruned.map(|()| kept)
}
