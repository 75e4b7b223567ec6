//! The sparsity of each block, before it is rounded to whole weights.
//!
//! All rules are one line: the block's signal, brought to a range of twice the spread, less its mean over the weights, plus
//! the sparsity that was asked for. They differ in the signal: OWL takes minus the share of outliers, DLP the median score,
//! ATP the place of the block.

/// A block as a rule sees it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Signal {
    /// Weights that are pruned in it.
    pub(super) weights: u64,
    /// The higher, the sparser; `None` for a block of which nothing is known, which gets the mean.
    pub(super) value: Option<f64>,
}

/// The sparsity of each block, and the spread that it took: less than was asked for where a block would have gone below 0 or
/// above 1. The mean over all weights is `mean`.
pub(super) fn sparsities(signals: &[Signal], mean: f64, spread: f64) -> (Vec<f64>, f64) {
    let known = || {
        signals
            .iter()
            .filter_map(|signal| Some((signal, signal.value?)))
    };
    let least = known()
        .map(|(_, value)| value)
        .fold(f64::INFINITY, f64::min);
    let most = known()
        .map(|(_, value)| value)
        .fold(f64::NEG_INFINITY, f64::max);
    // Infinities where nothing is known.
    if most <= least {
        return (vec![mean; signals.len()], spread);
    }
    // From 0 to 1.
    let place = |value: f64| (value - least) / (most - least);
    let weights: f64 = known().map(|(signal, _)| signal.weights as f64).sum();
    let centre: f64 = known()
        .map(|(signal, value)| signal.weights as f64 * place(value))
        .sum();
    let centre = centre / weights;
    // The least and the most pruned block must stay within 0 and 1.
    let fits = (mean / centre).min((1.0 - mean) / (1.0 - centre)) / 2.0;
    let taken = spread.min(fits);
    let of_block = |signal: &Signal| match signal.value {
        Some(value) => (mean + 2.0 * taken * (place(value) - centre)).clamp(0.0, 1.0),
        None => mean,
    };
    (signals.iter().map(of_block).collect(), taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mean(signals: &[Signal], sparsities: &[f64]) -> f64 {
        let zeros: f64 = signals
            .iter()
            .zip(sparsities)
            .map(|(s, p)| s.weights as f64 * p)
            .sum();
        zeros / signals.iter().map(|s| s.weights as f64).sum::<f64>()
    }

    proptest! {
        #[test]
        fn the_mean_is_what_was_asked_and_no_block_leaves_its_bounds(
            blocks in prop::collection::vec((1..1_000_000_u64, prop::option::weighted(0.9, 0.0..10.0_f64)), 1..40),
            asked in 0.0..=1.0_f64,
            spread in 0.0..=0.5_f64,
        ) {
            let signals: Vec<Signal> = blocks.into_iter().map(|(weights, value)| Signal { weights, value }).collect();
            let (found, taken) = sparsities(&signals, asked, spread);
            prop_assert!((mean(&signals, &found) - asked).abs() < 1e-12);
            prop_assert!(taken <= spread);
            for (signal, &sparsity) in signals.iter().zip(&found) {
                prop_assert!((0.0..=1.0).contains(&sparsity));
                prop_assert!((sparsity - asked).abs() <= 2.0 * taken + 1e-12);
                prop_assert!(signal.value.is_some() || sparsity == asked);
            }
            // The order of the blocks is that of their signals.
            for (a, &of_a) in signals.iter().zip(&found) {
                for (b, &of_b) in signals.iter().zip(&found) {
                    if let (Some(a), Some(b)) = (a.value, b.value) {
                        prop_assert!(a > b || of_a <= of_b + 1e-12);
                    }
                }
            }
        }
    }

    fn places(count: usize) -> Vec<Signal> {
        let signal = |place| Signal {
            weights: 7,
            value: Some(place as f64),
        };
        (0..count).map(signal).collect()
    }

    #[test]
    fn equal_steps_have_one_common_difference() {
        let (found, taken) = sparsities(&places(5), 0.7, 0.1);
        let expected = [0.6, 0.65, 0.7, 0.75, 0.8];
        assert_eq!(taken, 0.1);
        for (found, expected) in found.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn a_spread_that_does_not_fit_is_cut_to_what_does() {
        let (found, taken) = sparsities(&places(3), 0.9, 0.15);
        assert!((taken - 0.1).abs() < 1e-12);
        assert!((found[0] - 0.8).abs() < 1e-12 && (found[2] - 1.0).abs() < 1e-12);
    }

    #[test]
    fn blocks_that_are_all_alike_get_the_same() {
        let alike = [Signal {
            weights: 3,
            value: Some(2.5),
        }; 4];
        assert_eq!(sparsities(&alike, 0.6, 0.1).0, [0.6; 4]);
    }
}
