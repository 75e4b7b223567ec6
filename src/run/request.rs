//! What is asked of a run.

use std::path::{Path, PathBuf};

use crate::calibration::DEFAULT_TOKENS;
use crate::checkpoint::{self, Checkpoint, OutputOptions, keep_apart, keep_off_model};
use crate::device::DeviceChoice;
use crate::plan::Options;
use crate::stop::Stop;
use crate::text::Text;

/// A run as a user asks for it. [`Request::new`] has the defaults; every field can be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The model: a file, an index, a directory, or `org/name` in the local Hugging Face cache.
    pub model: String,
    /// Where to write; `None` is beside the model, with `-pruned` in its name.
    pub output: Option<PathBuf>,
    /// What to prune, by which score and rule.
    pub options: Options,
    /// Where the column norms come from.
    pub norms: NormsRequest,
    /// Tokens to calibrate on.
    pub tokens: usize,
    /// Tokens a window, of calibration and evaluation; `None` is 512, or what the model was made for.
    pub context: Option<usize>,
    /// Calibrate each block on what the blocks before it give once they are pruned, and compensated.
    pub sequential: bool,
    /// The device.
    pub device: DeviceChoice,
    /// Threads of the CPU; `None` is all cores.
    pub threads: Option<usize>,
    /// Replace an existing output. The input is never written to.
    pub overwrite: bool,
    /// Flush the output to disk before moving it into place.
    pub sync: bool,
    /// Prune shard by shard, keep the finished ones if the run ends early, and begin with those that an earlier run has kept.
    /// A single file of weights has nothing to keep.
    pub resume: bool,
    /// Measure the perplexity before and after, on the built-in held-out text.
    pub evaluate: bool,
    /// Hold the output against the original afterwards, read from the disk.
    pub verify: bool,
    /// Add the SHA-256 of each weight file to the report.
    pub checksum: bool,
    /// Add a section to the README.md of an output directory, and write report.json beside it.
    pub card: bool,
    /// Files to write the report to: as a page if the name ends in `.html`, else as JSON.
    pub reports: Vec<PathBuf>,
    /// The command line, for the report.
    pub command: Vec<String>,
    /// Asks the run to stop.
    pub stop: Stop,
}

/// Where the column norms of a run come from. A score that has no use for them skips the calibration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum NormsRequest {
    /// The model is calibrated on the built-in text. A single file of weights without a config.json beside it is not a
    /// model that can be run: its score uses the weights alone. Any other model that cannot be calibrated is an error.
    Automatic,
    /// The model is calibrated on this text; one that cannot be is an error.
    Measure(Text),
    /// They are read from a file.
    Read(PathBuf),
    /// The score uses the weights alone.
    WeightsOnly,
}

impl NormsRequest {
    /// The file that is read for the norms, if there is one, and what to call it.
    pub(crate) fn file(&self) -> Option<(&'static str, &Path)> {
        match self {
            Self::Read(path) => Some(("the norms", path)),
            Self::Measure(text) => Some(("the calibration text", text.path.as_deref()?)),
            Self::Automatic | Self::WeightsOnly => None,
        }
    }
}

impl Request {
    /// Where the output goes.
    pub(super) fn output_of(&self, checkpoint: &Checkpoint) -> PathBuf {
        let output = self.output.clone();
        output.unwrap_or_else(|| checkpoint.default_output())
    }

    /// How the output is written.
    pub(super) fn output_options(&self) -> OutputOptions {
        let options = OutputOptions::new().overwrite(self.overwrite);
        options.sync(self.sync)
    }

    /// Checks that what is written leaves alone what is read, and that nothing is written twice; `parts` is where finished
    /// shards are kept, if they are.
    ///
    /// # Errors
    /// [`checkpoint::Error::Overlap`].
    pub(super) fn check_places(
        &self,
        checkpoint: &Checkpoint,
        output: &Path,
        parts: Option<&Path>,
    ) -> Result<(), checkpoint::Error> {
        if let Some((role, input)) = self.norms.file() {
            for written in [Some(output), parts].into_iter().flatten() {
                keep_apart(written, role, input)?;
            }
        }
        check_reports(
            &self.reports,
            (output, parts.as_slice()),
            checkpoint,
            self.norms.file(),
        )
    }
    /// Prunes `model` as `options` say, with norms measured on the built-in text, on the best device there is.
    #[must_use]
    pub fn new(model: impl Into<String>, options: Options) -> Self {
        Self {
            model: model.into(),
            output: None,
            options,
            norms: NormsRequest::Automatic,
            tokens: DEFAULT_TOKENS,
            context: None,
            sequential: false,
            device: DeviceChoice::Auto,
            threads: None,
            overwrite: false,
            sync: false,
            resume: false,
            evaluate: false,
            verify: false,
            checksum: false,
            card: true,
            reports: Vec::new(),
            command: Vec::new(),
            stop: Stop::new(),
        }
    }
}

/// Checks that reports replace nothing that the same run reads or writes, and lie in nothing that goes: the output, which is put
/// in place as a whole, and the parts.
///
/// # Errors
/// [`checkpoint::Error::Overlap`].
pub(super) fn check_reports(
    reports: &[PathBuf],
    (output, parts): (&Path, &[&Path]),
    checkpoint: &Checkpoint,
    norms: Option<(&'static str, &Path)>,
) -> Result<(), checkpoint::Error> {
    for (number, report) in reports.iter().enumerate() {
        keep_apart(report, "the output", output)?;
        for parts in parts {
            keep_apart(report, "the parts of the output", parts)?;
        }
        keep_off_model(report, checkpoint)?;
        if let Some((role, input)) = norms {
            keep_apart(report, role, input)?;
        }
        for other in &reports[..number] {
            keep_apart(report, "another report", other)?;
        }
    }
    Ok(())
}
