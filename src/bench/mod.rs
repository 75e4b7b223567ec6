//! `bench`: what a device reaches, as records that can be compared across machines.
//!
//! ```text
//! device --cases.rs--> samples --record.rs--> a Record (JSON) --compare.rs--> ratios with their uncertainty
//!                         |
//!                  statistics.rs: median, quartiles, outliers
//! ```

mod cases;
pub mod compare;
mod error;
pub mod record;
pub mod statistics;
pub mod synthetic;

pub use cases::{MATRICES, Options, passes, run, weights};
pub use error::Error;
pub use record::{Case, Machine, Record};
