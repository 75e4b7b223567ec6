//! What matrices are compensated with: made once an input, for all the weights that read it.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::error::Error;
use crate::compensation::{Compensation, Compensator, Hessian};
use crate::plan::Plan;
use crate::targets::Target;

/// Inputs whose products are kept: weights that read the same one follow each other closely in a file.
const RECENT: usize = 4;

/// Bytes of memory that the products of a few inputs take, two each, as they are and as they are multiplied with, while one more
/// is made of its sketch in f64.
pub(super) const fn memory(in_features: usize, rank: usize) -> u64 {
    in_features as u64 * rank as u64 * (2 * 3 * 4 * RECENT as u64 + 4 + 4 * 8)
}

/// What an input gives.
#[derive(Debug)]
pub(super) struct InputCompensator {
    /// Column factors of the score with the inverse Hessian.
    pub(super) column_factors: Option<Vec<f32>>,
    pub(super) compensator: Arc<Compensator>,
}

/// `None` where the input has no Hessian that can be used.
type Made = Arc<OnceLock<Result<Option<Arc<InputCompensator>>, String>>>;

/// The compensators of a run.
#[derive(Debug, Default)]
pub(super) struct Compensators {
    recent: Mutex<VecDeque<(u64, Made)>>,
}

impl Compensators {
    /// That of one matrix; `None` where it cannot be compensated.
    pub(super) fn of(
        &self,
        plan: &Plan,
        compensation: Compensation,
        (tensor, target, expert): (&str, &Target, usize),
    ) -> Result<Option<Arc<InputCompensator>>, Error> {
        let Some(sketch) = plan.sketch_place(tensor, target, expert) else {
            return Ok(None);
        };
        let made = {
            let mut recent = self.recent.lock();
            match recent.iter().find(|(place, _)| *place == sketch) {
                Some((_, made)) => Arc::clone(made),
                None => {
                    let made = Made::default();
                    recent.push_front((sketch, Arc::clone(&made)));
                    recent.truncate(RECENT);
                    made
                }
            }
        };
        // Whoever comes first makes it; the others wait.
        let make = || {
            let hessian = plan.hessian_of(tensor, target, expert);
            let hessian = hessian.map_err(|error| error.to_string())?;
            Ok(hessian.and_then(|hessian| make(&hessian, compensation)))
        };
        made.get_or_init(make).clone().map_err(Error::Compensating)
    }
}

fn make(hessian: &Hessian, compensation: Compensation) -> Option<Arc<InputCompensator>> {
    let compensator = Compensator::new(hessian, compensation)?;
    Some(Arc::new(InputCompensator {
        column_factors: hessian.column_factors(),
        compensator: Arc::new(compensator),
    }))
}
