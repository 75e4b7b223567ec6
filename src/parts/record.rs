//! What is kept beside finished shards: what the run is, and of each shard what it was made from and what was counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::content::Content;
use super::error::Error;
use super::settings::Settings;
use crate::checkpoint::{Checkpoint, Shard};
use crate::checksum;
use crate::counts::Counts;
use crate::device::DeviceInfo;
use crate::plan::Plan;
use crate::prune::Stages;
use crate::stop::Stop;
use crate::untrusted::shown;

/// `manifest/run.json`: the run that the shards of a directory are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    pub settings: Settings,
    /// The model, as an absolute path: where a merge looks for it.
    pub model: String,
    /// The file of norms, as an absolute path.
    pub norms: Option<String>,
    /// The files of weights that are read, in their order.
    pub input: Vec<InputRecord>,
}

/// A file of weights by what its header says: another fine-tune of a model has the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InputRecord {
    pub file: String,
    pub bytes: u64,
    pub header_sha256: String,
}

impl InputRecord {
    pub(crate) fn of(shard: &Shard) -> Self {
        Self {
            file: shard.file_name.clone(),
            bytes: shard.len,
            header_sha256: checksum::of_bytes(shard.header().raw()),
        }
    }

    pub(crate) fn of_all(checkpoint: &Checkpoint) -> Vec<Self> {
        checkpoint.shards.iter().map(Self::of).collect()
    }
}

/// `manifest/calibrated.json`: what the norms that a run keeps were measured on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct CalibratedRecord {
    /// The bytes of every file of weights, in their order.
    pub input: Vec<Content>,
    /// SHA-256 of what is beside them and decides what the model computes and which tokens a text has, by name.
    pub beside: BTreeMap<String, String>,
}

/// What is beside the weights and decides what the model computes, or which tokens a text has.
const BESIDE: [&str; 3] = ["config.json", "tokenizer.json", "tokenizer_config.json"];

impl CalibratedRecord {
    /// Hashes everything that norms are measured on, but the text.
    ///
    /// # Errors
    /// [`Error::Checkpoint`], [`Error::Stopped`].
    pub(crate) fn of(checkpoint: &Checkpoint, stop: &Stop) -> Result<Self, Error> {
        let shards = checkpoint.shards.iter();
        let input = shards.map(|shard| Content::of_shard(shard, None, stop));
        Ok(Self {
            input: input.collect::<Result<_, _>>()?,
            beside: beside(checkpoint, stop)?,
        })
    }

    /// In what a model differs from the one that norms were measured on, as text that may be printed.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(crate) fn difference(
        &self,
        checkpoint: &Checkpoint,
        stop: &Stop,
    ) -> Result<Option<String>, Error> {
        let shards = &checkpoint.shards;
        if self.input.len() != shards.len() {
            let (theirs, ours) = (self.input.len(), shards.len());
            return Ok(Some(format!(
                "the norms were measured on {theirs} files of weights, not {ours}"
            )));
        }
        for (content, shard) in self.input.iter().zip(shards) {
            if !content.is_of(&shard.path, stop)? {
                let file = shown(&shard.file_name);
                return Ok(Some(format!(
                    "the norms were measured on other weights: {file} had another SHA-256"
                )));
            }
            shard.check_still_unchanged()?;
        }
        let here = beside(checkpoint, stop)?;
        let mut names = BESIDE.iter();
        let other = names.find(|&&name| self.beside.get(name) != here.get(name));
        Ok(other.map(|name| format!("the norms were measured with another {name}")))
    }
}

/// The SHA-256 of those of [`BESIDE`] that there are.
fn beside(checkpoint: &Checkpoint, stop: &Stop) -> Result<BTreeMap<String, String>, Error> {
    let weights = checkpoint.source.weights();
    let mut sums = BTreeMap::new();
    for name in BESIDE {
        let path = weights.path().with_file_name(name);
        if path.is_file() {
            sums.insert(name.to_owned(), Content::read(&path, stop)?.sha256);
        }
    }
    Ok(sums)
}

/// `manifest/SHARD.json`: a shard that is finished.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct ShardRecord {
    pub settings: Settings,
    pub input: InputRecord,
    pub input_content: Content,
    pub output_content: Content,
    pub device: DeviceInfo,
    pub seconds: f64,
    pub stages: Stages,
    /// What the device failed at, if the CPU did the rest.
    pub device_failure: Option<String>,
    pub tensors: Vec<TensorRecord>,
}

/// What was counted in a tensor that was pruned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct TensorRecord {
    pub name: String,
    /// The sparsity that was asked of it, as the rule of allocation had it; none where a fixed lambda decides.
    pub asked: Option<f64>,
    pub counts: Counts,
}

impl TensorRecord {
    /// Those of one shard.
    pub(crate) fn of_shard(plan: &Plan, shard: usize, counts: &[Option<Counts>]) -> Vec<Self> {
        let tensors = plan.tensors().iter().zip(counts);
        tensors
            .filter(|(tensor, _)| tensor.shard == shard)
            .filter_map(|(tensor, counts)| {
                Some(Self {
                    name: tensor.name.clone(),
                    asked: tensor.asked(),
                    counts: (*counts)?,
                })
            })
            .collect()
    }
}
