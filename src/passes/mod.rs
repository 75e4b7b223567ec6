//! The passes: each a WGSL shader (`shaders/NAME.wgsl`) and a CPU twin (`src/passes/NAME.rs`) of the same name that
//! must agree with it bit for bit.
//!
//! A weight goes through them in this order:
//!
//! ```text
//! weights --score--> order keys --ewma--> threshold keys --select--> mask
//!    |                    |                                            ^
//!    |                    +----------- n_of_m (N:M pattern) -----------+
//!    +--column_norm--> sums of |W|, for the scores that want them
//! ```
//!
//! An *order key* is the score's own bit pattern, a *threshold key* the score normalised by its block's EWMA; both are
//! integers, and `docs/algorithm.md` defines every bit of them.
//!
//! `shaders/NAME.wgsl` has a pass's functions, `shaders/alone/NAME.wgsl` the entry points that run it by itself over stored
//! keys: so it is tested and timed. What prunes is [`FUSED`]: the same functions, joined from the weight to the mask in
//! one dispatch. Its twin is `fused.rs`, with `bounds.rs` for the passes that need no stored keys there. To add a pass: write
//! both halves, add its row to [`PASSES`] and its function to `shaders/fused.wgsl` and `fused.rs`; the shader tests iterate
//! that slice.

mod bounds;
pub mod column_norm;
pub mod ewma;
pub(crate) mod fused;
pub mod n_of_m;
pub mod score;
pub mod select;

/// One pass, as the shader tests, the start-up check and the benches see it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Pass {
    /// Its name: `shaders/NAME.wgsl` and `src/passes/NAME.rs`.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub summary: &'static str,
    /// The whole WGSL module, shared parts included.
    pub wgsl: &'static str,
    /// The entry points of the module, in the order they are dispatched.
    pub entry_points: &'static [&'static str],
}

/// Every pass, in the order of the picture above.
pub static PASSES: &[Pass] = &[
    column_norm::PASS,
    score::PASS,
    ewma::PASS,
    select::PASS,
    n_of_m::PASS,
];

/// The passes of a mask joined: from weights to mask words in one dispatch.
pub static FUSED: Pass = Pass {
    name: "fused",
    summary: "mask of every row, without a stored key",
    wgsl: concat!(
        include_str!("../../shaders/shared/params.wgsl"),
        include_str!("../../shaders/shared/decode.wgsl"),
        include_str!("../../shaders/score.wgsl"),
        include_str!("../../shaders/ewma.wgsl"),
        include_str!("../../shaders/select.wgsl"),
        include_str!("../../shaders/n_of_m.wgsl"),
        include_str!("../../shaders/fused.wgsl"),
    ),
    entry_points: &["prune_rows", "prune_groups"],
};

/// The bits of the smallest live score. Up to 2^-126 (`0x0080_0000`) a score has vanished: below it is no normal f32,
/// which a device may flush, and a product that only rounding lifts to it may be flushed before it is rounded.
pub(crate) const SMALLEST_LIVE: u32 = 0x0080_0001;

/// The order key of a NaN or an infinity; every live score is below it.
pub(crate) const NON_FINITE: u32 = 0x7f80_0000;

/// `x` rounded down, for `0 <= x < 2^23`.
///
/// Adding 2^23 leaves the nearest whole number in the mantissa; where that is the one above, it takes one back. Written
/// out because a saturating conversion of a float (`as`) is not vectorised.
#[inline(always)]
pub(crate) fn whole(x: f32) -> i32 {
    const SHIFT: f32 = 8_388_608.0;
    let shifted = x + SHIFT;
    let nearest = (shifted.to_bits() - SHIFT.to_bits()) as i32;
    nearest - i32::from(shifted - SHIFT > x)
}

/// The uniform block every shader reads: `struct Params` in `shaders/shared/params.wgsl`, field for field.
///
/// A pass uses the fields it needs. That the two declarations agree is tested by reflection, not by this comment.
#[derive(Clone, Copy, Debug, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub(crate) struct Params {
    /// Rows (output neurons) in this chunk.
    pub rows: u32,
    /// Weights a row.
    pub in_features: u32,
    /// [`crate::Dtype`] as a number.
    pub dtype: u32,
    /// 1 when the score has row factors (RIA).
    pub row_scored: u32,
    /// log2 of the EWMA's block size.
    pub block_shift: u32,
    /// EWMA blocks a row: `ceil(in_features / block_size)`.
    pub blocks: u32,
    /// The EWMA's gain is `1 / 2^gain_shift`.
    pub gain_shift: u32,
    /// Weights to prune a row.
    pub k: u32,
    /// Bits of the keys that `select` orders: 16 or 32.
    pub key_bits: u32,
    /// Open loop: prune threshold keys (biased by 32768) below this.
    pub below: u32,
    /// N of N:M.
    pub n: u32,
    /// M of N:M.
    pub m: u32,
    /// u32 words a row of the mask takes: `ceil(in_features / 32)`.
    pub mask_words: u32,
    /// `column_norm`: sums to make, and weights in each.
    pub sums: u32,
    /// See `sums`.
    pub terms: u32,
    /// `column_norm`: terms a partial sum adds up.
    pub terms_per_tile: u32,
    /// `column_norm`: distance, in weights, between the first weights of two sums.
    pub sum_stride: u32,
    /// `column_norm`: distance, in weights, between two terms of one sum.
    pub term_stride: u32,
    /// Uniform blocks are a multiple of 16 bytes.
    pub padding: [u32; 2],
}

/// Where every field of the uniform block lies in bytes, in order, and the size of the whole.
///
/// For the shader tests alone, which hold it against `struct Params` in `shaders/shared/params.wgsl`.
#[doc(hidden)]
#[must_use]
pub fn params_layout() -> (&'static [(&'static str, usize)], usize) {
    macro_rules! offsets {
        ($($field:ident),* $(,)?) => {{
            // A field that is not named below does not compile.
            const _: fn(Params) = |Params { $($field: _),* }| ();
            &[$((stringify!($field), std::mem::offset_of!(Params, $field))),*]
        }};
    }
    let fields = offsets![
        rows,
        in_features,
        dtype,
        row_scored,
        block_shift,
        blocks,
        gain_shift,
        k,
        key_bits,
        below,
        n,
        m,
        mask_words,
        sums,
        terms,
        terms_per_tile,
        sum_stride,
        term_stride,
        padding,
    ];
    (fields, size_of::<Params>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn whole_is_the_conversion_that_rounds_down(x in 0.0..8_388_607.9_f32, bits in 0..0x4b00_0000_u32) {
            for x in [x, x.round(), f32::from_bits(bits)] {
                prop_assert_eq!(whole(x), x as i32);
            }
        }
    }
}
