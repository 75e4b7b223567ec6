//! What is asked of a sweep.

use std::path::PathBuf;

use crate::calibration::DEFAULT_TOKENS;
use crate::checkpoint::{self, Checkpoint, keep_apart, keep_off_model};
use crate::device::DeviceChoice;
use crate::plan::{Allocation, NameFilter, Score, Selection};
use crate::run::{NormsRequest, Stop};
use crate::text::Text;

/// A sweep as a user asks for it: a cell for each score, each way of compensation, each rule of allocation and each selection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SweepRequest {
    /// The model: a file, an index, a directory, or `org/name` in the local Hugging Face cache.
    pub model: String,
    /// How much goes, and by which rule.
    pub selections: Vec<Selection>,
    /// The scores; `None` is the default for the norms there are.
    pub scores: Vec<Option<&'static Score>>,
    /// Whether and how the weights that stay are compensated.
    pub compensations: Vec<Option<CompensationRequest>>,
    /// How a sparsity is shared out over the blocks. A pattern cannot be, and has one cell whatever stands here.
    pub allocations: Vec<Allocation>,
    /// Which tensors.
    pub targets: NameFilter,
    /// Leave NaN and infinities alone instead of refusing them.
    pub keep_non_finite: bool,
    /// Where the column norms come from.
    pub norms: NormsRequest,
    /// Tokens to calibrate on.
    pub tokens: usize,
    /// Tokens a window, of calibration and evaluation; `None` is 512, or what the model was made for.
    pub context: Option<usize>,
    /// What perplexity is measured on.
    pub text: Text,
    /// The most tokens of it; `None` is all whole windows.
    pub eval_tokens: Option<usize>,
    /// The device that runs the model. Weights are pruned by the CPU, which gives the same bytes.
    pub device: DeviceChoice,
    /// Threads of the CPU; `None` is all cores.
    pub threads: Option<usize>,
    /// Where finished cells are kept; none forgets them.
    pub state: Option<PathBuf>,
    /// The command line, for the report.
    pub command: Vec<String>,
    /// Asks the sweep to stop.
    pub stop: Stop,
}

/// How the weights that stay are compensated for those that go; what is `None` is the default for the selection.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct CompensationRequest {
    /// Columns of the sketch.
    pub rank: Option<usize>,
    /// What is added to every column's norm, of the mean norm.
    pub ridge: Option<f64>,
}

impl SweepRequest {
    /// These selections of `model`, by the default score, on the built-in texts and the best device there is.
    #[must_use]
    pub fn new(model: impl Into<String>, selections: Vec<Selection>) -> Self {
        Self {
            model: model.into(),
            selections,
            scores: vec![None],
            compensations: vec![None],
            allocations: vec![Allocation::Uniform],
            targets: NameFilter::default(),
            keep_non_finite: false,
            norms: NormsRequest::Automatic,
            tokens: DEFAULT_TOKENS,
            context: None,
            text: Text::held_out(),
            eval_tokens: None,
            device: DeviceChoice::Auto,
            threads: None,
            state: None,
            command: Vec::new(),
            stop: Stop::new(),
        }
    }
}

impl SweepRequest {
    /// Checks that the state file is none of what is read.
    ///
    /// # Errors
    /// [`checkpoint::Error::Overlap`].
    pub(super) fn check_state(&self, checkpoint: &Checkpoint) -> Result<(), checkpoint::Error> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        keep_off_model(state, checkpoint)?;
        let text = self.text.path.as_deref();
        let text = text.map(|path| ("the text", path));
        for (role, input) in self.norms.file().into_iter().chain(text) {
            keep_apart(state, role, input)?;
        }
        Ok(())
    }
}

impl CompensationRequest {
    /// With this rank and this ridge.
    #[must_use]
    pub const fn new(rank: Option<usize>, ridge: Option<f64>) -> Self {
        Self { rank, ridge }
    }
}
