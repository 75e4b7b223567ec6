//! What devices have failed at.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::event::{Event, Phase};
use crate::device;

/// What devices have failed at so far.
#[derive(Default)]
pub(super) struct Failures(Mutex<Vec<String>>);

impl Failures {
    /// Tells what happened, and what is done about it.
    pub(super) fn add(
        &self,
        phase: Phase,
        error: &device::Error,
        tell: &(dyn Fn(Event<'_>) + Sync),
    ) {
        let what = match phase {
            Phase::Prune => {
                format!("{error}. The CPU does the rest of the pruning, and the bytes are the same")
            }
            _ => format!("{error}. The CPU runs the model, from the start, and goes on"),
        };
        tell(Event::DeviceFailed { phase, what: &what });
        self.lock().push(what);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn into_inner(self) -> Vec<String> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
