//! Whole weights a row for every tensor, so that all together are as many as were asked for.
//!
//! Every tensor gets the whole part of what its block's sparsity asks of a row. Some get one more, those with the largest
//! fractions first, so that the total comes out to the last weight: which tensors can make it up is found by counting the sums
//! that are within reach. Where no choice of tensors makes the total, the nearest below it is taken.

/// A tensor whose rows are to be settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    /// Rows, of all experts.
    pub(super) rows: u64,
    /// Weights a row.
    pub(super) in_features: usize,
    /// Weights to prune in each row, with their fraction.
    pub(super) asked: f64,
}

/// Tensors that the last step chooses among: enough for any model's numbers of rows, and a bounded search.
const WINDOW: usize = 512;
/// The most units that it makes up.
const MOST_UNITS: u64 = 1 << 15;

/// Weights to prune in each row of every tensor, `total` in all where that can be made up of whole rows.
pub(super) fn settle(shares: &[Share], total: u64) -> Vec<usize> {
    let mut per_row: Vec<usize> = shares
        .iter()
        .map(|share| (share.asked.max(0.0) as usize).min(share.in_features))
        .collect();
    let made: u64 = shares
        .iter()
        .zip(&per_row)
        .map(|(share, &k)| share.rows * k as u64)
        .sum();
    let mut missing = total.saturating_sub(made);
    let mut order: Vec<usize> = (0..shares.len())
        .filter(|&i| per_row[i] < shares[i].in_features && shares[i].rows > 0)
        .collect();
    let fraction = |&i: &usize| shares[i].asked - per_row[i] as f64;
    order.sort_by(|a, b| fraction(b).total_cmp(&fraction(a)).then(a.cmp(b)));
    let order: Vec<(usize, u64)> = order.into_iter().map(|i| (i, shares[i].rows)).collect();

    // Down to what a window of tensors can make up in several ways.
    let unit = order
        .iter()
        .fold(0, |unit, &(_, rows)| divisor(unit, rows))
        .max(1);
    let mut rest = order.as_slice();
    while let Some((&(tensor, rows), others)) = rest.split_first() {
        let window = &rest[..rest.len().min(WINDOW)];
        let reach: u64 = window.iter().map(|(_, rows)| rows).sum();
        if missing <= reach / 2 && missing / unit <= MOST_UNITS {
            break;
        }
        if rows <= missing {
            per_row[tensor] += 1;
            missing -= rows;
        }
        rest = others;
    }
    for tensor in chosen(&rest[..rest.len().min(WINDOW)], missing, unit) {
        per_row[tensor] += 1;
    }
    per_row
}

/// Tensors whose rows add up to `missing`, or to the nearest sum below that there is; the first ones where there is a choice.
///
/// Rows are multiples of `unit`.
fn chosen(tensors: &[(usize, u64)], missing: u64, unit: u64) -> Vec<usize> {
    let units = (missing / unit).min(MOST_UNITS) as usize;
    // Sums of each tensor and those behind it, one bit each.
    let mut reach = vec![vec![false; units + 1]];
    reach[0][0] = true;
    for &(_, rows) in tensors.iter().rev() {
        let behind = &reach[reach.len() - 1];
        let step = (rows / unit) as usize;
        let sum =
            |sum: usize| behind[sum] || sum.checked_sub(step).is_some_and(|less| behind[less]);
        reach.push((0..=units).map(sum).collect());
    }
    let whole = reach.pop().unwrap_or_default();
    let mut left = whole.iter().rposition(|&reached| reached).unwrap_or(0);
    let mut chosen = Vec::new();
    for &(tensor, rows) in tensors {
        let behind = reach.pop().unwrap_or_default();
        if let Some(less) = left.checked_sub((rows / unit) as usize)
            && behind[less]
        {
            chosen.push(tensor);
            left = less;
        }
    }
    chosen
}

/// The greatest common divisor.
fn divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zeros(shares: &[Share], per_row: &[usize]) -> u64 {
        shares
            .iter()
            .zip(per_row)
            .map(|(share, &k)| share.rows * k as u64)
            .sum()
    }

    /// A llama's matrices, each block with a sparsity of its own.
    fn llama(
        blocks: usize,
        hidden: u64,
        kv: u64,
        wide: u64,
        sparsity: impl Fn(usize) -> f64,
    ) -> Vec<Share> {
        let shapes = [
            (hidden, hidden),
            (kv, hidden),
            (kv, hidden),
            (hidden, hidden),
            (wide, hidden),
            (wide, hidden),
            (hidden, wide),
        ];
        let of_block = |block| {
            let sparsity = sparsity(block);
            shapes.map(|(rows, width)| Share {
                rows,
                in_features: width as usize,
                asked: sparsity * width as f64,
            })
        };
        (0..blocks).flat_map(of_block).collect()
    }

    #[test]
    fn the_total_of_real_shapes_is_made_to_the_last_weight() {
        for (blocks, hidden, kv, wide) in [
            (30, 576, 192, 1536),
            (4, 192, 64, 512),
            (32, 4096, 4096, 11008),
            (126, 16384, 1024, 53248),
        ] {
            for asked in [0.5, 0.6, 0.7, 0.333] {
                let at = |block: usize| asked - 0.1 + 0.2 * block as f64 / (blocks - 1) as f64;
                let shares = llama(blocks, hidden, kv, wide, at);
                let uniform = llama(blocks, hidden, kv, wide, |_| asked);
                let total: u64 = uniform
                    .iter()
                    .map(|s| s.rows * (s.asked + 0.5).floor() as u64)
                    .sum();
                let weights: f64 = shares
                    .iter()
                    .map(|s| (s.rows * s.in_features as u64) as f64)
                    .sum();
                // As the plan does it: around the mean that a uniform request has once it is rounded.
                let mean = total as f64 / weights;
                let shares: Vec<Share> = shares
                    .iter()
                    .map(|s| Share {
                        asked: s.asked + (mean - asked) * s.in_features as f64,
                        ..*s
                    })
                    .collect();
                let found = settle(&shares, total);
                assert_eq!(zeros(&shares, &found), total, "{blocks} {asked}");
                for (share, k) in shares.iter().zip(found) {
                    assert!((share.asked - k as f64).abs() < 1.0, "{share:?} {k}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_more_than_one_weight_off_and_never_more_than_the_total(
            shares in prop::collection::vec((1..50_u64, 1..40_usize, 0.0..=1.0_f64), 1..30),
        ) {
            let shares: Vec<Share> = shares
                .into_iter()
                .map(|(rows, in_features, p)| Share { rows, in_features, asked: p * in_features as f64 })
                .collect();
            let total = shares.iter().map(|s| s.rows as f64 * s.asked).sum::<f64>().floor() as u64;
            let found = settle(&shares, total);
            let made = zeros(&shares, &found);
            prop_assert!(made <= total);
            let least = shares.iter().map(|s| s.rows).max().unwrap_or(0);
            prop_assert!(total - made <= least, "{} of {}", made, total);
            for (share, k) in shares.iter().zip(found) {
                prop_assert!(k <= share.in_features && (share.asked - k as f64).abs() <= 1.0);
            }
        }
    }

    #[test]
    fn a_total_that_no_tensors_make_is_approached_from_below() {
        let share = Share {
            rows: 4,
            in_features: 10,
            asked: 2.5,
        };
        assert_eq!(settle(&[share, share], 4 * 2 + 4 * 2 + 6), [3, 2]);
    }

    #[test]
    fn more_tensors_than_a_window_are_settled_too() {
        let shares: Vec<Share> = (0..5000)
            .map(|i| Share {
                rows: [2048, 7168, 1536][i % 3],
                in_features: 2048,
                asked: 1000.0 + (i % 97) as f64 / 97.0,
            })
            .collect();
        let exact: f64 = shares.iter().map(|s| s.rows as f64 * s.asked).sum();
        let total = exact as u64 / 512 * 512;
        assert_eq!(zeros(&shares, &settle(&shares, total)), total);
    }
}
