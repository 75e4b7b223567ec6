//! What devices are tried on, at start-up, by the self-test and in tests: selections with names, and weights and norms that
//! are the same on every machine, and awkward: made of integers, from a seed.

use crate::dtype::Dtype;
use crate::recipe::Rows;
use crate::selection::{Ewma, Pattern, Selection};

/// A selection with a name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NamedSelection {
    /// As it is called in a case's name.
    pub name: &'static str,
    /// The rule.
    pub selection: Selection,
}

/// Five selections: 50 % by the moving average, 70 % exactly, a fixed lambda with the smallest blocks, two patterns.
#[must_use]
pub fn rules() -> [NamedSelection; 5] {
    let pattern = |n, m| match Pattern::new(n, m) {
        Some(pattern) => Selection::Pattern(pattern),
        None => unreachable!("N is less than M"),
    };
    let small = Ewma::new(16, 1).unwrap_or_default();
    [
        (
            "ewma",
            Selection::Ewma {
                sparsity: 0.5,
                ewma: Ewma::default(),
            },
        ),
        ("exact", Selection::Exact { sparsity: 0.7 }),
        (
            "lambda",
            Selection::Lambda {
                lambda: -0.25,
                ewma: small,
            },
        ),
        ("2:4", pattern(2, 4)),
        ("3:7", pattern(3, 7)),
    ]
    .map(|(name, selection)| NamedSelection { name, selection })
}

/// A matrix of weights in memory that is aligned for every dtype.
#[derive(Clone, Debug)]
pub struct WeightMatrix {
    /// How a weight is stored.
    pub dtype: Dtype,
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub in_features: usize,
    words: Vec<u32>,
}

impl WeightMatrix {
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
            std::iter::repeat_with(move || random_weight(random.draw(), dtype, non_finite));
        Self::new(dtype, rows, in_features, weights)
    }

    /// Random weights as a trained model has them, within a few octaves: of every three rows one of which nothing else can
    /// be said, one with zeros and subnormals, one of few different weights.
    pub fn trained(seed: u64, dtype: Dtype, rows: usize, in_features: usize) -> Self {
        let mut random = Random::new(seed);
        let kinds = (0..rows).flat_map(|row| std::iter::repeat_n(row % 3, in_features));
        let weights = kinds.map(move |kind| trained_weight(random.draw(), dtype, kind));
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

/// Bits of a stored weight, and of its exponent.
const fn widths(dtype: Dtype) -> (u32, u32) {
    match dtype {
        Dtype::Bf16 => (16, 8),
        Dtype::F16 => (16, 5),
        Dtype::F32 => (32, 8),
    }
}

/// One stored weight of a row of this kind, from 64 random bits.
fn trained_weight(bits: u64, dtype: Dtype, kind: usize) -> u32 {
    let (width, exponent_bits) = widths(dtype);
    let fraction_bits = width - 1 - exponent_bits;
    let sign = (bits as u32 & 1) << (width - 1);
    let fraction = (bits >> 32) as u32 & ((1 << fraction_bits) - 1);
    let below = (bits >> 7 | 1 << 10).trailing_zeros();
    let (below, fraction) = match (kind, bits >> 1 & 15) {
        (1, 0 | 1) => return sign,
        (1, 2) => return sign | fraction,
        (2, _) => (
            below.min(2),
            fraction >> (fraction_bits - 2) << (fraction_bits - 2),
        ),
        _ => (below, fraction),
    };
    let exponent = (1 << (exponent_bits - 1)) - 3 - below;
    sign | exponent << fraction_bits | fraction
}

/// One stored weight from 64 random bits.
fn random_weight(bits: u64, dtype: Dtype, non_finite: bool) -> u32 {
    let (width, exponent_bits) = widths(dtype);
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
            let bits = random.draw();
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

/// Column norms within eight octaves.
pub fn trained_norms(seed: u64, in_features: usize) -> Vec<f32> {
    let mut random = Random::new(seed ^ 0x6E6F_726D_7300_0000);
    let norm =
        |bits: u64| 2f32.powi((bits & 7) as i32 - 4) * (1.0 + (bits >> 40) as f32 / 16_777_216.0);
    (0..in_features).map(|_| norm(random.draw())).collect()
}

/// xorshift64*: the same numbers everywhere.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// 64 random bits.
    pub fn draw(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        // The lowest bits of the product are the weakest.
        bits ^ bits >> 29
    }

    /// A uniform number, at least 0 and less than 1, of 24 random bits.
    pub fn uniform(&mut self) -> f32 {
        (self.draw() >> 40) as f32 / (1 << 24) as f32
    }

    /// A number of about a normal distribution, mean 0 and variance 1: the sum of four 16-bit uniform numbers.
    pub fn normal(&mut self) -> f64 {
        let bits = self.draw();
        let sum: u64 = (0..4).map(|i| (bits >> (16 * i)) & 0xffff).sum();
        (sum as f64 / 65536.0 - 2.0) * 3.0_f64.sqrt()
    }

    /// A whole number below `limit`, which is not 0; its last values are a little less likely.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.draw() >> 33) as usize % limit
    }
}
