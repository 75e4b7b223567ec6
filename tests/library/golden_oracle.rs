//! The two independent readings of `docs/algorithm.md`, the golden masks of `tests/golden` and the oracle of
//! `tests/oracle`, agree on every bit, and the integers of the page are near the real numbers that they stand for.

use crate::golden::{Case, Expected};
use crate::oracle::{Dtype, Score, Selection};
use crate::{golden, oracle};

/// The oracle's mask of a case.
fn oracle_mask(case: &Case, expected: &Expected) -> Vec<bool> {
    oracle::mask(
        &case.weights,
        case.dtype,
        case.rows,
        case.cols,
        expected.score,
        expected.with_norms.then_some(case.norms.as_slice()),
        expected.selection,
    )
}

/// Every mask of every case that the oracle sees differently, as a line that says where.
fn differences(cases: &[Case]) -> Vec<String> {
    let mut lines = Vec::new();
    for case in cases {
        for expected in &case.masks {
            let got = oracle_mask(case, expected);
            assert_eq!(got.len(), expected.pruned.len(), "{}", expected.name);
            let wrong: Vec<usize> = (0..got.len())
                .filter(|&i| got[i] != expected.pruned[i])
                .collect();
            if let Some(&first) = wrong.first() {
                lines.push(format!(
                    "{}: {} of {} weights differ, the first in row {} column {}, where the oracle says pruned = {}",
                    expected.name,
                    wrong.len(),
                    got.len(),
                    first / case.cols,
                    first % case.cols,
                    got[first],
                ));
            }
        }
    }
    lines
}

/// The cases with this flavour.
fn flavour(name: &str) -> Vec<Case> {
    let mut cases = golden::cases();
    cases.retain(|case| case.name.starts_with(name));
    assert!(!cases.is_empty(), "{name}");
    cases
}

#[test]
fn the_oracle_computes_every_golden_mask() {
    let cases = golden::cases();
    assert_eq!(cases.len(), golden::CASES);
    let masks: usize = cases.iter().map(|case| case.masks.len()).sum();
    assert_eq!(masks, golden::MASKS);
    let lines = differences(&cases);
    assert!(lines.is_empty(), "{}", lines.join("\n"));
}

#[test]
fn one_flipped_bit_of_a_mask_is_noticed() {
    let mut cases = flavour("tailed-bf16-7x333");
    let mut flipped = 0;
    for (i, expected) in cases[0].masks.iter_mut().enumerate() {
        let at = i * 43 % expected.pruned.len();
        expected.pruned[at] = !expected.pruned[at];
        flipped += 1;
    }
    assert_eq!(differences(&cases).len(), flipped);
}

#[test]
fn a_kept_weight_that_becomes_zero_is_noticed_in_every_mask() {
    for mut case in flavour("tailed") {
        let width = case.weights.len() / (case.rows * case.cols);
        for expected in std::mem::take(&mut case.masks) {
            let kept = expected.pruned.iter().position(|pruned| !pruned);
            let at = kept.expect("some weight is kept") * width;
            let whole = case.weights.clone();
            case.weights[at..at + width].fill(0);
            case.masks = vec![expected];
            assert_eq!(
                differences(std::slice::from_ref(&case)).len(),
                1,
                "{}",
                case.masks[0].name
            );
            case.weights = whole;
        }
    }
}

#[test]
fn a_changed_norm_is_noticed_by_the_scores_that_use_norms_and_by_no_other() {
    for mut case in flavour("tailed-bf16") {
        for norm in case.norms.iter_mut().step_by(2) {
            *norm *= 64.0;
        }
        // `swiftprune-weight` sees only a column that carries much of S.
        case.norms[2] = 1e12;
        let lines = differences(std::slice::from_ref(&case));
        for expected in &case.masks {
            let noticed = lines
                .iter()
                .any(|line| line.starts_with(&format!("{}:", expected.name)));
            let uses_norms = expected.with_norms && expected.score != Score::Magnitude;
            assert_eq!(noticed, uses_norms, "{}", expected.name);
        }
    }
}

// --- Integers against real numbers.

/// Uniform numbers in (0, 1] that are the same everywhere (xorshift64*).
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        (high as f64 + 1.0) / 2f64.powi(32)
    }

    fn gaussian(&mut self) -> f64 {
        (-2.0 * self.uniform().ln()).sqrt() * (std::f64::consts::TAU * self.uniform()).cos()
    }

    /// Student's t with two degrees of freedom: far outliers.
    fn heavy(&mut self) -> f64 {
        self.gaussian() / (-self.uniform().ln()).sqrt()
    }
}

/// A tensor of random weights, stored as `dtype`, and log-normal norms.
fn random_layer(
    seed: u64,
    dtype: Dtype,
    rows: usize,
    cols: usize,
    heavy: bool,
) -> (Vec<u8>, Vec<f32>) {
    let mut random = Random(seed);
    let weights = (0..rows * cols)
        .flat_map(|_| {
            let w = 0.02
                * if heavy {
                    random.heavy()
                } else {
                    random.gaussian()
                };
            match dtype {
                Dtype::Bf16 => half::bf16::from_f64(w).to_le_bytes().to_vec(),
                Dtype::F16 => half::f16::from_f64(w).to_le_bytes().to_vec(),
                Dtype::F32 => (w as f32).to_le_bytes().to_vec(),
            }
        })
        .collect();
    let norms = (0..cols)
        .map(|_| (1.5 * random.gaussian()).exp() as f32)
        .collect();
    (weights, norms)
}

/// Every score of weights as they are, and whether it is given norms.
const SCORES: &[(Score, bool)] = &[
    (Score::Swiftprune, true),
    (Score::SwiftpruneWeight, true),
    (Score::Wanda, true),
    (Score::Ria, true),
    (Score::Ria, false),
    (Score::Magnitude, true),
    (Score::Nowag, true),
];

/// The score of cubed weights.
const CUBED: &[(Score, bool)] = &[(Score::ZPruner, true)];

/// The EWMA selections of the golden file.
const EWMA: [Selection; 5] = [
    sparsity(0.5, 128, 3),
    sparsity(0.3, 128, 3),
    sparsity(0.9, 32, 2),
    lambda(-0.5, 128, 3),
    lambda(0.25, 128, 3),
];

const fn sparsity(p: f64, block: usize, gain_shift: u32) -> Selection {
    Selection::Sparsity {
        p,
        block,
        gain_shift,
    }
}

const fn lambda(x: f64, block: usize, gain_shift: u32) -> Selection {
    Selection::Lambda {
        x,
        block,
        gain_shift,
    }
}

/// One of the oracle's three masks.
type Mask = fn(&[u8], Dtype, usize, usize, Score, Option<&[f32]>, Selection) -> Vec<bool>;

/// The largest fraction of weights in which the bit-exact mask that selects `a` and the `other` that selects `b` differ,
/// over every dtype, score and tail of the weights.
fn largest_disagreement(other: Mask, a: Selection, b: Selection) -> f64 {
    disagreement(SCORES, other, a, b)
}

fn disagreement(scores: &[(Score, bool)], other: Mask, a: Selection, b: Selection) -> f64 {
    let (rows, cols) = (32, 1000);
    let mut largest = 0.0f64;
    for (seed, dtype) in [(1, Dtype::Bf16), (2, Dtype::F16), (3, Dtype::F32)] {
        for heavy in [false, true] {
            let (weights, norms) = random_layer(seed, dtype, rows, cols, heavy);
            for &(score, with_norms) in scores {
                let norms = with_norms.then_some(norms.as_slice());
                let exact = oracle::mask(&weights, dtype, rows, cols, score, norms, a);
                let real = other(&weights, dtype, rows, cols, score, norms, b);
                let differ = exact.iter().zip(&real).filter(|(a, b)| a != b).count();
                largest = largest.max(differ as f64 / exact.len() as f64);
            }
        }
    }
    largest
}

/// Measured over four seeds: at most 0.00044 of the weights, 0.0001 on average.
const QUANTISATION: f64 = 0.001;
/// Measured: at most 0.0034 of the weights. Three times the deviation is three times as many scores to a threshold key.
const QUANTISATION_OF_CUBES: f64 = 0.005;
/// Measured over four seeds: at most 0.0045 of the weights (at 90 %, block 32), 0.002 on average.
const LOGARITHM_AT_A_SPARSITY: f64 = 0.0065;
/// Measured over four seeds: at most 0.0100 of the weights, 0.005 on average: what is pruned is not held to a number.
const LOGARITHM_AT_A_LAMBDA: f64 = 0.015;
/// Measured over four seeds: none, but an f32 can round two scores to a tie.
const ROUNDING: f64 = 0.0001;

#[test]
fn the_ewma_in_integers_agrees_with_the_same_in_real_numbers() {
    for selection in EWMA {
        let differ = largest_disagreement(oracle::mask_unquantised, selection, selection);
        assert!(differ <= QUANTISATION, "{selection:?}: {differ}");
    }
}

#[test]
fn cubes_agree_too_though_their_logarithms_lie_further_apart_than_threshold_keys() {
    for selection in EWMA {
        let differ = disagreement(CUBED, oracle::mask_unquantised, selection, selection);
        assert!(differ <= QUANTISATION_OF_CUBES, "{selection:?}: {differ}");
    }
    let exact = Selection::Exact { p: 0.5 };
    let differ = disagreement(CUBED, oracle::mask_real, exact, exact);
    assert!(differ <= ROUNDING, "{differ}");
    let (right, wrong) = (sparsity(0.5, 128, 3), sparsity(0.5, 64, 3));
    let differ = disagreement(CUBED, oracle::mask_unquantised, right, wrong);
    assert!(differ > 2.0 * QUANTISATION_OF_CUBES, "{wrong:?}: {differ}");
}

#[test]
fn the_logarithm_of_the_bit_pattern_prunes_nearly_what_the_true_one_prunes() {
    for selection in EWMA {
        let differ = largest_disagreement(oracle::mask_real, selection, selection);
        let bound = match selection {
            Selection::Lambda { .. } => LOGARITHM_AT_A_LAMBDA,
            _ => LOGARITHM_AT_A_SPARSITY,
        };
        assert!(differ <= bound, "{selection:?}: {differ}");
    }
}

#[test]
fn exact_selection_and_patterns_agree_with_a_sort_of_real_scores() {
    for selection in [
        Selection::Exact { p: 0.5 },
        Selection::NOfM { n: 2, m: 4 },
        Selection::NOfM { n: 4, m: 8 },
        Selection::NOfM { n: 1, m: 4 },
    ] {
        let differ = largest_disagreement(oracle::mask_real, selection, selection);
        assert!(differ <= ROUNDING, "{selection:?}: {differ}");
    }
}

#[test]
fn the_bounds_are_too_tight_for_another_gain_block_or_threshold() {
    let right = sparsity(0.5, 128, 3);
    for wrong in [sparsity(0.5, 128, 4), sparsity(0.5, 64, 3)] {
        let differ = largest_disagreement(oracle::mask_unquantised, right, wrong);
        assert!(differ > 3.0 * QUANTISATION, "{wrong:?}: {differ}");
    }
    for wrong in [sparsity(0.52, 128, 3), Selection::Exact { p: 0.5 }] {
        let differ = largest_disagreement(oracle::mask_real, right, wrong);
        assert!(differ > LOGARITHM_AT_A_SPARSITY, "{wrong:?}: {differ}");
    }
    let (right, wrong) = (lambda(0.25, 128, 3), lambda(0.3, 128, 3));
    let differ = largest_disagreement(oracle::mask_real, right, wrong);
    assert!(differ > LOGARITHM_AT_A_LAMBDA, "{wrong:?}: {differ}");
}
