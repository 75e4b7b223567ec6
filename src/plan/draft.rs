//! The draft of a plan: everything that headers and the request can tell, checked before any work.

use super::allocation;
use super::error::Error;
use super::few_tokens::{FEW_TOKENS, StandIns};
use super::left_dense::LeftDense;
use super::options::{NormsSource, Options};
use super::tensors::{Action, PlannedTensor};
use crate::checkpoint::Checkpoint;
use crate::dtype::Dtype;
use crate::norms::{Lookup, Norms};
use crate::recipe::MAX_IN_FEATURES;
use crate::scores::{self, SCORES, Score};
use crate::selection::Selection;
use crate::targets::{self, Decision, Reason, Target};
use crate::untrusted::shown;

/// A checkpoint, and what will happen to each of its tensors; its norms may still have to be measured.
///
/// A draft cannot be changed: what it says has been checked. [`Draft::plan`] or [`Draft::measured`] makes it a
/// [`Plan`](super::Plan), which can be run.
#[derive(Debug)]
pub struct Draft {
    checkpoint: Checkpoint,
    options: Options,
    pub(super) norms: NormsSource,
    /// Instead of the norms of experts that saw few tokens.
    pub(super) stand_ins: StandIns,
    score: &'static Score,
    tensors: Vec<PlannedTensor>,
    left_dense: Option<LeftDense>,
    pub(super) warnings: Vec<String>,
}

impl Draft {
    /// Decides what happens to every tensor, and checks all that headers and norms can tell.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::NotMeasured`].
    pub fn new(
        checkpoint: Checkpoint,
        options: Options,
        norms: NormsSource,
    ) -> Result<Self, Error> {
        let has_norms = !matches!(norms, NormsSource::None);
        let score = options.score.unwrap_or_else(|| default_score(has_norms));
        if score.norms == scores::NormsUse::Required && !has_norms {
            return Err(Error::NormsRequired { score: score.name });
        }
        let tensors = decide(&checkpoint, &options)?;
        let left_dense = LeftDense::of(&tensors).filter(|_| !options.targets.has_include());
        let mut draft = Self {
            checkpoint,
            options,
            norms,
            stand_ins: StandIns::default(),
            score,
            tensors,
            left_dense,
            warnings: Vec::new(),
        };
        if let (NormsSource::Read(norms), true) = (&draft.norms, draft.uses_norms()) {
            draft.stand_ins = StandIns::of(norms, draft.pruned())?;
        }
        let of_norms = draft.check_norms()?;
        let of_targets = draft.check_targets()?;
        draft.warnings = of_norms.into_iter().chain(of_targets).collect();
        Ok(draft)
    }

    /// What is read.
    #[must_use]
    pub const fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// What is asked for.
    #[must_use]
    pub const fn options(&self) -> &Options {
        &self.options
    }

    /// Where the norms come from.
    #[must_use]
    pub const fn norms_source(&self) -> &NormsSource {
        &self.norms
    }

    /// The score that was settled on.
    #[must_use]
    pub const fn score(&self) -> &'static Score {
        self.score
    }

    /// Every tensor, shard by shard, in the order of the bytes.
    #[must_use]
    pub fn tensors(&self) -> &[PlannedTensor] {
        &self.tensors
    }

    /// What stays dense of the decoder because no rule knows its names; `None` where tensors were chosen by name.
    #[must_use]
    pub const fn left_dense(&self) -> Option<&LeftDense> {
        self.left_dense.as_ref()
    }

    /// What a user should know before the plan is run.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The tensors that are pruned.
    pub fn pruned(&self) -> impl Iterator<Item = (&PlannedTensor, &Target)> + Clone {
        self.tensors
            .iter()
            .filter_map(|tensor| Some((tensor, tensor.target()?)))
    }

    /// Whether norms have a part in the score.
    #[must_use]
    pub fn uses_norms(&self) -> bool {
        !matches!(self.norms, NormsSource::None) && self.score.norms != scores::NormsUse::Unused
    }

    /// Bytes of the tensors that are pruned.
    #[must_use]
    pub fn bytes_pruned(&self) -> u64 {
        self.pruned().map(|(tensor, _)| tensor.len).sum()
    }

    /// Bytes of the whole output.
    #[must_use]
    pub fn bytes_total(&self) -> u64 {
        self.checkpoint.shards.iter().map(|shard| shard.len).sum()
    }

    /// Holds the norms, or what will be measured, against the tensors that are pruned; warns of what is second best.
    fn check_norms(&self) -> Result<Vec<String>, Error> {
        let name = self.score.name;
        match &self.norms {
            NormsSource::None if self.score.norms != scores::NormsUse::Unused => Ok(vec![format!(
                "no column norms: {name} uses the weights alone, and quality will be much worse"
            )]),
            NormsSource::None => Ok(Vec::new()),
            _ if self.score.norms == scores::NormsUse::Unused => {
                Ok(vec![format!("the score {name} does not use the norms")])
            }
            NormsSource::Read(norms) => self.check_measured(norms, &self.stand_ins),
            NormsSource::ToMeasure(coverage) => {
                for (tensor, target) in self.pruned() {
                    if coverage.in_features.get(&tensor.name) != Some(&target.in_features) {
                        return Err(Error::NormsMissing {
                            norms: coverage.model.clone(),
                            tensor: tensor.name.clone(),
                        });
                    }
                }
                Ok(Vec::new())
            }
        }
    }

    /// Holds norms against the tensors that are pruned, and warns of those that few tokens or none reached.
    pub(super) fn check_measured(
        &self,
        norms: &Norms,
        stand_ins: &StandIns,
    ) -> Result<Vec<String>, Error> {
        let mut warnings = Vec::new();
        if stand_ins.few > 0 {
            warnings.push(format!(
                "{} of {} experts saw fewer than {FEW_TOKENS} tokens: their layer's mean was used; calibrate on more text",
                stand_ins.few, stand_ins.all
            ));
        }
        let mut unseen = Vec::new();
        for (tensor, target) in self.pruned() {
            for expert in 0..target.experts {
                let own = lookup(norms, &tensor.name, target, expert)?;
                if own.is_none() && stand_ins.get(&tensor.name, expert).is_none() {
                    unseen.push(if target.experts > 1 {
                        format!("{} (expert {expert})", shown(&tensor.name))
                    } else {
                        shown(&tensor.name).to_string()
                    });
                }
            }
        }
        let Some(first) = unseen.first() else {
            return Ok(warnings);
        };
        let others = match unseen.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        warnings.push(format!(
            "no calibration token reached {first}{others}: pruned without norms; use a longer calibration text"
        ));
        Ok(warnings)
    }

    fn check_targets(&self) -> Result<Vec<String>, Error> {
        let model_type = || self.checkpoint.model_type().map(str::to_owned);
        let mut warnings = Vec::new();
        if let Some(left_dense) = &self.left_dense {
            if left_dense.share() > 0.5 {
                return Err(Error::MostlyUnknown {
                    left_dense: left_dense.clone(),
                    model_type: model_type(),
                });
            }
            warnings.push(format!(
                "left dense: {left_dense}, names that no rule knows"
            ));
        }
        if self.pruned().next().is_none() {
            return Err(Error::NothingToPrune {
                model_type: model_type(),
            });
        }
        let undecided: Vec<&str> = self
            .tensors
            .iter()
            .filter(|tensor| matches!(tensor.action, Action::Copy(Reason::AxisUnknown)))
            .map(|tensor| tensor.name.as_str())
            .collect();
        if let Some(first) = undecided.first() {
            warnings.push(format!(
                "{} tensors are not pruned, starting with {}: {}",
                undecided.len(),
                shown(first),
                Reason::AxisUnknown
            ));
        }
        if let Selection::Pattern(pattern) = self.options.selection {
            let m = pattern.m() as usize;
            let short = self
                .pruned()
                .filter(|(_, target)| target.in_features % m != 0)
                .count();
            if short > 0 {
                warnings.push(format!(
                    "in {short} tensors in_features is not a multiple of {m}: the last group of each row is shorter and \
                     keeps up to {}",
                    pattern.n()
                ));
            }
        }
        Ok(warnings)
    }
}

/// The norms of one matrix; `None` where no calibration token reached it.
pub(super) fn lookup<'a>(
    norms: &'a Norms,
    tensor: &str,
    target: &Target,
    expert: usize,
) -> Result<Option<&'a [f32]>, Error> {
    let expert = (target.experts > 1).then_some(expert);
    match norms.get(tensor, expert, target.in_features)? {
        Lookup::Absent => Err(Error::NormsMissing {
            norms: norms.source.path.clone(),
            tensor: tensor.to_owned(),
        }),
        Lookup::Unseen => Ok(None),
        Lookup::Measured(norms) => Ok(norms.iter().any(|&n| n != 0.0).then_some(norms)),
    }
}

fn decide(checkpoint: &Checkpoint, options: &Options) -> Result<Vec<PlannedTensor>, Error> {
    let selection = allocation::uniform(options.selection)?;
    let model = checkpoint
        .config
        .as_ref()
        .map(targets::Model::from_config)
        .unwrap_or_default();
    let described: Vec<targets::Tensor<'_>> = checkpoint
        .tensors()
        .map(|(_, tensor)| targets::Tensor {
            name: &tensor.name,
            dtype: tensor.dtype,
            shape: &tensor.shape,
        })
        .collect();
    let decided = targets::decide(&described, &model, &options.targets);
    for (list, uses) in [("include", &decided.include), ("exclude", &decided.exclude)] {
        if let Some(unused) = uses.iter().find(|glob| glob.matched == 0) {
            return Err(Error::GlobMatchesNothing {
                list,
                glob: unused.glob.clone(),
            });
        }
    }
    let mut tensors = Vec::with_capacity(decided.decisions.len());
    for ((shard, tensor), decision) in checkpoint.tensors().zip(decided.decisions) {
        let file = || checkpoint.shards[shard].path.clone();
        let action = match (decision, Dtype::from_stored(tensor.dtype)) {
            (Decision::Skip(reason), _) => Action::Copy(reason),
            (Decision::Prune(target), Some(dtype)) => {
                if target.in_features > MAX_IN_FEATURES {
                    return Err(Error::RowTooLong {
                        file: file(),
                        tensor: tensor.name.clone(),
                        in_features: target.in_features,
                    });
                }
                Action::Prune {
                    target,
                    dtype,
                    selection,
                }
            }
            (Decision::Prune(_) | Decision::Unsupported { .. }, _) => {
                return Err(Error::UnsupportedDtype {
                    file: file(),
                    tensor: tensor.name.clone(),
                    dtype: format!("{:?}", tensor.dtype),
                });
            }
        };
        tensors.push(PlannedTensor {
            shard,
            name: tensor.name.clone(),
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            offset: tensor.offset,
            len: tensor.len,
            action,
        });
    }
    Ok(tensors)
}

fn default_score(has_norms: bool) -> &'static Score {
    let fits = |score: &&Score| has_norms || score.norms == scores::NormsUse::Optional;
    SCORES.iter().find(fits).unwrap_or(&SCORES[0])
}
