//! Weights counted as they come from the file.

use super::groups::{Most, WIDEST};
use super::statistics::Sums;
use crate::dtype::{Dtype, StoredDtype, Weight, with_weights};
use crate::simd::widest;

/// How the groups of a tensor's patterns run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Groups {
    /// It is no matrix.
    None,
    /// Along rows of so many weights.
    Rows(usize),
    /// Down the columns of rows of so many weights: a matrix stored `[in, out]`.
    Columns(usize),
}

/// Buffers of a thread.
#[derive(Default)]
pub(super) struct Scratch {
    live: Vec<u8>,
}

/// Whether weights of this dtype are numbers that can be counted.
pub(super) const fn is_counted(dtype: StoredDtype) -> bool {
    !matches!(
        dtype,
        StoredDtype::Bool
            | StoredDtype::F4
            | StoredDtype::F6E2m3
            | StoredDtype::F6E3m2
            | StoredDtype::C64
    )
}

/// Counts some weights: whole rows, or, down columns, a multiple of the widest group of rows. `full` says that no pattern can hold
/// any more, so that groups need not be looked at.
pub(super) fn scan(
    dtype: StoredDtype,
    bytes: &[u8],
    groups: Groups,
    full: bool,
    scratch: &mut Scratch,
) -> Sums {
    let looks = !full && groups != Groups::None;
    let mut sums = Sums::default();
    if let Some(dtype) = Dtype::from_stored(dtype) {
        with_weights!(dtype, bytes, cast_slice, |weights| {
            widest(|| count(weights, &mut sums));
            if looks {
                scratch.live.resize(weights.len(), 0);
                let live = &mut scratch.live[..weights.len()];
                widest(|| mark(weights, live));
            }
        });
    } else {
        let size = (dtype.bits() / 8) as usize;
        scratch.live.clear();
        for bytes in bytes.chunks_exact(size) {
            let magnitude = magnitude(dtype, bytes);
            sums.weight(magnitude);
            if looks {
                scratch.live.push(u8::from(magnitude != 0.0));
            }
        }
    }
    if looks {
        let live = &mut scratch.live;
        widest(|| look(live, groups, &mut sums.most));
    }
    sums
}

#[inline(always)]
fn look(live: &mut [u8], groups: Groups, most: &mut Most) {
    match groups {
        Groups::None => {}
        Groups::Rows(width) => {
            for row in live.chunks(width.max(1)) {
                most.row(row);
            }
        }
        Groups::Columns(width) => {
            for band in live.chunks_mut(WIDEST * width.max(1)) {
                most.columns(band, width.max(1));
            }
        }
    }
}

#[inline(always)]
fn mark<W: Weight>(weights: &[W], live: &mut [u8]) {
    for (live, weight) in live.iter_mut().zip(weights) {
        *live = u8::from(weight.magnitude_bits() != 0);
    }
}

/// Magnitude bits of an infinity; those of a NaN are above.
const NON_FINITE: u32 = f32::INFINITY.to_bits();
/// Sums that run beside each other, so that they vectorise.
const LANES: usize = 16;
/// Weights whose `|w|` are summed in f32, lane by lane.
const STRETCH: usize = 32 * LANES;

/// Counts weights, a stretch at a time. Each loop does one thing, without branches, so that it vectorises.
#[inline(always)]
fn count<W: Weight>(weights: &[W], sums: &mut Sums) {
    let (whole, rest) = weights.as_chunks::<STRETCH>();
    let mut all = [0; STRETCH];
    for stretch in whole {
        for (bits, weight) in all.iter_mut().zip(stretch) {
            *bits = weight.magnitude_bits();
        }
        count_stretch(&all, sums);
    }
    for weight in rest {
        sums.weight(f64::from(f32::from_bits(weight.magnitude_bits())));
    }
}

#[inline(always)]
fn count_stretch(all: &[u32; STRETCH], sums: &mut Sums) {
    let (mut zeros, mut non_finite, mut least, mut largest) = (0_u32, 0_u32, u32::MAX, 0);
    for &bits in all {
        zeros += u32::from(bits == 0);
        non_finite += u32::from(bits >= NON_FINITE);
        // Bits are in the order of the magnitudes.
        least = least.min(bits);
        largest = largest.max(bits);
    }
    if non_finite > 0 {
        for &bits in all {
            sums.weight(f64::from(f32::from_bits(bits)));
        }
        return;
    }
    let mut totals = [0.0_f32; LANES];
    for lanes in all.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            totals[i] += f32::from_bits(lanes[i]);
        }
    }
    sums.weights += STRETCH as u64;
    sums.zeros += u64::from(zeros);
    sums.min = sums.min.min(f64::from(f32::from_bits(least)));
    sums.max = sums.max.max(f64::from(f32::from_bits(largest)));
    sums.total += totals.iter().map(|&total| f64::from(total)).sum::<f64>();
}

/// The magnitude of one weight of another dtype than those that are pruned; infinite for what is not finite.
fn magnitude(dtype: StoredDtype, bytes: &[u8]) -> f64 {
    let whole = |signed: bool| {
        let mut wide = [0; 8];
        wide[..bytes.len()].copy_from_slice(bytes);
        let value = u64::from_le_bytes(wide);
        let shift = 64 - 8 * bytes.len() as u32;
        if signed {
            (((value << shift) as i64) >> shift).unsigned_abs() as f64
        } else {
            value as f64
        }
    };
    let byte = bytes.first().copied().unwrap_or(0);
    match dtype {
        StoredDtype::U8 | StoredDtype::U16 | StoredDtype::U32 | StoredDtype::U64 => whole(false),
        StoredDtype::I8 | StoredDtype::I16 | StoredDtype::I32 | StoredDtype::I64 => whole(true),
        StoredDtype::F64 => {
            let mut wide = [0; 8];
            wide.copy_from_slice(bytes);
            let value = f64::from_le_bytes(wide).abs();
            if value.is_finite() {
                value
            } else {
                f64::INFINITY
            }
        }
        // OCP 8-bit floating point, and the forms without -0 and infinities, whose bias is one more.
        StoredDtype::F8E4m3 if byte & 0x7f == 0x7f => f64::INFINITY,
        StoredDtype::F8E4m3 => small(byte, 3, 7),
        StoredDtype::F8E5m2 if byte & 0x7c == 0x7c => f64::INFINITY,
        StoredDtype::F8E5m2 => small(byte, 2, 15),
        StoredDtype::F8E4m3Fnuz | StoredDtype::F8E5m2Fnuz if byte == 0x80 => f64::INFINITY,
        StoredDtype::F8E4m3Fnuz => small(byte, 3, 8),
        StoredDtype::F8E5m2Fnuz => small(byte, 2, 16),
        StoredDtype::F8E8m0 if byte == 0xff => f64::INFINITY,
        StoredDtype::F8E8m0 => 2.0_f64.powi(i32::from(byte) - 127),
        _ => 0.0,
    }
}

/// A float of 8 bits with a sign, so many bits of mantissa, and this bias.
fn small(byte: u8, mantissa_bits: u32, bias: i32) -> f64 {
    let magnitude = byte & 0x7f;
    let exponent = i32::from(magnitude >> mantissa_bits);
    let mantissa = f64::from(magnitude & ((1 << mantissa_bits) - 1));
    let one = f64::from(1_u32 << mantissa_bits);
    match exponent {
        0 => mantissa / one * 2.0_f64.powi(1 - bias),
        exponent => (1.0 + mantissa / one) * 2.0_f64.powi(exponent - bias),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dtype: StoredDtype, bytes: &[u8], groups: Groups) -> super::super::Statistics {
        // Aligned as a piece of a file is.
        let mut aligned = vec![0_u64; bytes.len().div_ceil(8)];
        let all: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
        all[..bytes.len()].copy_from_slice(bytes);
        let sums = scan(
            dtype,
            &all[..bytes.len()],
            groups,
            false,
            &mut Scratch::default(),
        );
        sums.finish(groups != Groups::None)
    }

    #[test]
    fn weights_are_counted() {
        let values = [0.0_f32, -0.0, 1.5, -4.0, f32::NAN, f32::NEG_INFINITY, 0.5];
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        let all = of(StoredDtype::F32, &bytes, Groups::None);
        assert_eq!((all.weights, all.zeros, all.non_finite), (7, 2, 2));
        assert_eq!((all.min, all.max), (Some(0.0), Some(4.0)));
        assert_eq!(all.mean, Some(6.0 / 5.0));
        assert!(all.patterns.is_empty());
        let nothing = of(StoredDtype::F32, &f32::NAN.to_le_bytes(), Groups::None);
        assert_eq!((nothing.min, nothing.mean, nothing.max), (None, None, None));
    }

    #[test]
    fn patterns_that_hold_are_found_along_rows_and_down_columns() {
        // 2:4 in rows of 8, but not in columns.
        let rows = [[1.0_f32, 0.0, 2.0, 0.0, 0.0, 0.0, 3.0, 4.0]; 4].concat();
        let bytes: Vec<u8> = rows.iter().flat_map(|x| x.to_le_bytes()).collect();
        let along = of(StoredDtype::F32, &bytes, Groups::Rows(8));
        assert_eq!(along.patterns, ["2:4", "4:8", "4:16", "4:32"]);
        assert_eq!(along.strongest(), ["2:4", "4:16", "4:32"]);
        let down = of(StoredDtype::F32, &bytes, Groups::Columns(8));
        // A column of four weights is a short group of eight.
        assert_eq!(down.patterns, ["4:8", "4:16", "4:32"]);
    }

    #[test]
    fn other_dtypes_are_decoded() {
        let max = |dtype, bytes: &[u8]| of(dtype, bytes, Groups::None).max;
        assert_eq!(max(StoredDtype::I8, &[0x80, 3]), Some(128.0));
        assert_eq!(max(StoredDtype::U8, &[0xff]), Some(255.0));
        assert_eq!(
            max(StoredDtype::I16, &(-300_i16).to_le_bytes()),
            Some(300.0)
        );
        assert_eq!(max(StoredDtype::F64, &(-2.5_f64).to_le_bytes()), Some(2.5));
        // The largest of each form, and the least of one: OCP 8-bit floating point, table 1.
        assert_eq!(max(StoredDtype::F8E4m3, &[0xfe]), Some(448.0));
        assert_eq!(max(StoredDtype::F8E5m2, &[0x7b]), Some(57344.0));
        assert_eq!(max(StoredDtype::F8E4m3, &[0x01]), Some(2.0_f64.powi(-9)));
        assert_eq!(max(StoredDtype::F8E4m3Fnuz, &[0x7f]), Some(240.0));
        assert_eq!(max(StoredDtype::F8E5m2Fnuz, &[0x7f]), Some(57344.0));
        let nan = of(StoredDtype::F8E4m3, &[0x7f, 0x38], Groups::None);
        assert_eq!((nan.non_finite, nan.max), (1, Some(1.0)));
    }
}
