//! What a run tells on its way and at its end.

use std::time::Duration;

use super::clocks::Stages;
use crate::checkpoint::Finished;
use crate::counts::Counts;
use crate::device;
use crate::plan::PlannedTensor;

/// What happens during a run.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum PruneEvent<'a> {
    /// So many more bytes of the output are written.
    Written(u64),
    /// A tensor is done.
    Tensor {
        /// Its row of the plan.
        tensor: &'a PlannedTensor,
        /// What pruning it did.
        counts: Counts,
    },
    /// The device has failed, and the CPU goes on in its place: the bytes are the same.
    DeviceFailed(&'a device::Error),
}

/// What a run did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    /// Per tensor of the plan: what pruning did, `None` for a copied one.
    pub counts: Vec<Option<Counts>>,
    /// Wall time from the first read to the rename.
    pub elapsed: Duration,
    /// Where the time went.
    pub stages: Stages,
    /// The output and what came along.
    pub finished: Finished,
    /// Why the device did not do all of it.
    pub device_failure: Option<device::Error>,
}

/// What pruning one shard did.
#[derive(Debug)]
pub(crate) struct ShardOutcome {
    /// What pruning did, per tensor of the plan; none for those that are copied, and for those of other shards.
    pub counts: Vec<Option<Counts>>,
    /// How long it took.
    pub elapsed: Duration,
    /// Where that time went.
    pub stages: Stages,
    /// What the device failed at, if the CPU did the rest.
    pub device_failure: Option<device::Error>,
}
