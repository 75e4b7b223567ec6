//! Compensation: the weights that stay make up for those that go.
//!
//! SwiftPrune's score is that of the optimal brain surgeon with a Hessian of rank one, inverted in closed form. Here the Hessian
//! is a diagonal plus rank r, made of the column norms and a random sketch of the activations (`hessian.rs`): no `in_features` by
//! `in_features` matrix is formed. It gives the score's column factors, and the values of the weights that stay (`mend.rs`).
//!
//! Rows are independent, so they are mended chunk by chunk, and memory does not grow with the matrix.

#[cfg(feature = "native")]
mod factor;
#[cfg(feature = "native")]
mod hessian;
#[cfg(feature = "native")]
mod mend;
mod options;
#[cfg(feature = "native")]
mod rounding;
#[cfg(test)]
mod tests;

#[cfg(feature = "native")]
pub(crate) use hessian::{Hessian, Product};
#[cfg(feature = "native")]
pub(crate) use mend::{MendedRows, Mender};
pub use options::Compensation;
#[cfg(feature = "native")]
pub(crate) use rounding::{decode, round_row};
