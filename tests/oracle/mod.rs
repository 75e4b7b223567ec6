//! An independent reading of `docs/algorithm.md`, twice.
//!
//! [`mask`] is the bit-exact definition, written to be obvious: one weight at a time, `i128` for every integer, `f64` for
//! every float. A float operation of the page is computed in `f64`, which holds the product of two f32 exactly, and then
//! rounded to f32 once. (The one sum, `r_i + c_j`, may be rounded in f64 first; 53 bits are enough that the second
//! rounding gives what one rounding of the exact sum gives.) Selection is a sort.
//!
//! [`mask_real`] is what the page is an approximation of: real numbers in place of keys, the true logarithm, nothing
//! rounded, clamped or flushed. [`mask_unquantised`] is in between: real numbers too, but with the logarithm that a
//! float's bit pattern is, straight between powers of two. The integer masks must be near both; how near is measured in
//! the test that compares them.
//!
//! Nothing here uses the crate, and nothing here is fast. Arguments that make no sense panic.

#![allow(
    dead_code,
    reason = "a test crate that includes this module need not use all of it"
)]

/// How a weight is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dtype {
    /// bfloat16.
    Bf16,
    /// IEEE half precision.
    F16,
    /// IEEE single precision.
    F32,
}

/// Which weights of a row are pruned, once they are scored.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    /// The `floor(p C + 0.5)` smallest threshold keys of each row.
    Sparsity {
        /// Fraction of each row.
        p: f64,
        /// Columns in a block of the EWMA.
        block: usize,
        /// The gain of the EWMA is `1 / 2^gain_shift`.
        gain_shift: u32,
    },
    /// The `floor(p C + 0.5)` smallest scores of each row.
    Exact {
        /// Fraction of each row.
        p: f64,
    },
    /// Every weight whose normalised score is below `x`.
    Lambda {
        /// The fixed threshold, in mean absolute deviations.
        x: f64,
        /// Columns in a block of the EWMA.
        block: usize,
        /// The gain of the EWMA is `1 / 2^gain_shift`.
        gain_shift: u32,
    },
    /// All but the `n` largest scores of every `m` columns.
    NOfM {
        /// Weights kept in a group.
        n: usize,
        /// Columns in a group.
        m: usize,
    },
}

/// What a weight is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Score {
    /// `w^2 n_j / (1 - n_j/S)`; needs norms.
    Swiftprune,
    /// `w^2 / (1 - n_j/S)`; needs norms.
    SwiftpruneWeight,
    /// `w^2 n_j`; needs norms.
    Wanda,
    /// `(|w|/rowsum + |w|/colsum)^2 sqrt(n_j)`; without norms the last term is 1.
    Ria,
    /// `w^2`; norms are ignored.
    Magnitude,
    /// `w^2 n_j`, as [`Score::Wanda`]: of norms about the mean, which the plan makes; needs norms.
    Stade,
    /// `w^2 n_j` over the sum of squares of the column; without norms `n_j` is 1.
    Nowag,
    /// The cubes of `|w|` over the norms of row and column, weighed and added, times `n_j^(3/4)`; without norms the last term
    /// is 1.
    ZPruner,
}

/// The bit-exact mask of a `[rows, cols]` tensor of row-major little-endian `bytes`: `true` is pruned.
pub fn mask(
    bytes: &[u8],
    dtype: Dtype,
    rows: usize,
    cols: usize,
    score: Score,
    norms: Option<&[f32]>,
    selection: Selection,
) -> Vec<bool> {
    let weights = decode(bytes, dtype, rows, cols);
    let order = order_keys(&weights, cols, score, norms);
    rows_of(&order, cols)
        .flat_map(|row| select(row, selection))
        .collect()
}

/// The mask of the ideal algorithm in real numbers, with the true logarithm: `true` is pruned.
pub fn mask_real(
    bytes: &[u8],
    dtype: Dtype,
    rows: usize,
    cols: usize,
    score: Score,
    norms: Option<&[f32]>,
    selection: Selection,
) -> Vec<bool> {
    let weights = decode(bytes, dtype, rows, cols);
    let worth = real_scores(&weights, cols, score, norms);
    rows_of(&worth, cols)
        .flat_map(|row| select_real(row, selection, f64::log2))
        .collect()
}

/// [`mask_real`], with the logarithm that the bit pattern of a float is: `e + f` for `2^e (1 + f)`.
pub fn mask_unquantised(
    bytes: &[u8],
    dtype: Dtype,
    rows: usize,
    cols: usize,
    score: Score,
    norms: Option<&[f32]>,
    selection: Selection,
) -> Vec<bool> {
    let weights = decode(bytes, dtype, rows, cols);
    let worth = real_scores(&weights, cols, score, norms);
    let log = |s: f64| {
        let e = s.log2().floor();
        e + (s / e.exp2() - 1.0)
    };
    rows_of(&worth, cols)
        .flat_map(|row| select_real(row, selection, log))
        .collect()
}

// --- What both readings share: the stored number, the columns' part of the score, and k.

/// The stored weights as f64, exactly.
fn decode(bytes: &[u8], dtype: Dtype, rows: usize, cols: usize) -> Vec<f64> {
    let (width, exponent_bits, fraction_bits) = match dtype {
        Dtype::Bf16 => (2, 8, 7),
        Dtype::F16 => (2, 5, 10),
        Dtype::F32 => (4, 8, 23),
    };
    assert_eq!(bytes.len(), rows * cols * width, "bytes of the tensor");
    bytes
        .chunks_exact(width)
        .map(|le| {
            let bits = le.iter().rev().fold(0u32, |v, &b| (v << 8) | u32::from(b));
            let sign = if bits >> (exponent_bits + fraction_bits) == 1 {
                -1.0
            } else {
                1.0
            };
            let exponent = (bits >> fraction_bits) & ((1 << exponent_bits) - 1);
            let fraction = f64::from(bits & ((1 << fraction_bits) - 1));
            let one = f64::from(1u32 << fraction_bits);
            let bias = (1 << (exponent_bits - 1)) - 1;
            sign * match exponent {
                0 => fraction / one * 2f64.powi(1 - bias),
                e if e == (1 << exponent_bits) - 1 => {
                    if fraction == 0.0 {
                        f64::INFINITY
                    } else {
                        f64::NAN
                    }
                }
                e => (1.0 + fraction / one) * 2f64.powi(e as i32 - bias),
            }
        })
        .collect()
}

/// The rows of a row-major matrix; none has no columns.
fn rows_of<T>(matrix: &[T], cols: usize) -> std::slice::ChunksExact<'_, T> {
    assert!(cols > 0 && matrix.len().is_multiple_of(cols));
    matrix.chunks_exact(cols)
}

/// The score that is really used, and `f_j` in f64, divided by the largest.
///
/// `squares` are the sums of squares of the columns.
fn column_factors(
    cols: usize,
    score: Score,
    norms: Option<&[f32]>,
    squares: &[f64],
) -> (Score, Vec<f64>) {
    let ones = vec![1.0; cols];
    let sum: f32 = norms.unwrap_or_default().iter().sum();
    let norms: Vec<f64> = match (score, norms) {
        (Score::Nowag, norms) => {
            let norm =
                |j: usize| norms.map_or(1.0, |n| if sum == 0.0 { 1.0 } else { f64::from(n[j]) });
            let of = |j: usize| match squares[j] {
                0.0 => 0.0,
                square => norm(j).sqrt() / square.sqrt(),
            };
            let factors: Vec<f64> = (0..cols).map(of).collect();
            let largest = factors.iter().copied().fold(0.0, f64::max);
            let scaled = |f: &f64| if largest == 0.0 { 0.0 } else { f / largest };
            return (score, factors.iter().map(scaled).collect());
        }
        (Score::Magnitude, _) | (Score::Ria | Score::ZPruner, None) => return (score, ones),
        (_, None) => panic!("{score:?} needs norms"),
        (_, Some(norms)) => norms.iter().map(|&n| f64::from(n)).collect(),
    };
    assert_eq!(norms.len(), cols, "one norm a column");
    let sum: f64 = norms.iter().sum();
    if sum == 0.0 {
        return (score, ones);
    }
    let factors: Vec<f64> = norms
        .iter()
        .map(|&n| {
            let rest = f64::max(1.0 - n / sum, 0.001);
            match score {
                Score::Swiftprune => (n / rest).sqrt(),
                Score::SwiftpruneWeight => (1.0 / rest).sqrt(),
                Score::Wanda | Score::Stade => n.sqrt(),
                Score::Ria => n.sqrt().sqrt(),
                Score::ZPruner => n.sqrt() * n.sqrt().sqrt(),
                Score::Magnitude | Score::Nowag => 1.0,
            }
        })
        .collect();
    let largest = factors.iter().copied().fold(0.0, f64::max);
    (score, factors.iter().map(|f| f / largest).collect())
}

/// How many weights of a row `--sparsity` prunes, of which `zeros` are zero and `finite` are finite.
fn target(p: f64, cols: usize, zeros: usize, finite: usize) -> usize {
    let k = (p * cols as f64 + 0.5).floor() as usize;
    k.max(zeros).min(finite)
}

// --- The bit-exact definition.

/// The order key of a weight that is zero.
const ZERO: i128 = 0;
/// The order key of a weight whose score vanishes.
const VANISHED: i128 = 1;
/// The order key of NaN and the infinities.
const NON_FINITE: i128 = 0x7F80_0000;
/// The smallest normal f32, as f64.
const SMALLEST_NORMAL: f64 = f32::MIN_POSITIVE as f64;

/// The nearest f32, ties to even.
fn rounded(x: f64) -> f64 {
    f64::from(x as f32)
}

/// [`rounded`], and 0 for what is then at most 2^-126.
fn rounded_or_zero(x: f64) -> f64 {
    let x = rounded(x);
    if x <= SMALLEST_NORMAL { 0.0 } else { x }
}

/// `fixed(w)` of the page.
fn fixed(w: f64) -> i128 {
    if w.is_finite() {
        (w.abs().min(256.0) * 2f64.powi(36)).floor() as i128
    } else {
        0
    }
}

/// `f32(0.5 / sum)`, or 0.
fn half_over(sum: i128) -> f64 {
    if sum == 0 {
        0.0
    } else {
        rounded(0.5 / sum as f64)
    }
}

/// The fraction of finite weights below a tenth of the mean, all by their upper 16 bits.
fn near_zero(weights: &[f64]) -> f64 {
    let upper = |w: f64| f64::from(f32::from_bits((w.abs() as f32).to_bits() & 0xFFFF_0000));
    let mut sizes: Vec<f64> = weights
        .iter()
        .filter(|w| w.is_finite())
        .map(|&w| upper(w))
        .collect();
    sizes.sort_by(f64::total_cmp);
    // In the page's order of addition: equal sizes together, the smallest first.
    let sum: f64 = sizes
        .chunk_by(|a, b| a == b)
        .map(|same| same.len() as f64 * same[0])
        .sum();
    let count = sizes.len().max(1) as f64;
    let limit = upper(f64::from((0.1 * (sum / count)) as f32));
    sizes.iter().filter(|&&size| size < limit).count() as f64 / count
}

/// The order key `o` of every weight.
fn order_keys(weights: &[f64], cols: usize, score: Score, norms: Option<&[f32]>) -> Vec<i128> {
    let rows = weights.len() / cols;
    let square = |w: f64| {
        if w.is_finite() {
            (w.abs().min(256.0).powi(2) * 2f64.powi(60)).floor() as i128
        } else {
            0
        }
    };
    let (mut cols_sums, mut rows_sums) = (vec![0_i128; cols], vec![0_i128; rows]);
    for (index, &w) in weights.iter().enumerate() {
        cols_sums[index % cols] += square(w);
        rows_sums[index / cols] += square(w);
    }
    let total = rows_sums.iter().sum::<i128>() as f64;
    let of_cols: Vec<f64> = cols_sums.iter().map(|&sum| sum as f64).collect();
    let (score, factors) = column_factors(cols, score, norms, &of_cols);
    let factors: Vec<f64> = factors.into_iter().map(rounded_or_zero).collect();
    // Z-Pruner's terms: of rows, and of columns.
    let share = 0.7 * (1.0 - 0.3 * near_zero(weights));
    let z = |sum: f64, count: usize, share: f64| {
        let relative = sum * count as f64 / total;
        match sum {
            0.0 => 0.0,
            _ => rounded((share / (relative * relative.sqrt())).min(2f64.powi(40))),
        }
    };
    let z_of_cols: Vec<f64> = of_cols
        .iter()
        .map(|&sum| z(sum, cols, 1.0 - share))
        .collect();
    let z_of_rows: Vec<f64> = rows_sums
        .iter()
        .map(|&sum| z(sum as f64, rows, share))
        .collect();

    let row_sum = |i: usize| {
        (0..cols)
            .map(|j| fixed(weights[i * cols + j]))
            .sum::<i128>()
    };
    let col_sum = |j: usize| {
        rows_of(weights, cols)
            .map(|row| fixed(row[j]))
            .sum::<i128>()
    };
    let c: Vec<f64> = (0..cols).map(|j| half_over(col_sum(j))).collect();
    let r: Vec<f64> = (0..weights.len() / cols)
        .map(|i| half_over(row_sum(i)))
        .collect();

    weights
        .iter()
        .enumerate()
        .map(|(index, &w)| {
            let (i, j) = (index / cols, index % cols);
            if w == 0.0 {
                return ZERO;
            }
            if !w.is_finite() {
                return NON_FINITE;
            }
            let factor = match score {
                Score::Ria => rounded_or_zero(rounded(r[i] + c[j]) * factors[j]),
                Score::ZPruner => rounded_or_zero(
                    rounded_or_zero(rounded(z_of_rows[i] + z_of_cols[j])) * factors[j],
                ),
                _ => factors[j],
            };
            let value = match score {
                Score::ZPruner => {
                    let a = w.abs().min(256.0);
                    rounded_or_zero(rounded_or_zero(a * a) * a)
                }
                _ => w.abs(),
            };
            let s = rounded(value * factor);
            if s <= SMALLEST_NORMAL {
                VANISHED
            } else {
                i128::from((s as f32).to_bits())
            }
        })
        .collect()
}

/// The mask of one row of order keys.
fn select(order: &[i128], selection: Selection) -> Vec<bool> {
    match selection {
        Selection::Sparsity {
            p,
            block,
            gain_shift,
        } => smallest(&threshold_keys(order, block, gain_shift), order, p),
        Selection::Exact { p } => smallest(order, order, p),
        Selection::Lambda {
            x,
            block,
            gain_shift,
        } => {
            let limit = (2048.0 * x).round() as i128;
            threshold_keys(order, block, gain_shift)
                .iter()
                .zip(order)
                .map(|(&t, &o)| o != NON_FINITE && (t < limit || o <= VANISHED))
                .collect()
        }
        Selection::NOfM { n, m } => order
            .chunks(m)
            .flat_map(|group| {
                // A stable sort leaves ties in the order of their columns.
                let mut best: Vec<usize> = (0..group.len()).collect();
                best.sort_by_key(|&j| -group[j]);
                best.truncate(n);
                (0..group.len()).map(move |j| {
                    let stays = best.contains(&j) && group[j] != ZERO;
                    !stays && group[j] != NON_FINITE
                })
            })
            .collect(),
    }
}

/// Prunes the `k` smallest keys of a row.
fn smallest(keys: &[i128], order: &[i128], p: f64) -> Vec<bool> {
    let zeros = order.iter().filter(|&&o| o == ZERO).count();
    let finite = order.iter().filter(|&&o| o != NON_FINITE).count();
    let mut columns: Vec<usize> = (0..keys.len()).collect();
    columns.sort_by_key(|&j| (keys[j], j));
    let mut pruned = vec![false; keys.len()];
    for &j in &columns[..target(p, keys.len(), zeros, finite)] {
        pruned[j] = true;
    }
    pruned
}

/// The threshold key `t` of every weight of a row.
fn threshold_keys(order: &[i128], block: usize, gain_shift: u32) -> Vec<i128> {
    // `mean` of the page is floor(128 x / c), written so that it fits 32 bits; here it need not.
    let mean = |x: i128, c: i128| (128 * x).div_euclid(c);
    let gain = 1i128 << gain_shift;

    let mut keys = Vec::new();
    let mut ewma: Option<(i128, i128)> = None;
    for group in order.chunks(block) {
        let q: Vec<i128> = group
            .iter()
            .filter(|&&o| o > VANISHED && o < NON_FINITE)
            .map(|o| o / (1 << 13))
            .collect();
        if !q.is_empty() {
            let count = q.len() as i128;
            let m = mean(q.iter().sum(), count);
            let h = (m + 64).div_euclid(128);
            let e = mean(q.iter().map(|q| (q - h).abs()).sum(), count);
            ewma = Some(match ewma {
                None => (m, e),
                Some((mu, d)) => (mu + (m - mu).div_euclid(gain), d + (e - d).div_euclid(gain)),
            });
        }
        for &o in group {
            keys.push(match (o, ewma) {
                (ZERO, _) => -32768,
                (VANISHED, _) => -32767,
                (NON_FINITE, _) => 32767,
                (_, None) => unreachable!("a live weight starts the average"),
                (o, Some((mu, d))) => {
                    let reciprocal = 0xFFFF_FFFF / d.max(256);
                    let q = o / (1 << 13);
                    let distance = 32 * q - mu.div_euclid(4);
                    let z = rounded(distance as f64 * (reciprocal as f64 * 2f64.powi(-19)));
                    (z.trunc() as i128).clamp(-32766, 32766)
                }
            });
        }
    }
    keys
}

// --- The real-valued algorithm.

/// The score of every weight, with the weights apart that have none.
fn real_scores(weights: &[f64], cols: usize, score: Score, norms: Option<&[f32]>) -> Vec<Real> {
    let mut of_cols = vec![0.0; cols];
    let mut of_rows = vec![0.0; weights.len() / cols];
    for (index, w) in weights.iter().enumerate().filter(|(_, w)| w.is_finite()) {
        of_cols[index % cols] += w * w;
        of_rows[index / cols] += w * w;
    }
    let (score, factors) = column_factors(cols, score, norms, &of_cols);
    // The share of small weights is a count, not a real number.
    let share = 0.7 * (1.0 - 0.3 * near_zero(weights));
    let size = |w: &f64| if w.is_finite() { w.abs() } else { 0.0 };
    let mut row_sums = vec![0.0; weights.len() / cols];
    let mut col_sums = vec![0.0; cols];
    for (index, w) in weights.iter().enumerate() {
        row_sums[index / cols] += size(w);
        col_sums[index % cols] += size(w);
    }
    weights
        .iter()
        .enumerate()
        .map(|(index, &w)| {
            let (i, j) = (index / cols, index % cols);
            if w == 0.0 {
                Real::Zero
            } else if !w.is_finite() {
                Real::NonFinite
            } else if score == Score::Ria {
                Real::Finite(w.abs() * (1.0 / row_sums[i] + 1.0 / col_sums[j]) * factors[j])
            } else if score == Score::ZPruner {
                // As the paper has it: normalised by row and by column, over the deviations of the two matrices.
                let by_row = w.abs() / f64::sqrt(of_rows[i]) * (cols as f64).sqrt();
                let by_col = w.abs() / f64::sqrt(of_cols[j]) * (of_rows.len() as f64).sqrt();
                let z = share * by_row.powi(3) + (1.0 - share) * by_col.powi(3);
                Real::Finite(z * factors[j])
            } else {
                Real::Finite(w.abs() * factors[j])
            }
        })
        .collect()
}

/// A weight as the real-valued algorithm sees it, in the order of pruning.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum Real {
    /// The weight is zero.
    Zero,
    /// The score, or the normalised score, of a finite weight.
    Finite(f64),
    /// NaN or an infinity.
    NonFinite,
}

/// The mask of one row of real scores.
fn select_real(row: &[Real], selection: Selection, log: impl Fn(f64) -> f64) -> Vec<bool> {
    match selection {
        Selection::Sparsity {
            p,
            block,
            gain_shift,
        } => smallest_real(&normalised(row, block, gain_shift, log), p),
        Selection::Exact { p } => smallest_real(row, p),
        Selection::Lambda {
            x,
            block,
            gain_shift,
        } => normalised(row, block, gain_shift, log)
            .iter()
            .map(|&z| z < Real::Finite(x))
            .collect(),
        Selection::NOfM { n, m } => row
            .chunks(m)
            .flat_map(|group| {
                let mut best: Vec<usize> = (0..group.len()).collect();
                best.sort_by(|&a, &b| group[b].partial_cmp(&group[a]).expect("no NaN"));
                best.truncate(n);
                (0..group.len()).map(move |j| match group[j] {
                    Real::Zero => true,
                    Real::Finite(_) => !best.contains(&j),
                    Real::NonFinite => false,
                })
            })
            .collect(),
    }
}

/// Prunes the `k` smallest of a row.
fn smallest_real(row: &[Real], p: f64) -> Vec<bool> {
    let zeros = row.iter().filter(|&&x| x == Real::Zero).count();
    let finite = row.iter().filter(|&&x| x != Real::NonFinite).count();
    let mut columns: Vec<usize> = (0..row.len()).collect();
    columns.sort_by(|&a, &b| row[a].partial_cmp(&row[b]).expect("no NaN"));
    let mut pruned = vec![false; row.len()];
    for &j in &columns[..target(p, row.len(), zeros, finite)] {
        pruned[j] = true;
    }
    pruned
}

/// `z = (log s - mu) / d` of every weight of a row; minus infinity where the score is 0.
fn normalised(row: &[Real], block: usize, gain_shift: u32, log: impl Fn(f64) -> f64) -> Vec<Real> {
    let gain = 0.5f64.powi(gain_shift as i32);
    // The floor of the deviation, 256 on the page: two steps of a key with ten fraction bits.
    let floor = 2.0 / 1024.0;
    let mut result = Vec::new();
    let mut ewma: Option<(f64, f64)> = None;
    for group in row.chunks(block) {
        let logs: Vec<f64> = group
            .iter()
            .filter_map(|&x| match x {
                Real::Finite(s) if s > 0.0 => Some(log(s)),
                _ => None,
            })
            .collect();
        if !logs.is_empty() {
            let count = logs.len() as f64;
            let m = logs.iter().sum::<f64>() / count;
            let e = logs.iter().map(|x| (x - m).abs()).sum::<f64>() / count;
            ewma = Some(match ewma {
                None => (m, e),
                Some((mu, d)) => (mu + (m - mu) * gain, d + (e - d) * gain),
            });
        }
        for &x in group {
            result.push(match (x, ewma) {
                (Real::Finite(s), Some((mu, d))) if s > 0.0 => {
                    Real::Finite((log(s) - mu) / d.max(floor))
                }
                (Real::Finite(_), _) => Real::Finite(f64::NEG_INFINITY),
                (other, _) => other,
            });
        }
    }
    result
}
