//! `bench`: measures the speed of a device, as records that can be compared across machines.
//!
//! ```text
//! matrices.rs, files.rs --> samples --record.rs--> a Record (JSON) --compare.rs--> ratios with their uncertainty
//!                              |
//!                       statistics.rs: median, quartiles, outliers
//! ```

pub mod compare;
mod error;
#[cfg(feature = "native")]
mod files;
pub(crate) mod matrices;
mod options;
pub mod record;
mod run;
pub mod statistics;
#[cfg(feature = "native")]
pub mod synthetic;

pub use error::Error;
pub use options::BenchOptions;
pub use record::{Machine, Measurement, Record};
#[cfg(feature = "native")]
pub use run::run;
pub use run::run_passes;
