//! `selftest`: checks that a device computes exactly what every device must compute.
//!
//! One list of cases, each a SHA-256 of what a device computes; what they must be is in `sums.txt`, made by the CPU twins,
//! which the golden tests hold to an independent oracle. The tests run the same list on every adapter they find.
//!
//! Each pass alone and the fused passes, every dtype, score and rule, over shapes on either side of every boundary, with
//! difficult weights and, fused, with weights like those of a trained model; then a whole checkpoint, the example model, from
//! file to file.

mod cases;
mod error;
mod model;
mod record;
pub(crate) mod shapes;
mod sum;

pub use crate::fixtures::NamedSelection;
pub use cases::{Case, cases};
pub use error::Error;
pub use record::{DeviceResult, Mismatch, SelftestRecord};
