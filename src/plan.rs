//! The plan: what will happen to every tensor of a checkpoint, decided and checked before anything is written.
//!
//! Making a plan reads headers only. It refuses what cannot work (a score without its norms, a norm vector of another
//! model, a glob that names nothing), so that a run which starts can only fail on the data itself or on the disk.

use crate::checkpoint::{Checkpoint, shown};
use crate::dtype::Dtype;
use crate::norms::{self, Lookup, Norms};
use crate::recipe::MAX_IN_FEATURES;
use crate::scores::{self, SCORES, Score};
use crate::selection::Selection;
use crate::targets::{self, Decision, Layout, Reason, Target};

/// What is asked for.
#[derive(Debug)]
#[non_exhaustive]
pub struct Options {
    /// How many weights go, and by which rule.
    pub selection: Selection,
    /// The score; `None` takes `swiftprune` with norms and `ria` without.
    pub score: Option<&'static Score>,
    /// Column norms of the activations.
    pub norms: Option<Norms>,
    /// Which tensors.
    pub targets: targets::Selection,
    /// Leave NaN and infinities alone instead of refusing them.
    pub keep_non_finite: bool,
    /// Also add up `sum dW^2 / sum W^2`.
    pub squared_error: bool,
}

impl Options {
    /// The defaults: the best score there are norms for, on the linear weights of the decoder blocks.
    #[must_use]
    pub fn new(selection: Selection) -> Self {
        Self {
            selection,
            score: None,
            norms: None,
            targets: targets::Selection::default(),
            keep_non_finite: false,
            squared_error: false,
        }
    }
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A sparsity outside 0 to 1, or a lambda outside -16 to 16.
    #[error("{what} {value} is impossible: it must lie {range}")]
    OutOfRange {
        /// `sparsity` or `lambda`.
        what: &'static str,
        /// What was asked.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// The score is not defined without norms.
    #[error(
        "the score {score} needs column norms of the activations: let the model be calibrated (--calibration builtin), give \
         --norms FILE (from `calibrate`, or a llama.cpp importance matrix), or take --score ria, which works without"
    )]
    NormsRequired {
        /// The score.
        score: &'static str,
    },
    /// The norms have nothing for a tensor that is to be pruned.
    #[error(
        "{}: no norms for tensor {}: they are of another model or incomplete (calibration measures the decoder blocks' linear \
         weights); leave the tensor out with --exclude, or take --calibration none and --score ria",
        norms.display(), shown(tensor)
    )]
    NormsMissing {
        /// The norms file.
        norms: std::path::PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// The norms do not fit a tensor.
    #[error(transparent)]
    Norms(#[from] norms::Error),
    /// A target's dtype cannot be pruned.
    #[error(
        "{}: tensor {} is {dtype:?}, and only BF16, F16 and F32 can be pruned: leave it out with --exclude {}, or convert \
         the checkpoint first",
        file.display(), shown(tensor), shown(tensor)
    )]
    UnsupportedDtype {
        /// The file.
        file: std::path::PathBuf,
        /// The tensor.
        tensor: String,
        /// Its dtype.
        dtype: safetensors::Dtype,
    },
    /// A target has more weights a row than the passes' integer widths allow.
    #[error(
        "{}: tensor {} has {in_features} in_features, and {MAX_IN_FEATURES} is the most a row may have: leave it out with \
         --exclude {}",
        file.display(), shown(tensor), shown(tensor)
    )]
    RowTooLong {
        /// The file.
        file: std::path::PathBuf,
        /// The tensor.
        tensor: String,
        /// Weights a row.
        in_features: usize,
    },
    /// A glob names nothing.
    #[error(
        "{option} {} names no tensor that could be pruned; `--dry-run` lists them all",
        shown(glob)
    )]
    GlobMatchesNothing {
        /// `--include` or `--exclude`.
        option: &'static str,
        /// The glob.
        glob: String,
    },
    /// Nothing would be pruned.
    #[error(
        "nothing in this checkpoint would be pruned{hint}; `--dry-run` says why for each tensor, --include GLOB overrides"
    )]
    NothingToPrune {
        /// What may help.
        hint: String,
    },
}

/// What happens to a tensor.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Action {
    /// It is pruned.
    Prune {
        /// How it lies.
        target: Target,
        /// How its weights are stored.
        dtype: Dtype,
    },
    /// Its bytes are copied.
    Copy(Reason),
}

/// One tensor of the plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PlannedTensor {
    /// The shard it lies in.
    pub shard: usize,
    /// Its name (a stranger's words: escape before printing).
    pub name: String,
    /// Its dtype as safetensors names it.
    pub dtype: safetensors::Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its first byte in the shard's file.
    pub offset: u64,
    /// Its bytes.
    pub len: u64,
    /// What happens to it.
    pub action: Action,
}

/// A checkpoint, and what will happen to each of its tensors.
#[derive(Debug)]
#[non_exhaustive]
pub struct Plan {
    /// What is read.
    pub checkpoint: Checkpoint,
    /// What is asked for.
    pub options: Options,
    /// The score that was settled on.
    pub score: &'static Score,
    /// Every tensor, shard by shard, in the order of the bytes.
    pub tensors: Vec<PlannedTensor>,
    /// What a user should know before it runs.
    pub warnings: Vec<String>,
}

impl Plan {
    /// Decides and checks everything that headers and norms can tell.
    ///
    /// # Errors
    /// Every variant of [`Error`].
    pub fn new(checkpoint: Checkpoint, options: Options) -> Result<Self, Error> {
        check_ranges(&options.selection)?;
        let score = options
            .score
            .unwrap_or_else(|| default_score(options.norms.is_some()));
        if score.norms == scores::NormsUse::Required && options.norms.is_none() {
            return Err(Error::NormsRequired { score: score.name });
        }

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
        let decided = targets::plan(&described, &model, &options.targets);
        for (option, uses) in [
            ("--include", &decided.include),
            ("--exclude", &decided.exclude),
        ] {
            if let Some(unused) = uses.iter().find(|glob| glob.matched == 0) {
                return Err(Error::GlobMatchesNothing {
                    option,
                    glob: unused.glob.clone(),
                });
            }
        }

        let mut plan = Self {
            score,
            tensors: Vec::new(),
            warnings: Vec::new(),
            checkpoint,
            options,
        };
        let mut tensors = Vec::new();
        for ((shard, tensor), decision) in plan.checkpoint.tensors().zip(decided.decisions) {
            let file = || plan.checkpoint.shards[shard].path.clone();
            let action = match (decision, Dtype::from_safetensors(tensor.dtype)) {
                (Decision::Skip(reason), _) => Action::Copy(reason),
                (Decision::Prune(target), Some(dtype)) => {
                    if target.in_features > MAX_IN_FEATURES {
                        return Err(Error::RowTooLong {
                            file: file(),
                            tensor: tensor.name.clone(),
                            in_features: target.in_features,
                        });
                    }
                    Action::Prune { target, dtype }
                }
                (Decision::Prune(_) | Decision::Unsupported { .. }, _) => {
                    return Err(Error::UnsupportedDtype {
                        file: file(),
                        tensor: tensor.name.clone(),
                        dtype: tensor.dtype,
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
        plan.tensors = tensors;
        plan.check_norms()?;
        plan.check_targets()?;
        Ok(plan)
    }

    /// The same plan with norms that have been measured since it was made.
    ///
    /// # Errors
    /// Those of [`Plan::new`] that are about norms.
    pub fn with_norms(mut self, norms: Norms) -> Result<Self, Error> {
        self.options.norms = Some(norms);
        self.warnings.clear();
        self.check_norms()?;
        self.check_targets()?;
        Ok(self)
    }

    /// The tensors that are pruned.
    pub fn pruned(&self) -> impl Iterator<Item = (&PlannedTensor, &Target)> {
        self.tensors
            .iter()
            .filter_map(|tensor| match &tensor.action {
                Action::Prune { target, .. } => Some((tensor, target)),
                Action::Copy(_) => None,
            })
    }

    /// Whether norms have a part in the score.
    #[must_use]
    pub fn uses_norms(&self) -> bool {
        self.options.norms.is_some() && self.score.norms != scores::NormsUse::Unused
    }

    /// The norms of one matrix; `None` when the score goes without.
    ///
    /// # Errors
    /// [`Error::NormsMissing`] and [`Error::Norms`]; a plan that was made has none left.
    pub(crate) fn norms_of(
        &self,
        tensor: &str,
        target: &Target,
        expert: usize,
    ) -> Result<Option<Lookup<'_>>, Error> {
        let Some(norms) = self
            .options
            .norms
            .as_ref()
            .filter(|_| self.score.norms != scores::NormsUse::Unused)
        else {
            return Ok(None);
        };
        match norms.get(
            tensor,
            (target.experts > 1).then_some(expert),
            target.in_features,
        )? {
            Lookup::Absent => Err(Error::NormsMissing {
                norms: norms.source.path.clone(),
                tensor: tensor.to_owned(),
            }),
            found => Ok(Some(found)),
        }
    }

    fn check_norms(&mut self) -> Result<(), Error> {
        let mut unseen = Vec::new();
        for (tensor, target) in self.pruned() {
            for expert in 0..target.experts {
                let found = self.norms_of(&tensor.name, target, expert)?;
                let nothing = match found {
                    Some(Lookup::Measured(norms)) => norms.iter().all(|&n| n == 0.0),
                    Some(_) => true,
                    None => false,
                };
                if nothing {
                    unseen.push(if target.experts > 1 {
                        format!("{} (expert {expert})", shown(&tensor.name))
                    } else {
                        shown(&tensor.name).to_string()
                    });
                }
            }
        }
        if let Some(first) = unseen.first() {
            let others = match unseen.len() - 1 {
                0 => String::new(),
                n => format!(" and {n} more"),
            };
            self.warnings.push(format!(
                "no calibration token reached {first}{others}: pruned by the weights alone; calibrate on more text"
            ));
        }
        if self.options.norms.is_some() && self.score.norms == scores::NormsUse::Unused {
            self.warnings.push(format!(
                "the score {} does not use the norms",
                self.score.name
            ));
        }
        if self.options.norms.is_none() && self.score.norms != scores::NormsUse::Unused {
            self.warnings.push(format!(
                "no column norms of activations: the score is {} on the weights alone, which costs much quality",
                self.score.name
            ));
        }
        Ok(())
    }

    fn check_targets(&mut self) -> Result<(), Error> {
        if self.pruned().next().is_none() {
            let hint = match self.checkpoint.model_type() {
                Some(model_type) => format!(" (model_type {})", shown(model_type)),
                None => String::new(),
            };
            return Err(Error::NothingToPrune { hint });
        }
        let undecided: Vec<&str> = self
            .tensors
            .iter()
            .filter(|tensor| matches!(tensor.action, Action::Copy(Reason::AxisUnknown)))
            .map(|tensor| tensor.name.as_str())
            .collect();
        if let Some(first) = undecided.first() {
            let warning = format!(
                "{} tensors stay dense, {} first: {}",
                undecided.len(),
                shown(first),
                Reason::AxisUnknown
            );
            self.warnings.push(warning);
        }
        if let Selection::Pattern(pattern) = self.options.selection {
            let m = pattern.m() as usize;
            let short = self
                .pruned()
                .filter(|(_, target)| target.in_features % m != 0)
                .count();
            if short > 0 {
                self.warnings.push(format!(
                    "{short} tensors have in_features that are no multiple of {m}: their last group is short and keeps up \
                     to {}",
                    pattern.n()
                ));
            }
        }
        Ok(())
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

    /// How the tensor's rows lie; exposed for the streaming that reads them.
    pub(crate) const fn is_transposed(target: &Target) -> bool {
        matches!(target.layout, Layout::InOut)
    }
}

fn default_score(norms: bool) -> &'static Score {
    let fits = |score: &&Score| norms || score.norms == scores::NormsUse::Optional;
    SCORES.iter().find(fits).unwrap_or(&SCORES[0])
}

fn check_ranges(selection: &Selection) -> Result<(), Error> {
    match *selection {
        Selection::Ewma { sparsity, .. } | Selection::Exact { sparsity }
            if !(0.0..=1.0).contains(&sparsity) =>
        {
            Err(Error::OutOfRange {
                what: "sparsity",
                value: sparsity,
                range: "between 0 and 1",
            })
        }
        Selection::Lambda { lambda, .. } if !(lambda > -16.0 && lambda < 16.0) => {
            Err(Error::OutOfRange {
                what: "lambda",
                value: lambda,
                range: "between -16 and 16",
            })
        }
        _ => Ok(()),
    }
}
