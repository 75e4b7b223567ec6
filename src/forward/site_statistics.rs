//! What a pass has seen of each input of a block, put together out of the numbers that were observed.

use super::error::Error;
use super::statistics::Statistic;
use crate::model::{Architecture, Site};

/// What was observed of the input of some linear layers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SiteStatistics {
    /// Where.
    pub site: Site,
    /// The sum of squares of each feature over all tokens, `[in_features]`.
    pub column_norms: Vec<f32>,
    /// The mean of each feature, `[in_features]`, where it was asked for.
    pub means: Option<Vec<f32>>,
    /// The tokens that came by: all of them but at the sites of experts.
    pub tokens: u64,
    /// The sketch, `[in_features, rank]` row-major, where one was asked for.
    pub sketch: Option<Vec<f32>>,
}

impl SiteStatistics {
    /// The statistics of a block's sites, out of what was observed there.
    pub(super) fn of_block(
        architecture: &Architecture,
        block: usize,
        statistics: &[Statistic],
        sums: Vec<f64>,
    ) -> Result<Vec<Self>, Error> {
        let mut sums = sums.into_iter();
        let sites = architecture.sites().filter(|site| site.block == block);
        let of_site = |site: Site| {
            let mut found = Self {
                column_norms: Vec::new(),
                means: None,
                tokens: 0,
                sketch: None,
                site,
            };
            for statistic in statistics {
                let numbers = sums.by_ref().take(statistic.len(found.site.in_features));
                match statistic {
                    Statistic::Tokens => found.tokens = numbers.sum::<f64>() as u64,
                    Statistic::ColumnNorms => {
                        found.column_norms = numbers.map(|sum| sum as f32).collect();
                    }
                    Statistic::ColumnSums => {
                        let tokens = found.tokens.max(1) as f64;
                        found.means = Some(numbers.map(|sum| (sum / tokens) as f32).collect());
                    }
                    Statistic::Sketch(_) => {
                        found.sketch = Some(numbers.map(|sum| sum as f32).collect());
                    }
                }
            }
            let all = found
                .column_norms
                .iter()
                .chain(found.sketch.iter().flatten());
            if all.into_iter().any(|number| !number.is_finite()) {
                return Err(Error::NotFinite {
                    at: found.site.readers[0].clone(),
                });
            }
            Ok(found)
        };
        sites.map(of_site).collect()
    }
}
