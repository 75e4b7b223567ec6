//! The kernels of compensation, and how their numbers lie.

use crate::shader::{Kernel, kernel, params};

params!(
    /// Rows to compensate.
    CompensateParams { in_features: u32, plane: u32, mask_words: u32 }
);

/// The kernels, in the order in which they run.
pub static COMPENSATE: Kernel = kernel!(
    "kernels" / "compensate",
    CompensateParams,
    "what lies between the products of compensation rows",
    [
        "prune_values": 256, [0, 1, 3];
        "input_error": 256, [0, 1, 2];
        "row_errors": 256, [0, 1, 4];
        "begin_directions": 256, [0, 1];
        "input_directions": 256, [0, 1, 2, 3];
        "score_directions": 256, [0, 1];
        "end_directions": 256, [0, 1, 3];
        "begin_descent": 256, [0, 1, 2, 3, 4];
        "descend": 256, [0, 1, 2, 3, 4]
    ],
    with "reduce"
);

/// Numbers a weight, each in a plane of its own: `PRODUCT`, `VALUES` and `WEIGHTS` of the shader are three of them.
pub(super) const PLANES: usize = 5;
pub(super) const PRODUCT_PLANE: usize = 1;
pub(super) const VALUES_PLANE: usize = 2;
pub(super) const WEIGHTS_PLANE: usize = 4;

/// Numbers a row.
pub(super) const SUMS: usize = 4;
