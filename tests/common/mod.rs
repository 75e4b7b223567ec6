//! What the tests of devices share: tensors that no two devices may see differently, and the comparison of masks.

#![allow(
    dead_code,
    reason = "a test crate that includes this module need not use all of it"
)]

use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::device::{Device, DeviceChoice, Factors, Rows, Sums, Terms};
use swiftprune_wgpu::mask::Mask;
use swiftprune_wgpu::passes::ewma::Ewma;
use swiftprune_wgpu::passes::n_of_m::Pattern;
use swiftprune_wgpu::scores::Score;
use swiftprune_wgpu::selection::Selection;

use crate::oracle;

/// The CPU device, the twin of every other.
pub fn cpu() -> Device {
    Device::open(&DeviceChoice::Cpu).expect("the CPU is always there")
}

/// A matrix of weights in memory that is aligned for every dtype.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// How a weight is stored.
    pub dtype: Dtype,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub in_features: usize,
    words: Vec<u32>,
}

impl Tensor {
    /// A matrix of these stored weights, the low bits of each word.
    pub fn new(
        dtype: Dtype,
        rows: usize,
        in_features: usize,
        weights: impl IntoIterator<Item = u32>,
    ) -> Self {
        let mut words = vec![0; (rows * in_features * dtype.size()).div_ceil(4)];
        let weights = weights.into_iter().take(rows * in_features);
        if dtype == Dtype::F32 {
            for (word, bits) in words.iter_mut().zip(weights) {
                *word = bits;
            }
        } else {
            let halves = bytemuck::cast_slice_mut::<u32, u16>(&mut words);
            for (half, bits) in halves.iter_mut().zip(weights) {
                *half = bits as u16;
            }
        }
        Self {
            dtype,
            rows,
            in_features,
            words,
        }
    }

    /// A matrix of these little-endian bytes.
    pub fn from_bytes(dtype: Dtype, rows: usize, in_features: usize, bytes: &[u8]) -> Self {
        assert_eq!(bytes.len(), rows * in_features * dtype.size());
        let mut tensor = Self::new(dtype, rows, in_features, []);
        tensor.bytes_mut().copy_from_slice(bytes);
        tensor
    }

    /// Random weights: uniform ones of either sign, and among them what is awkward: zeros of both signs, subnormals,
    /// equal weights, the largest and, if asked for, NaN and infinities.
    pub fn random(
        seed: u64,
        dtype: Dtype,
        rows: usize,
        in_features: usize,
        non_finite: bool,
    ) -> Self {
        let mut random = Random::new(seed);
        let weights =
            std::iter::repeat_with(move || random_weight(random.next(), dtype, non_finite));
        Self::new(dtype, rows, in_features, weights)
    }

    /// All its rows.
    pub fn view(&self) -> Rows<'_> {
        self.part(0, self.rows)
    }

    /// Some of its rows.
    pub fn part(&self, first: usize, end: usize) -> Rows<'_> {
        let row = self.in_features * self.dtype.size();
        Rows {
            dtype: self.dtype,
            in_features: self.in_features,
            bytes: &self.bytes()[first * row..end * row],
        }
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &[u8] {
        let len = self.rows * self.in_features * self.dtype.size();
        &bytemuck::cast_slice(&self.words)[..len]
    }

    /// The stored bytes, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        let len = self.rows * self.in_features * self.dtype.size();
        &mut bytemuck::cast_slice_mut(&mut self.words)[..len]
    }

    /// The bits of every `|w|`, widened to f32 by the half crate.
    pub fn magnitudes(&self) -> Vec<f32> {
        match self.dtype {
            Dtype::F32 => bytemuck::cast_slice::<u8, f32>(self.bytes())
                .iter()
                .map(|w| w.abs())
                .collect(),
            Dtype::F16 => bytemuck::cast_slice::<u8, half::f16>(self.bytes())
                .iter()
                .map(|w| w.to_f32().abs())
                .collect(),
            Dtype::Bf16 => bytemuck::cast_slice::<u8, half::bf16>(self.bytes())
                .iter()
                .map(|w| w.to_f32().abs())
                .collect(),
        }
    }
}

/// One stored weight from 64 random bits.
fn random_weight(bits: u64, dtype: Dtype, non_finite: bool) -> u32 {
    let (width, exponent_bits) = match dtype {
        Dtype::Bf16 => (16, 8),
        Dtype::F16 => (16, 5),
        Dtype::F32 => (32, 8),
    };
    let fraction_bits = width - 1 - exponent_bits;
    let infinity = ((1 << exponent_bits) - 1) << fraction_bits;
    let sign = (bits as u32 & 1) << (width - 1);
    let fraction = (bits >> 32) as u32 & ((1 << fraction_bits) - 1);
    let magnitude = match bits >> 1 & 63 {
        0 | 1 => 0,
        2 => fraction, // a subnormal
        3 => 1 << fraction_bits,
        4 => infinity - 1,
        5 | 6 => (((1 << (exponent_bits - 1)) - 4) << fraction_bits) + 1, // the same weight again
        7 if non_finite => infinity,
        8 if non_finite => infinity + 1 + fraction / 2,
        // Each binade half as likely as the next: a uniform number.
        _ => {
            let below = (bits >> 7 | 1 << 12).trailing_zeros();
            let exponent =
                (1 << (exponent_bits - 1)) - 3 - below.min((1 << (exponent_bits - 1)) - 4);
            exponent << fraction_bits | fraction
        }
    };
    sign | magnitude
}

/// Column norms: most within a few orders of magnitude, some zero, one that carries much of the sum.
pub fn random_norms(seed: u64, in_features: usize) -> Vec<f32> {
    let mut random = Random::new(seed ^ 0x6E6F_726D_7300_0000);
    let mut norms: Vec<f32> = (0..in_features)
        .map(|_| {
            let bits = random.next();
            let scale = 2f32.powi((bits & 15) as i32 - 8);
            if bits >> 4 & 31 == 0 {
                0.0
            } else {
                scale * (1.0 + (bits >> 40) as f32 / 16_777_216.0)
            }
        })
        .collect();
    if in_features > 2 {
        norms[in_features / 2] = in_features as f32 * 64.0;
    }
    norms
}

/// xorshift64*: the same numbers everywhere.
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 64 random bits.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        // The lowest bits of the product are the weakest.
        bits ^ bits >> 29
    }
}

/// The factors of a tensor, as `docs/algorithm.md` has them; RIA's terms are made of the `device`'s own sums.
pub fn factors(
    device: &Device,
    tensor: &Tensor,
    score: &Score,
    norms: Option<&[f32]>,
) -> Result<Factors, swiftprune_wgpu::device::Error> {
    Ok(Factors {
        column: score.column_factors(norms, tensor.in_features),
        terms: if score.sums_of_weights {
            Some(terms(&device.sums(tensor.view())?))
        } else {
            None
        },
    })
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
