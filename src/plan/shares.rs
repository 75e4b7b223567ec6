//! A draft whose sparsity is shared out over the decoder blocks.

use super::allocation::{self, BlockScores};
use super::blocks::PlannedBlock;
use super::draft::Draft;
use super::error::Error;

impl Draft {
    /// Gives each block its share, for a rule that goes by the scores of the blocks' weights: those of
    /// [`Self::blocks`], in their order ([`block_scores`](crate::prune::block_scores) counts them). Nothing changes where the
    /// shares are known already.
    ///
    /// # Errors
    /// [`Error::NotAllocated`] for scores of another number of blocks.
    pub fn allocated(mut self, scores: &[BlockScores]) -> Result<Self, Error> {
        self.allocate(scores)?;
        Ok(self)
    }

    pub(super) fn allocate(&mut self, scores: &[BlockScores]) -> Result<(), Error> {
        if self.is_allocated {
            return Ok(());
        }
        if self.options.allocation.needs_scores() {
            if scores.len() != self.blocks.len() {
                return Err(Error::NotAllocated);
            }
            let unknown = scores.iter().filter(|scores| scores.weights == 0).count();
            if unknown > 0 {
                self.warnings.push(format!(
                    "no calibration token reached {unknown} of {} blocks: they get the mean sparsity",
                    scores.len()
                ));
            }
        }
        let rule = &self.options.allocation;
        let cut = allocation::allocate(rule, &mut self.tensors, &self.blocks, scores)?;
        if let Some(spread) = cut {
            self.warnings.push(format!(
                "{}: a spread of {spread:.3} was taken, as with more a block would be below 0 % or above 100 %",
                rule.name()
            ));
        }
        self.is_allocated = true;
        Ok(())
    }

    /// The decoder blocks that are pruned: stack by stack, in a stack by number.
    #[must_use]
    pub fn blocks(&self) -> &[PlannedBlock] {
        &self.blocks
    }

    /// Whether every tensor has its share of what was asked for. If not, the scores of all weights come first
    /// ([`Self::allocated`]).
    #[must_use]
    pub const fn is_allocated(&self) -> bool {
        self.is_allocated
    }
}
