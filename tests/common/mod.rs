//! What the tests of devices share: tensors that no two devices may see differently, and the comparison of masks.

#![allow(
    dead_code,
    reason = "a test crate that includes this module need not use all of it"
)]

use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::device::Mask;
use swiftprune_wgpu::device::{Device, DeviceChoice};
use swiftprune_wgpu::device::{Factors, Recipe, Sums, Terms};
use swiftprune_wgpu::plan::{Ewma, Pattern, Selection};
use swiftprune_wgpu::plan::{Score, WeightsUse};

use crate::oracle;

/// The CPU device, the twin of every other.
pub fn cpu() -> Device {
    Device::open(&DeviceChoice::Cpu).expect("the CPU is always there")
}

pub use swiftprune_wgpu::internals::{WeightMatrix, random_norms};

/// The factors of a tensor, as `docs/algorithm.md` has them; RIA's terms are made of the `device`'s own sums.
pub fn factors(
    device: &Device,
    tensor: &WeightMatrix,
    score: &Score,
    norms: Option<&[f32]>,
) -> Result<Factors, swiftprune_wgpu::device::Error> {
    if score.weights.needs_squares() {
        // The oracle makes its own of the weights.
        let squares = device.statistics(tensor.view(), score)?;
        let any = Selection::Exact { sparsity: 0.5 };
        return Ok(Recipe::new(any, score, tensor.in_features, norms, squares.as_ref()).factors);
    }
    let terms = if score.weights == WeightsUse::Sums {
        Some(terms(&device.sums(tensor.view())?))
    } else {
        None
    };
    let column = score.column_factors(norms, None, tensor.in_features);
    Ok(Factors::new(column, terms))
}

/// RIA's reciprocal terms from sums: `f32(0.5 / f64(sum))`, 0 where the sum is 0.
pub fn terms(sums: &Sums) -> Terms {
    let reciprocal = |&sum: &u64| match sum {
        0 => 0.0,
        sum => (0.5 / sum as f64) as f32,
    };
    Terms {
        column: sums.column.iter().map(reciprocal).collect(),
        row: sums.row.iter().map(reciprocal).collect(),
    }
}

/// The oracle's selection in the crate's terms.
pub fn selection(selection: oracle::Selection) -> Selection {
    let ewma = |block, gain_shift| Ewma::new(block, gain_shift).expect("a block and a gain");
    match selection {
        oracle::Selection::Sparsity {
            p,
            block,
            gain_shift,
        } => Selection::Ewma {
            sparsity: p,
            ewma: ewma(block, gain_shift),
        },
        oracle::Selection::Exact { p } => Selection::Exact { sparsity: p },
        oracle::Selection::Lambda {
            x,
            block,
            gain_shift,
        } => Selection::Lambda {
            lambda: x,
            ewma: ewma(block, gain_shift),
        },
        oracle::Selection::NOfM { n, m } => {
            Selection::Pattern(Pattern::new(n as u32, m as u32).expect("a pattern"))
        }
    }
}

/// The oracle's score in the crate's terms.
pub fn score(score: oracle::Score) -> &'static Score {
    let name = match score {
        oracle::Score::Swiftprune => "swiftprune",
        oracle::Score::SwiftpruneWeight => "swiftprune-weight",
        oracle::Score::Wanda => "wanda",
        oracle::Score::Ria => "ria",
        oracle::Score::Magnitude => "magnitude",
        oracle::Score::Stade => "stade",
        oracle::Score::Nowag => "nowag",
        oracle::Score::ZPruner => "z-pruner",
    };
    Score::by_name(name).expect("a registered score")
}

/// The oracle's dtype in the crate's terms.
pub fn dtype(dtype: oracle::Dtype) -> Dtype {
    match dtype {
        oracle::Dtype::Bf16 => Dtype::Bf16,
        oracle::Dtype::F16 => Dtype::F16,
        oracle::Dtype::F32 => Dtype::F32,
    }
}

/// The crate's dtype in the oracle's terms.
pub fn oracle_dtype(dtype: Dtype) -> oracle::Dtype {
    match dtype {
        Dtype::Bf16 => oracle::Dtype::Bf16,
        Dtype::F16 => oracle::Dtype::F16,
        Dtype::F32 => oracle::Dtype::F32,
    }
}

/// A mask from one bool a weight.
pub fn mask_of(rows: usize, in_features: usize, pruned: &[bool]) -> Mask {
    assert_eq!(pruned.len(), rows * in_features);
    let mut mask = Mask::empty(rows, in_features);
    for (index, _) in pruned.iter().enumerate().filter(|&(_, &goes)| goes) {
        mask.set(index / in_features, index % in_features);
    }
    mask
}

/// In what two masks differ, as a sentence; `None` when every bit, the spare ones of a row's last word too, is the same.
pub fn difference(expected: &Mask, got: &Mask) -> Option<String> {
    if (expected.rows, expected.in_features) != (got.rows, got.in_features) {
        return Some(format!(
            "the mask is {} x {}, not {} x {}",
            got.rows, got.in_features, expected.rows, expected.in_features
        ));
    }
    if expected.words.len() != got.words.len() {
        return Some(format!(
            "the mask has {} words, not {}",
            got.words.len(),
            expected.words.len()
        ));
    }
    let changed = || {
        let words = expected.words.iter().zip(&got.words);
        words.map(|(a, b)| a ^ b).enumerate()
    };
    let (word, bits) = changed().find(|&(_, bits)| bits != 0)?;
    let total: u32 = changed().map(|(_, bits)| bits.count_ones()).sum();
    let words_per_row = Mask::words_per_row(expected.in_features);
    let column = word % words_per_row * 32 + bits.trailing_zeros() as usize;
    let got = got.words[word] >> bits.trailing_zeros() & 1 == 1;
    Some(format!(
        "{total} bits of the {} x {} mask differ, the first in row {} column {column}: pruned = {got}, and {} is right",
        expected.rows,
        expected.in_features,
        word / words_per_row,
        !got
    ))
}
