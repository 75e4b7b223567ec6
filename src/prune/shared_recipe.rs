//! The recipe of a matrix, shared by the threads that prune its rows: made once, when the sums it needs are complete, and
//! dropped with the last row.

use std::ops::Range;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::compensators::InputCompensator;
use super::error::Error;
use crate::recipe::{Recipe, WeightStatistics};
use crate::targets::Target;

/// How the rows of a matrix are pruned, and compensated.
#[derive(Debug)]
pub(super) struct MatrixRecipe {
    pub(super) recipe: Recipe,
    pub(super) compensation: Compensating,
}

/// What happens to the weights that stay.
#[derive(Debug)]
pub(super) enum Compensating {
    /// They stay as they are.
    None,
    /// They were to be compensated, and cannot be.
    NotPossible,
    /// They are compensated.
    By(Arc<InputCompensator>),
}

#[derive(Debug)]
pub(super) struct SharedRecipe {
    state: Mutex<RecipeState>,
    summed: Condvar,
}

#[derive(Debug, Default)]
struct RecipeState {
    /// Rows not summed yet; 0 where the score takes nothing of the weights.
    rows_to_sum: usize,
    sums: Option<WeightStatistics>,
    /// Rows nobody has asked the recipe for yet.
    rows_to_prune: usize,
    recipe: Option<Arc<MatrixRecipe>>,
    abandoned: bool,
}

impl SharedRecipe {
    pub(super) fn new(target: &Target, takes_weights: bool) -> Self {
        Self {
            state: Mutex::new(RecipeState {
                rows_to_sum: if takes_weights {
                    target.out_features
                } else {
                    0
                },
                rows_to_prune: target.out_features,
                ..RecipeState::default()
            }),
            summed: Condvar::new(),
        }
    }

    /// Adds what some rows showed to what `nothing` starts with; with the last of them, `make` turns it into the recipe.
    pub(super) fn add_sums(
        &self,
        rows: Range<usize>,
        part: &WeightStatistics,
        nothing: impl FnOnce() -> Option<WeightStatistics>,
        make: impl FnOnce(Option<&WeightStatistics>) -> Result<MatrixRecipe, Error>,
    ) -> Result<(), Error> {
        let mut state = self.lock();
        if state.sums.is_none() {
            state.sums = nothing();
        }
        if let Some(sums) = &mut state.sums {
            sums.add(rows.start, part);
        }
        let rows_left = state.rows_to_sum - rows.len();
        if rows_left == 0 {
            let sums = state.sums.take();
            state.recipe = Some(Arc::new(make(sums.as_ref())?));
            self.summed.notify_all();
        }
        state.rows_to_sum = rows_left;
        Ok(())
    }

    /// The recipe for so many rows, after waiting for the sums where the score wants them; `None` when the run was given up
    /// meanwhile. Each row is asked for once: after the last, the recipe lives only as long as it is in use.
    pub(super) fn take(
        &self,
        rows: usize,
        make: impl FnOnce(Option<&WeightStatistics>) -> Result<MatrixRecipe, Error>,
    ) -> Result<Option<Arc<MatrixRecipe>>, Error> {
        let mut state = self.lock();
        while state.rows_to_sum > 0 && !state.abandoned {
            self.summed.wait(&mut state);
        }
        if state.rows_to_sum > 0 {
            return Ok(None);
        }
        let recipe = match state.recipe.take() {
            Some(recipe) => recipe,
            None => Arc::new(make(None)?),
        };
        state.rows_to_prune = state.rows_to_prune.saturating_sub(rows);
        if state.rows_to_prune > 0 {
            state.recipe = Some(Arc::clone(&recipe));
        }
        Ok(Some(recipe))
    }

    /// Wakes whoever waits for sums that will not come.
    pub(super) fn abandon(&self) {
        self.lock().abandoned = true;
        self.summed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, RecipeState> {
        self.state.lock()
    }
}
