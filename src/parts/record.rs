//! What is kept beside finished shards: what the run is, and of each shard what it was made from and what was counted.

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::checkpoint::{Checkpoint, Shard};
use crate::checksum;
use crate::counts::Counts;
use crate::device::DeviceInfo;
use crate::plan::Plan;
use crate::prune::Stages;

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
            header_sha256: checksum::of_bytes(&shard.header.raw),
        }
    }

    pub(crate) fn of_all(checkpoint: &Checkpoint) -> Vec<Self> {
        checkpoint.shards.iter().map(Self::of).collect()
    }
}

/// The bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Content {
    pub sha256: String,
    /// When the file was last written to, in nanoseconds since 1970: one that has this time still has these bytes.
    pub modified: Option<u64>,
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
                    counts: (*counts)?,
                })
            })
            .collect()
    }
}
