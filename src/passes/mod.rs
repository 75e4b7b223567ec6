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
//! keys: so it is tested and timed. What prunes is [`FUSED`]: from the weight to the mask in one dispatch, by the same
//! functions or, for nearly every row there is, by those of `shaders/logs`, which keep the row as 16-bit logarithms in
//! workgroup memory. Its twin is `fused.rs`, with `bounds.rs` for the logarithms. To add a pass: write both halves, add its
//! row to [`PASSES`] and its function to `shaders/fused.wgsl` and `fused.rs`; the shader tests iterate that slice.

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

/// The shaders of a mask by threshold, up to the entry point's.
macro_rules! joined_by {
    ($entry_point:literal) => {
        concat!(
            include_str!("../../shaders/shared/params.wgsl"),
            include_str!("../../shaders/shared/decode.wgsl"),
            include_str!("../../shaders/score.wgsl"),
            include_str!("../../shaders/shared/eight.wgsl"),
            include_str!("../../shaders/ewma.wgsl"),
            include_str!("../../shaders/select.wgsl"),
            include_str!("../../shaders/logs/score.wgsl"),
            include_str!("../../shaders/logs/ewma.wgsl"),
            include_str!("../../shaders/logs/select.wgsl"),
            include_str!("../../shaders/fused.wgsl"),
            include_str!(concat!("../../shaders/fused/", $entry_point, ".wgsl")),
        )
    };
}

/// The passes of a mask joined, from weights to mask words in one dispatch: by their names `shaders/fused/NAME.wgsl`.
pub static FUSED: &[&Pass] = &[&ROWS, &WIDE_ROWS, &GROUPS];

/// Thresholds, with rows of up to [`CAPACITY`] columns in workgroup memory.
pub(crate) static ROWS: Pass = Pass {
    name: "rows",
    summary: "mask of every row, of up to 4096 columns in workgroup memory",
    wgsl: joined_by!("rows"),
    entry_points: &["prune_rows"],
};

/// Thresholds, with rows of up to [`WIDE_CAPACITY`] columns in [`WIDE_WORKGROUP_BYTES`] of workgroup memory.
pub(crate) static WIDE_ROWS: Pass = Pass {
    name: "wide_rows",
    summary: "mask of every row, of up to 14336 columns in workgroup memory",
    wgsl: joined_by!("wide_rows"),
    entry_points: &["prune_wide_rows"],
};

/// N:M.
pub(crate) static GROUPS: Pass = Pass {
    name: "groups",
    summary: "mask that keeps the N largest of every M columns",
    wgsl: concat!(
        include_str!("../../shaders/shared/params.wgsl"),
        include_str!("../../shaders/shared/decode.wgsl"),
        include_str!("../../shaders/score.wgsl"),
        include_str!("../../shaders/shared/eight.wgsl"),
        include_str!("../../shaders/n_of_m.wgsl"),
        include_str!("../../shaders/fused/groups.wgsl"),
    ),
    entry_points: &["prune_groups"],
};

/// Workgroup memory of the widest rows, in bytes. Where an adapter has less, these are pruned by keys.
pub const WIDE_WORKGROUP_BYTES: u32 = 32 << 10;

/// Columns of a row that [`ROWS`] keeps: `CAPACITY` of its shader.
pub(crate) const CAPACITY: usize = 4096;
/// Columns of a row that [`WIDE_ROWS`] keeps: `CAPACITY` of its shader.
pub(crate) const WIDE_CAPACITY: usize = 14336;

/// EWMA blocks a row that they keep: `MAX_BLOCKS` of `shaders/logs/ewma.wgsl`; a block has 32 columns at least.
pub(crate) const MAX_BLOCKS: u32 = 256;

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
    /// The least order key that a row of logarithms has room for; 0 where rows are pruned by keys.
    pub window: u32,
    /// Uniform blocks are a multiple of 16 bytes.
    pub padding: u32,
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
        window,
        padding,
    ];
    (fields, size_of::<Params>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rows_are_kept_up_to_what_the_shaders_have_room_for() {
        for (pass, capacity) in [(&ROWS, CAPACITY), (&WIDE_ROWS, WIDE_CAPACITY)] {
            for constant in [
                format!("const CAPACITY: u32 = {capacity}u;"),
                format!("const MAX_BLOCKS: u32 = {MAX_BLOCKS}u;"),
            ] {
                assert!(pass.wgsl.contains(&constant), "{}: {constant}", pass.name);
            }
        }
    }

    proptest! {
        #[test]
        fn whole_is_the_conversion_that_rounds_down(x in 0.0..8_388_607.9_f32, bits in 0..0x4b00_0000_u32) {
            for x in [x, x.round(), f32::from_bits(bits)] {
                prop_assert_eq!(whole(x), x as i32);
            }
        }
    }
}
