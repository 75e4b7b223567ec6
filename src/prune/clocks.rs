//! Where the time of a run goes: a clock for each stage, which any thread may run.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Time per stage, summed over threads; stages overlap, so they add up to more than the wall time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Stages {
    /// Reading rows.
    pub read: Duration,
    /// With a GPU: copying rows to where it gets them from, and submitting its work.
    pub upload: Duration,
    /// With a GPU: waiting for it.
    pub wait: Duration,
    /// Deciding and zeroing; with a GPU, zeroing by its masks.
    pub prune: Duration,
    /// Writing rows.
    pub write: Duration,
    /// Copying bytes that do not change.
    pub copy: Duration,
}

#[derive(Clone, Copy)]
pub(super) enum Stage {
    Read,
    Upload,
    Wait,
    Prune,
    Write,
    Copy,
}

impl std::ops::AddAssign for Stages {
    fn add_assign(&mut self, other: Self) {
        self.read += other.read;
        self.upload += other.upload;
        self.wait += other.wait;
        self.prune += other.prune;
        self.write += other.write;
        self.copy += other.copy;
    }
}

/// Nanoseconds per stage.
#[derive(Default)]
pub(super) struct Clocks([AtomicU64; 6]);

impl Clocks {
    pub(super) fn run(&self, stage: Stage) -> Clock<'_> {
        Clock {
            start: Instant::now(),
            total: &self.0[stage as usize],
        }
    }

    pub(super) fn read(&self) -> Stages {
        let [read, upload, wait, prune, write, copy] = [0, 1, 2, 3, 4, 5]
            .map(|stage: usize| Duration::from_nanos(self.0[stage].load(Ordering::Relaxed)));
        Stages {
            read,
            upload,
            wait,
            prune,
            write,
            copy,
        }
    }
}

/// Adds the time until it is dropped.
pub(super) struct Clock<'a> {
    start: Instant,
    total: &'a AtomicU64,
}

impl Drop for Clock<'_> {
    fn drop(&mut self) {
        let nanoseconds = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.total.fetch_add(nanoseconds, Ordering::Relaxed);
    }
}
