//! `bench`: measures the speed of a device, as records that can be compared across machines.
//!
//! ```text
//! whole_run.rs, matrices.rs, files.rs --> samples --record.rs--> a Record (JSON) --compare.rs--> ratios with their uncertainty
//!                                             |
//!                                      statistics.rs: median, quartiles, outliers
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
#[cfg(feature = "native")]
mod temporary;
#[cfg(feature = "native")]
mod whole_run;

pub use error::Error;
pub use options::BenchOptions;
pub use record::{BENCH_SCHEMA_VERSION, Machine, Measurement, ReadError, Record, Records};
#[cfg(feature = "native")]
pub use run::run;
pub use run::run_passes;
