//! The passes: each a WGSL shader (`shaders/passes/NAME.wgsl`) and a CPU twin (`src/passes/NAME.rs`) of the same name that
//! must agree with it bit for bit.
//!
//! A weight goes through them in this order:
//!
//! ```text
//! weights --score--> order keys --ewma--> threshold keys --select--> mask
//!    |                    |                                            ^
//!    |                    +----------- n_of_m (N:M pattern) -----------+
//!    +--weight_sums--> sums of |W|, for the scores that want them
//! ```
//!
//! An *order key* is the score's own bit pattern, a *threshold key* the score normalised by its block's EWMA; both are
//! integers, and `docs/algorithm.md` defines every bit of them.
//!
//! `shaders/passes/NAME.wgsl` has a pass's functions, `shaders/entry/alone/NAME.wgsl` the entry points that run it by itself
//! over stored keys: so it is tested and timed, and so its twin is held to it key by key. What prunes is [`FUSED`]: from
//! the weight to the mask in one dispatch, by the same functions or, for nearly every row there is, by those of
//! `row_logs`, which keep the row as 16-bit logarithms in workgroup memory and are twins at the mask alone.
//!
//! To add a pass: write both halves and its entry point, add its row to [`PASSES`], call its function in
//! `shaders/passes/fused.wgsl` and `fused.rs`; the shader tests iterate that slice.

pub(crate) mod ewma;
pub(crate) mod fused;
pub(crate) mod keys;
pub(crate) mod n_of_m;
pub(crate) mod params;
mod row_logs;
pub(crate) mod score;
pub(crate) mod select;
pub(crate) mod weight_sums;

pub use fused::WIDE_WORKGROUP_BYTES;
pub use params::params_layout;

use crate::shader::Shader;

/// Every pass, in the order of the picture above.
pub static PASSES: &[&Shader] = &[
    &weight_sums::ALONE,
    &score::ALONE,
    &ewma::ALONE,
    &select::ALONE,
    &n_of_m::ALONE,
];

/// The fused passes of a mask, from weights to mask words in one dispatch: by their names
/// `shaders/entry/fused/NAME.wgsl`.
pub static FUSED: &[&Shader] = &[&fused::ROWS, &fused::WIDE_ROWS, &fused::GROUPS];
