//! What is kept of a layer's input: the one place where statistics of activations are made.
//!
//! Today that is the column norms, `n_j = sum_t X_tj^2`. Within a sequence they are added in f32 where the activations are,
//! across sequences in f64 on the host, so that a long calibration loses nothing to rounding.

use crate::model::{Block, Site};

/// The column norms at the four sites of one block.
#[derive(Clone, Debug)]
pub(crate) struct Capture {
    sums: [Vec<f64>; Site::ALL.len()],
}

impl Capture {
    /// Nothing seen yet.
    pub(crate) fn new(block: &Block) -> Self {
        Self {
            sums: Site::ALL.map(|site| vec![0.0; block.readers(site)[0].in_features]),
        }
    }

    /// Adds the column norms of one sequence.
    pub(crate) fn add(&mut self, site: Site, norms: &[f32]) {
        for (sum, norm) in self.sums[site as usize].iter_mut().zip(norms) {
            *sum += f64::from(*norm);
        }
    }

    /// The sums at one site, `[in_features]`.
    pub(crate) fn column_norms(&self, site: Site) -> Vec<f32> {
        self.sums[site as usize]
            .iter()
            .map(|&sum| sum as f32)
            .collect()
    }
}

/// `sum_t X_tj^2` of one sequence, `[tokens, in_features]` row-major.
pub(crate) fn column_norms(x: &[f32], in_features: usize) -> Vec<f32> {
    let mut sums = vec![0.0_f32; in_features];
    for row in x.chunks_exact(in_features) {
        for (sum, x) in sums.iter_mut().zip(row) {
            *sum += x * x;
        }
    }
    sums
}
