//! The work of a sweep: the dense model, the norms, and the cells.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use super::cells::pruned;
use super::error::Error;
use super::event::SweepEvent;
use super::inputs::Inputs;
use super::state::State;
use crate::calibration;
use crate::device::{self, Device};
use crate::evaluation::Evaluation;
use crate::forward::Watch;
use crate::norms::Norms;
use crate::plan::{BlockScores, Draft, NormsSource, Options, Plan};
use crate::prune::{self, PrunedWeights};
use crate::report::{Quality, SweepCell, sparser};
use crate::run;

/// The work of one sweep.
pub(super) struct Measuring<'a> {
    inputs: &'a Inputs,
    tell: &'a (dyn Fn(SweepEvent<'_>) + Sync),
    has_failed: AtomicBool,
    /// What blocks are shared out by, for norms as they are and for norms about the mean.
    block_scores: HashMap<bool, Vec<BlockScores>>,
    /// Cells that are finished.
    pub(super) done: usize,
    /// What was said that only the norms could show.
    pub(super) warnings: Vec<String>,
}

impl<'a> Measuring<'a> {
    pub(super) fn new(
        inputs: &'a Inputs,
        warnings: Vec<String>,
        tell: &'a (dyn Fn(SweepEvent<'_>) + Sync),
    ) -> Self {
        Self {
            inputs,
            tell,
            has_failed: AtomicBool::new(false),
            block_scores: HashMap::new(),
            done: 0,
            warnings,
        }
    }

    /// Whether a device has failed, so that the CPU runs the model in its place.
    pub(super) fn device_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// The losses of the model as it is, from the state file if it has them.
    pub(super) fn dense(&mut self, state: &mut State, key: &str) -> Result<Evaluation, Error> {
        let windows = &self.inputs.windows;
        let known = state.dense(key).and_then(|losses| {
            let device = self.inputs.devices.forward().info().clone();
            windows.measured(losses.clone(), device)
        });
        let dense = match known {
            Some(known) => known,
            None => {
                (self.tell)(SweepEvent::Dense);
                let dense = self.forward(|device, progress| {
                    windows.run(&self.inputs.checkpoint, device, progress)
                });
                let dense = dense?.map_err(run::Error::Evaluation)?;
                if !self.device_failed() {
                    state.add_dense(key, &dense.losses)?;
                }
                dense
            }
        };
        (self.tell)(SweepEvent::DenseMeasured(&quality(&dense)));
        Ok(dense)
    }

    /// The norms of all cells: of the file, or measured now.
    pub(super) fn norms(&self) -> Result<Option<Arc<Norms>>, Error> {
        let Some(calibration) = &self.inputs.calibration else {
            return Ok(self.inputs.norms.clone());
        };
        (self.tell)(SweepEvent::Calibrating);
        let start = Instant::now();
        let norms = self
            .forward(|device, progress| calibration.run(&self.inputs.checkpoint, device, progress));
        let norms = norms?.map_err(run::Error::Calibration)?;
        let elapsed = start.elapsed();
        (self.tell)(SweepEvent::Calibrated { elapsed });
        Ok(Some(norms.into()))
    }

    /// One cell, all but its time.
    pub(super) fn cell(
        &mut self,
        options: &Options,
        norms: Option<&Arc<Norms>>,
        dense: &Evaluation,
    ) -> Result<SweepCell, Error> {
        let plan = self.plan(options, norms)?;
        let inputs = self.inputs;
        let stop = &inputs.request.stop;
        let weights = PrunedWeights::new(&plan, inputs.devices.threads(), stop);
        let weights = weights.map_err(run::Error::from)?;
        let evaluation = self.forward(|device, progress| {
            (inputs.windows).run_with(&inputs.checkpoint, Some(&weights), device, progress)
        })?;
        let evaluation = evaluation.map_err(|error| match error {
            calibration::Error::Forward(error) => match prune::of_overlay(error) {
                Ok(prune::Error::Stopped { .. }) => self.stopped(),
                Ok(error) => run::Error::from(error).into(),
                Err(error) => run::Error::Evaluation(error.into()).into(),
            },
            error => run::Error::Evaluation(error).into(),
        })?;
        weights.check_unchanged().map_err(run::Error::from)?;
        let counts = weights.counts();
        let asked = plan.pruned().map(|(tensor, target)| {
            let weights = target.experts * target.out_features * target.in_features;
            tensor.asked().unwrap_or(f64::NAN) * weights as f64
        });
        if let Some(warning) = sparser("the tensors of the model", &counts, asked.sum()) {
            self.warn(warning);
        }
        let difference = dense.difference(&evaluation);
        let (pruned, rule) = pruned(&options.selection);
        Ok(SweepCell {
            score: plan.score().name.to_owned(),
            rule: rule.to_owned(),
            pruned,
            compensation_rank: options.compensation.map(|compensation| compensation.rank),
            ridge: options.compensation.map(|compensation| compensation.ridge),
            allocation: options.allocation.name().to_owned(),
            spread: options.allocation.spread(),
            sparsity: counts.sparsity(),
            quality: quality(&evaluation),
            difference: difference.map_or(f64::NAN, |difference| difference.mean),
            difference_standard_error: difference.and_then(|difference| difference.standard_error),
            output_error_left: counts.output_error_left(),
            seconds: 0.0,
        })
    }

    /// The plan of a cell, its sparsity shared out where that is asked for.
    fn plan(&mut self, options: &Options, norms: Option<&Arc<Norms>>) -> Result<Plan, Error> {
        let source = match norms {
            Some(norms) if options.takes_norms() => NormsSource::Read(Arc::clone(norms)),
            _ => NormsSource::None,
        };
        let inputs = self.inputs;
        let draft = Draft::new(inputs.checkpoint.clone(), options.clone(), source);
        let mut draft = draft.map_err(run::Error::from)?;
        if !draft.is_allocated() {
            let about_mean = draft.score().about_mean;
            if !self.block_scores.contains_key(&about_mean) {
                let (threads, stop) = (inputs.devices.threads(), &inputs.request.stop);
                let scores = match prune::block_scores(&draft, threads, &|_| (), stop) {
                    Err(prune::Error::Stopped { .. }) => return Err(self.stopped()),
                    scores => scores.map_err(run::Error::from)?,
                };
                self.block_scores.insert(about_mean, scores);
            }
            let allocated = draft.allocated(&self.block_scores[&about_mean]);
            draft = allocated.map_err(run::Error::from)?;
        }
        for warning in draft.warnings() {
            self.warn(warning.clone());
        }
        Ok(draft.plan().map_err(run::Error::from)?)
    }

    /// Says it, unless it was said before.
    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            (self.tell)(SweepEvent::Warning(&warning));
            self.warnings.push(warning);
        }
    }

    /// Runs the model, until somebody asks to stop.
    fn forward<T>(
        &self,
        work: impl Fn(&Device, &Watch<'_>) -> Result<T, calibration::Error>,
    ) -> Result<Result<T, calibration::Error>, Error> {
        let tell = self.tell;
        let failed = |error: &device::Error| {
            self.has_failed.store(true, Ordering::Relaxed);
            tell(SweepEvent::DeviceFailed(&run::by_the_cpu(error)));
        };
        let watch = |at| {
            tell(SweepEvent::Forward(at));
            self.inputs.request.stop.flow()
        };
        let done = (self.inputs.devices).run_forward(|device| work(device, &watch), failed);
        match done {
            Err(error) if error.is_stopped() => Err(self.stopped()),
            done => Ok(done),
        }
    }

    fn stopped(&self) -> Error {
        let request = &self.inputs.request;
        Error::Stopped {
            done: self.done,
            cells: self.inputs.cells.len(),
            state: request.state.clone(),
        }
    }
}

/// Of the losses of one model.
pub(super) fn quality(evaluation: &Evaluation) -> Quality {
    Quality::of_loss(evaluation.mean_loss(), evaluation.standard_error())
}
