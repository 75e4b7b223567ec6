//! A sweep: the quality of many ways to prune one model, without writing any of them.
//!
//! Norms and sketches are measured once. Each cell of the table is a plan of its own, whose weights are pruned as the forward
//! pass reads them (`PrunedWeights`), so that a block's weights are held at a time and the
//! perplexity is that of the checkpoint which `prune` would write. Every cell runs on the same windows as the dense model, and
//! the two are paired window by window.
//!
//! Finished cells are kept in a state file (`state.rs`), by a key of all that their numbers depend on (`key.rs`): a sweep that
//! was stopped, or that is asked for more cells, measures what is missing.

mod cells;
mod error;
mod event;
mod inputs;
mod key;
mod measuring;
mod request;
mod state;
mod time_left;

use std::sync::Arc;
use std::time::Instant;

pub use error::Error;
pub use event::SweepEvent;
pub use request::{CompensationRequest, SweepRequest};

use crate::calibration::Calibration;
use crate::checkpoint::Checkpoint;
use crate::evaluation::Windows;
use crate::norms::Norms;
use crate::plan::{Draft, NormsSource, Options};
use crate::report::{SWEEP_SCHEMA_VERSION, SweepCell, SweepReport};
use crate::run::{self, DevicePair, NormsRequest};
use crate::text::{Text, windows_of};
use cells::described;
use inputs::Inputs;
use key::Keys;
use measuring::{Measuring, quality};
use state::State;
use time_left::TimeLeft;

/// Reads a file of finished cells, as a sweep that goes on does: for the tests of hostile files. `true` if it has the cell `c`.
///
/// # Errors
/// [`Error::State`].
#[doc(hidden)]
pub fn read_state(path: &std::path::Path) -> Result<bool, Error> {
    let state = State::open(Some(path))?;
    Ok(state.cell("c").is_some() || state.dense("c").is_some())
}

/// A sweep that is ready: everything that can be wrong with the request has been checked.
#[derive(Debug)]
pub struct PreparedSweep {
    inputs: Inputs,
    warnings: Vec<String>,
}

/// Opens the model and drafts every cell. Nothing is computed or written.
///
/// # Errors
/// [`Error::NothingToDo`], and [`Error::Run`] for what is wrong with the model, the texts or a cell.
pub fn prepare(request: SweepRequest) -> Result<PreparedSweep, Error> {
    let cells = cells::cells(&request)?;
    let checkpoint = Checkpoint::open(&request.model).map_err(run::Error::from)?;
    request.check_state(&checkpoint).map_err(run::Error::from)?;
    let windows = Windows::new(
        &checkpoint,
        &request.text,
        request.context,
        request.eval_tokens,
    )
    .map_err(run::Error::Evaluation)?;
    let wants_norms = cells.iter().any(Options::takes_norms);
    let text = match &request.norms {
        _ if !wants_norms => None,
        NormsRequest::Automatic => Some(Text::calibration()),
        NormsRequest::Measure(text) => Some(text.clone()),
        NormsRequest::Read(_) | NormsRequest::WeightsOnly => None,
    };
    let norms = match &request.norms {
        NormsRequest::Read(path) if wants_norms => {
            let norms = Norms::read(path).map_err(run::Error::from)?;
            Some(Arc::new(norms))
        }
        _ => None,
    };
    let ranks = cells.iter().filter_map(|cell| cell.compensation);
    let rank = ranks.map(|compensation| compensation.rank).max();
    let means = (cells.iter().filter_map(|cell| cell.score)).any(|score| score.about_mean);
    let calibration = match text {
        Some(text) => Some(
            Calibration::new(&checkpoint, text, request.tokens, request.context)
                .map_err(run::Error::Calibration)?
                .with_means(means)
                .with_sketch(rank),
        ),
        None => None,
    };
    let mut warnings = Vec::new();
    let coverage = calibration.as_ref().map(|c| c.coverage(&checkpoint));
    for cell in &cells {
        let source = match (&norms, &coverage) {
            (Some(norms), _) if cell.takes_norms() => NormsSource::Read(Arc::clone(norms)),
            (_, Some(coverage)) if cell.takes_norms() => NormsSource::ToMeasure(coverage.clone()),
            _ => NormsSource::None,
        };
        let draft = Draft::new(checkpoint.clone(), cell.clone(), source);
        let draft = draft.map_err(run::Error::from)?;
        for warning in draft.warnings() {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
    }
    let mut devices =
        DevicePair::open(&request.device, request.threads).map_err(run::Error::from)?;
    devices.prepare_forward().map_err(run::Error::from)?;
    Ok(PreparedSweep {
        inputs: Inputs {
            request,
            checkpoint,
            cells,
            norms,
            calibration,
            windows,
            devices,
        },
        warnings,
    })
}

impl PreparedSweep {
    /// The cells that will be measured, or taken from the state file.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.inputs.cells.len()
    }

    /// The checkpoint.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.inputs.checkpoint
    }

    /// The calibration that will be run if a cell is missing, if there is one.
    #[must_use]
    pub const fn calibration(&self) -> Option<&Calibration> {
        self.inputs.calibration.as_ref()
    }

    /// The windows that perplexity will be measured on.
    #[must_use]
    pub const fn windows(&self) -> &Windows {
        &self.inputs.windows
    }

    /// The devices that will be used.
    #[must_use]
    pub const fn devices(&self) -> &DevicePair {
        &self.inputs.devices
    }

    /// What a user should know before the sweep is run.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// Measures what is missing.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::NothingToDo`].
    pub fn run(self, tell: &(dyn Fn(SweepEvent<'_>) + Sync)) -> Result<SweepReport, Error> {
        let mut state = State::open(self.inputs.request.state.as_deref())?;
        let mut warnings = self.warnings.clone();
        if let Some(warning) = state.warning() {
            tell(SweepEvent::Warning(&warning));
            warnings.push(warning);
        }
        let keys = Keys::new(
            &self.inputs.request,
            &self.inputs.checkpoint,
            &self.inputs.windows,
            self.inputs.calibration.as_ref(),
            &self.inputs.devices.forward().info().to_string(),
        )?;
        let of_cells = self.inputs.cells.iter().map(|cell| keys.of_cell(cell));
        let of_cells: Vec<String> = of_cells.collect();
        let is_missing = |key: &String| state.cell(key).is_none();
        let missing: Vec<bool> = of_cells.iter().map(is_missing).collect();
        let mut measuring = Measuring::new(&self.inputs, warnings, tell);
        let dense = measuring.dense(&mut state, &keys.of_dense())?;
        let norms = if missing.contains(&true) {
            measuring.norms()?
        } else {
            None
        };
        let mut left = TimeLeft::default();
        let mut cells: Vec<SweepCell> = Vec::with_capacity(of_cells.len());
        for (index, key) in of_cells.iter().enumerate() {
            let options = &self.inputs.cells[index];
            let was_known = !missing[index];
            let cell = match state.cell(key).filter(|_| was_known) {
                Some(cell) => cell.clone(),
                None => {
                    tell(SweepEvent::Started {
                        index,
                        what: &described(options),
                    });
                    let start = Instant::now();
                    let mut cell = measuring.cell(options, norms.as_ref(), &dense)?;
                    cell.seconds = start.elapsed().as_secs_f64();
                    left.took(options, start.elapsed());
                    // After a failure the numbers are not those of the device that the key names.
                    if !measuring.device_failed() {
                        state.add_cell(key, &cell)?;
                    }
                    cell
                }
            };
            measuring.done = index + 1;
            let behind = self.inputs.cells.iter().zip(&missing).skip(index + 1);
            let to_do = behind.filter(|(_, missing)| **missing);
            tell(SweepEvent::Measured {
                index,
                cell: &cell,
                was_known,
                left: left.of(to_do.map(|(options, _)| options)),
            });
            cells.push(cell);
        }
        let warnings = measuring.warnings;
        Ok(SweepReport {
            sweep_schema_version: SWEEP_SCHEMA_VERSION,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            command: self.inputs.request.command.clone(),
            model: self
                .inputs
                .checkpoint
                .source
                .weights()
                .path()
                .to_string_lossy()
                .into_owned(),
            device: self.inputs.devices.forward().info().to_string(),
            norms: self.norms_in_a_sentence(),
            text: self.inputs.request.text.name.clone(),
            text_sha256: self.inputs.request.text.sha256(),
            prefix: dense.prefix.to_string(),
            context: dense.context,
            windows: dense.losses.len(),
            tokens: dense.tokens(),
            dense: quality(&dense),
            cells,
            warnings,
        })
    }

    fn norms_in_a_sentence(&self) -> Option<String> {
        let of_calibration = self.inputs.calibration.as_ref().map(|calibration| {
            format!(
                "{}, {} tokens in {}",
                calibration.text().name,
                calibration.tokens(),
                windows_of(calibration.context(), &calibration.prefix().to_string())
            )
        });
        let of_file = || {
            let norms = self.inputs.norms.as_ref()?;
            Some(norms.source.path.to_string_lossy().into_owned())
        };
        of_calibration.or_else(of_file)
    }
}
