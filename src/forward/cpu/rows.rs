//! Some tokens' rows out of a hidden state, and back into one.

use candle_core::{CpuStorage, InplaceOp2, Layout, Result};

use super::in_place::{values, values_mut};
use crate::model::Share;

/// The rows of `x`, `[tokens, features]`, that a share names, each times its weight.
pub(super) fn gather(x: &[f32], features: usize, share: &Share) -> Vec<f32> {
    let mut rows = Vec::with_capacity(share.tokens.len() * features);
    for (&token, &weight) in share.tokens.iter().zip(&share.weights) {
        let first = token as usize * features;
        let row = x[first..first + features].iter();
        rows.extend(row.map(|x| x * weight));
    }
    rows
}

/// Adds rows to those that a share names, each times its weight.
pub(super) struct Scatter<'a> {
    pub(super) share: &'a Share,
}

impl InplaceOp2 for Scatter<'_> {
    fn name(&self) -> &'static str {
        "scatter-rows"
    }

    fn cpu_fwd(
        &self,
        sum: &mut CpuStorage,
        into: &Layout,
        rows: &CpuStorage,
        from: &Layout,
    ) -> Result<()> {
        let rows = values(rows, from)?;
        let sum = values_mut(sum, into)?;
        let features = rows.len() / self.share.tokens.len().max(1);
        let places = self.share.tokens.iter().zip(&self.share.weights);
        for ((&token, &weight), row) in places.zip(rows.chunks_exact(features.max(1))) {
            let first = token as usize * features;
            let sums = &mut sum[first..first + features];
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, y)| *sum += weight * y);
        }
        Ok(())
    }
}
