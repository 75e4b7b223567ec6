//! Samples of a time: median, quartiles, outliers, and how sure a ratio of two medians is.

use crate::fixtures::Random;

/// What some samples say.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Summary {
    /// The middle one.
    pub median: f64,
    /// A quarter of the samples is below.
    pub lower_quartile: f64,
    /// A quarter is above.
    pub upper_quartile: f64,
    /// Samples further outside the quartiles than 1.5 times their distance (Tukey's fences).
    pub outliers: Vec<f64>,
}

/// The summary of some samples; `None` if there are none.
#[must_use]
pub fn summary(samples: &[f64]) -> Option<Summary> {
    let sorted = sorted(samples)?;
    let (lower_quartile, upper_quartile) = (quantile(&sorted, 0.25), quantile(&sorted, 0.75));
    let fence = 1.5 * (upper_quartile - lower_quartile);
    let is_outlier = |&&x: &&f64| x < lower_quartile - fence || x > upper_quartile + fence;
    Some(Summary {
        median: quantile(&sorted, 0.5),
        lower_quartile,
        upper_quartile,
        outliers: sorted.iter().filter(is_outlier).copied().collect(),
    })
}

/// `median(first) / median(second)` with the bounds that 95 of 100 resamplings lie within (the percentile bootstrap).
///
/// The same samples give the same bounds: the resampling's random numbers are fixed.
#[must_use]
pub fn ratio(first: &[f64], second: &[f64]) -> Option<[f64; 3]> {
    const RESAMPLINGS: usize = 2000;
    let of_medians = |first: &[f64], second: &[f64]| {
        Some(quantile(&sorted(first)?, 0.5) / quantile(&sorted(second)?, 0.5))
    };
    let ratio = of_medians(first, second)?;
    let mut random = Random::new(0x5eed);
    let mut resample = |samples: &[f64]| -> Vec<f64> {
        (0..samples.len())
            .map(|_| samples[random.below(samples.len())])
            .collect()
    };
    let ratios: Option<Vec<f64>> = (0..RESAMPLINGS)
        .map(|_| of_medians(&resample(first), &resample(second)))
        .collect();
    let ratios = sorted(&ratios?)?;
    Some([quantile(&ratios, 0.025), ratio, quantile(&ratios, 0.975)])
}

fn sorted(samples: &[f64]) -> Option<Vec<f64>> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    (!sorted.is_empty()).then_some(sorted)
}

/// Between the two samples that are next to it.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    below + (above - below) * at.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_and_outliers_are_those_of_the_textbook() {
        let summary = summary(&[9.0, 1.0, 2.0, 3.0, 4.0, 5.0, 100.0]).unwrap();
        assert_eq!(summary.median, 4.0);
        assert_eq!((summary.lower_quartile, summary.upper_quartile), (2.5, 7.0));
        assert_eq!(summary.outliers, [100.0]);
        assert_eq!(super::summary(&[]), None);
    }

    #[test]
    fn a_ratio_of_equal_samples_is_one_and_of_scattered_ones_is_unsure() {
        assert_eq!(ratio(&[2.0, 2.0], &[2.0, 2.0]), Some([1.0, 1.0, 1.0]));
        let first = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0];
        let second = first.map(|x| 2.0 * x);
        let [low, ratio, high] = ratio(&first, &second).unwrap();
        assert!(
            low < ratio && ratio < high && high < 0.6,
            "{low} {ratio} {high}"
        );
        assert!((ratio - 0.5).abs() < 1e-12);
        assert_eq!(super::ratio(&first, &[]), None);
    }
}
