//! The draft of a plan: everything that headers and the request can tell, checked before any work.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::allocation::{self, Allocation};
use super::blocks::{PlannedBlock, blocks};
use super::error::Error;
use super::few_tokens::{FEW_TOKENS, StandIns};
use super::left_dense::{DenseReason, LeftDense};
use super::options::{NormsSource, Options};
use super::tensors::{Action, PlannedTensor};
use crate::checkpoint::{Checkpoint, Source};
use crate::dtype::Dtype;
use crate::names::grammar::{block, is_of_side_decoder, stack};
use crate::norms::{Blocks, Lookup, Norms, few_tokens};
use crate::recipe::MAX_IN_FEATURES;
use crate::scores::{self, SCORES, Score};
use crate::selection::Selection;
use crate::targets::{self, Decision, Reason, Target};
use crate::untrusted::{named, shown, shown_path};

/// A checkpoint, and what will happen to each of its tensors; its norms may still have to be measured.
///
/// A draft cannot be changed: what it says has been checked. [`Draft::plan`] or [`Draft::measured`] makes it a
/// [`Plan`](super::Plan), which can be run.
#[derive(Debug)]
pub struct Draft {
    checkpoint: Checkpoint,
    pub(super) options: Options,
    pub(super) norms: NormsSource,
    /// Instead of the norms of experts that saw few tokens.
    pub(super) stand_ins: StandIns,
    pub(super) score: &'static Score,
    pub(super) tensors: Vec<PlannedTensor>,
    pub(super) blocks: Vec<PlannedBlock>,
    /// Whether every tensor has its own share of what was asked for.
    pub(super) is_allocated: bool,
    left_dense: Vec<LeftDense>,
    pub(super) warnings: Vec<String>,
}

impl Draft {
    /// Decides what happens to every tensor, and checks all that headers and norms can tell.
    ///
    /// # Errors
    /// Every variant of [`Error`] but [`Error::NotMeasured`] and [`Error::NotAllocated`].
    pub fn new(
        checkpoint: Checkpoint,
        options: Options,
        norms: NormsSource,
    ) -> Result<Self, Error> {
        #[cfg(feature = "native")]
        crate::model::check_absent(&checkpoint)?;
        allocation::check(options.selection, &options.allocation)?;
        let has_norms = !matches!(norms, NormsSource::None);
        let score = options.score.unwrap_or_else(|| default_score(has_norms));
        if score.norms == scores::NormsUse::Required && !has_norms {
            return Err(Error::NormsRequired { score: score.name });
        }
        if let Some(compensation) = options.compensation {
            check_sketches(&norms, compensation.rank)?;
        }
        if options.allocation.needs_scores() && !has_norms {
            return Err(Error::AllocationNeedsNorms {
                allocation: options.allocation.name(),
            });
        }
        let tensors = decide(&checkpoint, &options)?;
        let left_dense = if options.targets.has_include() {
            Vec::new()
        } else {
            LeftDense::of(&tensors)
        };
        let mut draft = Self {
            checkpoint,
            norms,
            stand_ins: StandIns::default(),
            score,
            blocks: blocks(&tensors),
            is_allocated: options.allocation == Allocation::Uniform,
            options,
            tensors,
            left_dense,
            warnings: Vec::new(),
        };
        if let (NormsSource::Read(norms), true) = (&draft.norms, draft.looks_at_norms()) {
            draft.stand_ins = StandIns::of(norms, draft.pruned(), score.about_mean)?;
        }
        let of_norms = draft.check_norms()?;
        let of_targets = draft.check_targets()?;
        draft.warnings = draft.checkpoint.warnings();
        draft
            .warnings
            .extend(of_norms.into_iter().chain(of_targets));
        if !draft.options.allocation.needs_scores() {
            draft.allocate(&[])?;
        }
        Ok(draft)
    }

    /// The same draft of some of its tensors, without norms.
    pub(super) fn of_tensors(&self, tensors: Vec<PlannedTensor>) -> Self {
        Self {
            checkpoint: self.checkpoint.clone(),
            norms: NormsSource::None,
            stand_ins: StandIns::default(),
            score: self.score,
            blocks: Vec::new(),
            is_allocated: self.is_allocated,
            options: self.options.clone(),
            tensors,
            left_dense: Vec::new(),
            warnings: Vec::new(),
        }
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

    /// What stays dense of the decoder without anybody's decision, by reason; nothing where tensors were chosen by name.
    #[must_use]
    pub fn left_dense(&self) -> &[LeftDense] {
        &self.left_dense
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
        let is_used =
            self.score.norms != scores::NormsUse::Unused || self.options.compensation.is_some();
        !matches!(self.norms, NormsSource::None) && is_used
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
            _ if !self.looks_at_norms() => {
                Ok(vec![format!("the score {name} does not use the norms")])
            }
            NormsSource::Read(norms) => {
                let mut warnings = self.check_measured(norms, &self.stand_ins)?;
                warnings.extend(
                    norms
                        .source
                        .tokens
                        .and_then(|tokens| self.few_tokens(tokens)),
                );
                Ok(warnings)
            }
            NormsSource::ToMeasure(coverage) => {
                self.none_missing(&coverage.model, |tensor, target| {
                    Ok(coverage.in_features.get(&tensor.name) == Some(&target.in_features))
                })?;
                Ok(self
                    .few_tokens(coverage.tokens as u64)
                    .into_iter()
                    .collect())
            }
        }
    }

    /// What is to be said of norms of so few tokens.
    fn few_tokens(&self, tokens: u64) -> Option<String> {
        let widest = self.pruned().map(|(_, target)| target.in_features).max();
        few_tokens(tokens, widest?)
    }

    /// Names of pruned tensors whose input has no sketch, where compensation needs one.
    fn without_sketch(&self, norms: &Norms) -> Vec<String> {
        let (Some(sketches), Some(_)) = (&norms.sketches, self.options.compensation) else {
            return Vec::new();
        };
        self.pruned()
            .filter(|(tensor, target)| {
                let last = target.experts.max(1) - 1;
                !sketches.has(&tensor.name, last, target.in_features)
            })
            .map(|(tensor, _)| tensor.name.clone())
            .collect()
    }

    /// Holds norms against the tensors that are pruned, and warns of those that few tokens or none reached.
    pub(super) fn check_measured(
        &self,
        norms: &Norms,
        stand_ins: &StandIns,
    ) -> Result<Vec<String>, Error> {
        self.check_blocks(norms)?;
        self.none_missing(&norms.source.path, |tensor, target| {
            for expert in 0..target.experts {
                let expert = (target.experts > 1).then_some(expert);
                if norms.get(&tensor.name, expert, target.in_features)? == Lookup::Absent {
                    return Ok(false);
                }
            }
            Ok(true)
        })?;
        self.check_stacks(norms)?;
        let without = self.without_sketch(norms);
        if !without.is_empty() {
            return Err(Error::SketchesMissing {
                norms: norms.source.path.clone(),
                tensors: without,
            });
        }
        let mut warnings = Vec::new();
        if norms.source.is_silent_on_prefix() {
            warnings.push(format!(
                "{} does not say what its windows began with, as it is of an earlier version: where the tokenizer puts a token before a \
                 text (BOS), calibrate again",
                shown_path(&norms.source.path)
            ));
        }
        if stand_ins.few > 0 {
            warnings.push(format!(
                "{} of {} experts saw fewer than {FEW_TOKENS} tokens: their layer's mean was used; calibrate on more text",
                stand_ins.few, stand_ins.all
            ));
        }
        let mut unseen = Vec::new();
        for (tensor, target) in self.pruned() {
            for expert in 0..target.experts {
                let own = self.measured_of(norms, &tensor.name, target, expert)?;
                if own.is_none() && stand_ins.get(&tensor.name, expert).is_none() {
                    unseen.push(if target.experts > 1 {
                        format!("{} (expert {expert})", tensor.name)
                    } else {
                        tensor.name.clone()
                    });
                }
            }
        }
        if unseen.is_empty() {
            return Ok(warnings);
        }
        let unseen = named(unseen);
        warnings.push(format!(
            "no calibration token reached {unseen}: pruned without norms; use a longer calibration text"
        ));
        Ok(warnings)
    }

    /// Refuses, by the names of all, if there are tensors without norms.
    fn none_missing(
        &self,
        norms: &Path,
        mut has: impl FnMut(&PlannedTensor, &Target) -> Result<bool, Error>,
    ) -> Result<(), Error> {
        let (mut missing, mut present) = (Vec::new(), BTreeSet::new());
        for (tensor, target) in self.pruned() {
            if has(tensor, target)? {
                present.insert(tensor.name.as_str());
            } else {
                missing.push(tensor.name.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        Err(Error::NormsMissing {
            norms: norms.to_path_buf(),
            globs: globs(&missing, &present),
            tensors: missing,
        })
    }

    /// Refuses norms of another number of blocks: names and shapes may fit all the same.
    fn check_blocks(&self, norms: &Norms) -> Result<(), Error> {
        let config = self.checkpoint.config.as_ref();
        let BlockCounts {
            named,
            described,
            further,
        } = self.block_counts();
        let described = described.unwrap_or(named);
        let most = named.max(described) + further;
        let (theirs, fits) = match norms.blocks() {
            Some(Blocks::OfImportanceMatrix(theirs)) => {
                (theirs, (named.min(described)..=most).contains(&theirs))
            }
            // One file of many, without a config.json, does not know how many blocks there are.
            Some(Blocks::OfNormsFile(theirs)) => (theirs, config.is_none() || theirs <= most),
            None => return Ok(()),
        };
        if fits {
            return Ok(());
        }
        Err(Error::OtherBlocks {
            norms: norms.source.path.clone(),
            theirs,
            ours: described.max(named),
        })
    }

    /// How many blocks there are, by the names of tensors and by config.json.
    fn block_counts(&self) -> BlockCounts {
        let number = |name: &str| block(name)?.number.parse::<usize>().ok();
        let count = |side: bool| {
            let names = self.tensors.iter().map(|tensor| tensor.name.as_str());
            let names = names.filter(|name| is_of_side_decoder(name) == side);
            names.filter_map(number).max().map_or(0, |last| last + 1)
        };
        let config = self.checkpoint.config.as_ref();
        let size = |key: &str| {
            let value = config?.parts().rev().find_map(|part| part.get(key));
            usize::try_from(value?.as_u64()?).ok()
        };
        let named = count(false);
        let described = ["num_hidden_layers", "n_layer", "num_layers", "n_layers"]
            .iter()
            .find_map(|key| size(key));
        // llama.cpp numbers the blocks that predict further tokens behind the others.
        let further = count(true).max(size("num_nextn_predict_layers").unwrap_or(0));
        BlockCounts {
            named,
            described,
            further,
        }
    }

    /// Refuses if an entry of an importance matrix would serve two stacks of blocks: one of them is not the one that was
    /// measured.
    fn check_stacks(&self, norms: &Norms) -> Result<(), Error> {
        let mut served: BTreeMap<&str, &str> = BTreeMap::new();
        for (tensor, target) in self.pruned() {
            let expert = (target.experts > 1).then_some(0);
            let Some(entry) = norms.mapped_name(&tensor.name, expert) else {
                continue;
            };
            let first = served.entry(entry).or_insert(&tensor.name);
            if stack(first) != stack(&tensor.name) {
                return Err(Error::NormsAmbiguous {
                    norms: norms.source.path.clone(),
                    entry: entry.to_owned(),
                    first: (*first).to_owned(),
                    second: tensor.name.clone(),
                });
            }
        }
        Ok(())
    }

    fn check_targets(&self) -> Result<Vec<String>, Error> {
        let model_type = || self.checkpoint.model_type().map(str::to_owned);
        let mut warnings = Vec::new();
        let BlockCounts {
            named, described, ..
        } = self.block_counts();
        let is_whole = !matches!(self.checkpoint.source, Source::File(_));
        if let Some(described) = described.filter(|&described| is_whole && described > named) {
            warnings.push(format!(
                "config.json describes {described} blocks, but there are weights of {named}; is the checkpoint complete?"
            ));
        }
        for left_dense in &self.left_dense {
            let is_unknown = left_dense.reason == DenseReason::UnknownName;
            if is_unknown && left_dense.share() > 0.5 {
                return Err(Error::MostlyUnknown {
                    left_dense: left_dense.clone(),
                    model_type: model_type(),
                });
            }
            warnings.push(format!("left dense: {left_dense}, {}", left_dense.reason));
        }
        if self.pruned().next().is_none() {
            return Err(Error::NothingToPrune {
                model_type: model_type(),
                by_globs: self.options.targets.has_globs(),
            });
        }
        for reason in [Reason::AxisUnknown, Reason::ExpertsUnknown] {
            let is_left = |action: &Action| matches!(action, Action::Copy(why) if *why == reason);
            let undecided = self.tensors.iter().filter(|tensor| is_left(&tensor.action));
            let undecided: Vec<&str> = undecided.map(|tensor| tensor.name.as_str()).collect();
            if let Some(first) = undecided.first() {
                warnings.push(format!(
                    "{} tensors are not pruned, starting with {}: {reason}",
                    undecided.len(),
                    shown(first),
                ));
            }
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

/// Decoder blocks.
struct BlockCounts {
    /// By the names of tensors.
    named: usize,
    /// By config.json, where it says.
    described: Option<usize>,
    /// Those that predict further tokens.
    further: usize,
}

/// Refuses norms without sketches of `rank` columns.
fn check_sketches(norms: &NormsSource, rank: usize) -> Result<(), Error> {
    let (path, found) = match norms {
        NormsSource::None => (None, None),
        NormsSource::Read(norms) => (Some(norms.source.path.clone()), norms.sketch_rank()),
        NormsSource::ToMeasure(coverage) => (Some(coverage.model.clone()), coverage.sketch_rank),
    };
    if found.is_some_and(|found| found >= rank) {
        return Ok(());
    }
    Err(Error::SketchRequired {
        norms: path,
        found,
        wanted: rank,
    })
}

/// The fewest globs, of names up to a dot, that match all of `missing` and none of `present`.
fn globs(missing: &[String], present: &BTreeSet<&str>) -> Vec<String> {
    if present.is_empty() {
        return Vec::new();
    }
    let free = |start: &str| {
        let next = present.range(start..).next();
        next.is_none_or(|name| !name.starts_with(start))
    };
    let glob = |name: &String| {
        let mut dots = name.match_indices('.').map(|(at, _)| &name[..=at]);
        match dots.find(|start| free(start)) {
            Some(start) => targets::escaped(start) + "*",
            None => targets::escaped(name),
        }
    };
    let mut globs: Vec<String> = missing.iter().map(glob).collect();
    globs.sort();
    globs.dedup();
    globs
}

fn decide(checkpoint: &Checkpoint, options: &Options) -> Result<Vec<PlannedTensor>, Error> {
    let selection = options.selection;
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
    let unknown = decided.include.iter().find(|glob| glob.matched == 0);
    let idle = decided.exclude.iter().find(|glob| glob.excluded == 0);
    if let Some((list, unused)) =
        (unknown.map(|glob| ("include", glob))).or_else(|| idle.map(|glob| ("exclude", glob)))
    {
        return Err(Error::GlobMatchesNothing {
            list,
            glob: unused.glob.clone(),
        });
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
            action,
            tensor: Arc::clone(tensor),
        });
    }
    Ok(tensors)
}

fn default_score(has_norms: bool) -> &'static Score {
    let fits = |score: &&Score| has_norms || score.norms == scores::NormsUse::Optional;
    SCORES.iter().find(fits).unwrap_or(&SCORES[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::norms::{Format, Provenance};

    /// Norms of the example model in the names of llama.cpp, of so many blocks.
    fn importance_matrix(blocks: usize) -> Norms {
        let mut source = Provenance::measured("imatrix.gguf".into(), None);
        source.format = Format::Gguf;
        let mut norms = Norms::new(source);
        for block in 0..blocks {
            for (name, len) in [
                ("attn_q", 192),
                ("attn_output", 192),
                ("ffn_up", 192),
                ("ffn_down", 512),
            ] {
                let values = (1..=len).map(|n| n as f32).collect();
                norms
                    .insert(format!("blk.{block}.{name}.weight"), values)
                    .unwrap();
            }
        }
        norms
    }

    fn draft(norms: Norms) -> Result<Draft, Error> {
        let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
        let options = Options::new(Selection::Exact { sparsity: 0.5 });
        Draft::new(checkpoint, options, NormsSource::Read(norms.into()))
    }

    #[test]
    fn a_matrix_of_another_number_of_blocks_is_refused() {
        assert!(draft(importance_matrix(4)).is_ok());
        for blocks in [1, 3, 5, 32] {
            let error = draft(importance_matrix(blocks)).unwrap_err();
            assert!(
                matches!(error, Error::OtherBlocks { theirs, ours: 4, .. } if theirs == blocks),
                "{error}"
            );
        }
    }

    #[test]
    fn all_tensors_without_norms_are_named_with_globs_that_leave_them_out() {
        let mut norms = Norms::new(Provenance::measured("norms".into(), None));
        let whole = draft(importance_matrix(4)).unwrap();
        for (tensor, target) in whole.pruned() {
            if !tensor.name.contains("layers.1.mlp") && !tensor.name.contains("2.self_attn.k") {
                let values = vec![1.0; target.in_features];
                norms.insert(&tensor.name, values).unwrap();
            }
        }
        let error = draft(norms).unwrap_err();
        let Error::NormsMissing { tensors, globs, .. } = &error else {
            panic!("{error}");
        };
        assert_eq!(tensors.len(), 4);
        assert_eq!(
            globs,
            &["model.layers.1.mlp.*", "model.layers.2.self_attn.k_proj.*"]
        );
        assert!(error.to_string().contains("4 tensors: "), "{error}");
    }

    #[test]
    fn a_score_about_the_mean_takes_norms_with_means_and_refuses_those_without() {
        let name = "model.layers.0.self_attn.k_proj.weight";
        let stade = |means: bool| {
            let mut source = Provenance::measured("norms".into(), None);
            source.tokens = Some(4);
            let mut norms = Norms::new(source);
            for (tensor, target) in draft(importance_matrix(4)).unwrap().pruned() {
                norms
                    .insert(&tensor.name, vec![5.0; target.in_features])
                    .unwrap();
                if means {
                    let means = vec![0.5; target.in_features];
                    norms.insert_means(&tensor.name, means).unwrap();
                }
            }
            let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
            let mut options = Options::new(Selection::Exact { sparsity: 0.5 });
            options.score = Score::by_name("stade");
            Draft::new(checkpoint, options, NormsSource::Read(norms.into()))
        };
        let found = stade(true).unwrap();
        let (_, target) = found
            .pruned()
            .find(|(tensor, _)| tensor.name == name)
            .unwrap();
        let norms = found.given_norms_of(name, target, 0).unwrap();
        assert_eq!(norms.as_deref(), Some(&[4.0; 192][..]));
        let error = stade(false).unwrap_err();
        assert!(
            matches!(error, Error::Norms(crate::norms::Error::NoMeans { .. })),
            "{error}"
        );
    }
}
