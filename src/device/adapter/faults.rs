//! Faults that a test has an adapter commit: what a driver may do cannot be had otherwise.
//!
//! A build with debug assertions, which tests are, reads them from [`VARIABLE`]; a release build has none.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// `drop-submission:N`, `lose-device:N` or `refuse-buffer:N`: the fault, and when after the start-up check.
pub(crate) const VARIABLE: &str = "SWIFTPRUNE_FAULT";

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// This submission is lost, and nobody says so.
    DropSubmission(u32),
    /// The device is gone from this submission on.
    LoseDevice(u32),
    /// This buffer and those after it are refused.
    RefuseBuffer(u32),
    /// The shader of this name is compiled without its barriers.
    #[cfg(test)]
    WithoutBarriers(&'static str),
}

/// The fault of one adapter, and what it has been asked so far.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    fault: Option<Fault>,
    is_armed: AtomicBool,
    submissions: AtomicU32,
    buffers: AtomicU32,
}

impl Faults {
    /// Of this fault.
    pub(crate) fn new(fault: Option<Fault>) -> Self {
        Self {
            fault,
            ..Self::default()
        }
    }

    /// What the environment asks for, in a build for tests.
    pub(crate) fn of_environment() -> Self {
        let asked = cfg!(debug_assertions).then(|| std::env::var(VARIABLE).ok());
        Self::new(asked.flatten().as_deref().and_then(parse))
    }

    /// From now on: the start-up check has passed.
    pub(crate) fn arm(&self) {
        self.is_armed.store(true, Ordering::Relaxed);
    }

    fn is_due(&self, count: &AtomicU32, due: impl FnOnce(Fault, u32) -> bool) -> bool {
        match self.fault {
            Some(fault) if self.is_armed.load(Ordering::Relaxed) => {
                due(fault, count.fetch_add(1, Ordering::Relaxed))
            }
            _ => false,
        }
    }

    /// Whether the next submission is lost; `lose` takes the device away.
    pub(crate) fn loses_submission(&self, lose: impl FnOnce()) -> bool {
        self.is_due(&self.submissions, |fault, count| {
            if fault == Fault::LoseDevice(count) {
                lose();
            }
            fault == Fault::DropSubmission(count)
        })
    }

    /// Whether the next buffer is refused.
    pub(crate) fn refuses_buffer(&self) -> bool {
        self.is_due(
            &self.buffers,
            |fault, count| matches!(fault, Fault::RefuseBuffer(first) if count >= first),
        )
    }

    /// The WGSL of a shader as the adapter gets it.
    #[cfg(test)]
    pub(crate) fn wgsl(&self, name: &str, wgsl: &'static str) -> std::borrow::Cow<'static, str> {
        match self.fault {
            Some(Fault::WithoutBarriers(of)) if of == name => wgsl
                .replace("workgroupBarrier();", "")
                .replace("storageBarrier();", "")
                .into(),
            _ => wgsl.into(),
        }
    }
}

fn parse(text: &str) -> Option<Fault> {
    let (fault, count) = text.split_once(':')?;
    let count = count.parse().ok()?;
    match fault {
        "drop-submission" => Some(Fault::DropSubmission(count)),
        "lose-device" => Some(Fault::LoseDevice(count)),
        "refuse-buffer" => Some(Fault::RefuseBuffer(count)),
        _ => None,
    }
}
