//! How long each phase of a run took, from the events that it tells.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::event::{Event, Phase};

/// Seconds by phase.
#[derive(Debug, Default)]
pub(super) struct Phases(Mutex<BTreeMap<&'static str, f64>>);

impl Phases {
    /// Tells `tell` everything, and notes when a phase has ended.
    pub(super) fn watching<'a>(
        &'a self,
        tell: &'a (dyn Fn(Event<'_>) + Sync),
    ) -> impl Fn(Event<'_>) + Sync + 'a {
        move |event| {
            if let Event::Finished { phase, elapsed } = event {
                let name = match phase {
                    Phase::Calibrate => "calibrate",
                    Phase::Allocate => "allocate",
                    Phase::Prune => "prune",
                    Phase::Verify => "verify",
                    Phase::Checksum => "checksum",
                    Phase::EvaluateBefore | Phase::EvaluateAfter => "evaluate",
                };
                let mut seconds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                *seconds.entry(name).or_default() += elapsed.as_secs_f64();
            }
            tell(event);
        }
    }

    /// What has ended so far.
    pub(super) fn seconds(&self) -> BTreeMap<&'static str, f64> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}
