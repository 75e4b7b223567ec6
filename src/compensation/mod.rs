//! Compensation: the weights that stay make up for those that go.
//!
//! SwiftPrune's score is that of the optimal brain surgeon with a Hessian of rank one, inverted in closed form. Here the Hessian
//! is a diagonal plus rank r, made of the column norms and a random sketch of the activations (`hessian.rs`): no `in_features` by
//! `in_features` matrix is formed. It gives the score's column factors, and the values of the weights that stay (`compensate.rs`).
//!
//! Rows are independent, so they are compensated chunk by chunk, and memory does not grow with the matrix.

#[cfg(feature = "native")]
mod compensate;
#[cfg(feature = "native")]
mod factor;
#[cfg(feature = "native")]
mod hessian;
mod options;
#[cfg(feature = "native")]
mod rounding;
#[cfg(test)]
mod tests;

#[cfg(feature = "native")]
pub(crate) use compensate::{CompensatedRows, Compensator};
#[cfg(feature = "native")]
pub(crate) use hessian::{Hessian, Product};
pub use options::Compensation;
#[cfg(feature = "native")]
pub(crate) use rounding::{decode, round_row};
