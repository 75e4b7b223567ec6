//! Rows compensated on an adapter: the kernels, what they do with the rows of a chunk, and how they are tried first.

mod kernels;
mod probe;
mod rows;

pub use kernels::COMPENSATE;
pub(crate) use probe::check;
pub(crate) use rows::{RowCompensator, chunk_rows, host_memory};
