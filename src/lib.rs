//! Prune large language models on any device: everything the `swiftprune-wgpu` command does, without printing.
//!
//! [`run`] is a whole run in one call: calibrate, plan, prune, evaluate, report.
//!
//! ```no_run
//! use swiftprune_wgpu::plan::{Options, Pattern, Selection};
//! use swiftprune_wgpu::run::{Request, run};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let two_of_four = Pattern::new(2, 4).ok_or("2:4 is not a valid pattern")?;
//! let report = run(
//!     Request::new("my-model", Options::new(Selection::Pattern(two_of_four))),
//!     &|_event| (),
//! )?;
//! println!("{}: {} zeros", report.output.display(), report.prunable.zeros);
//! # Ok(())
//! # }
//! ```
//!
//! Its steps, for programs that take them one by one (`examples/prune_file.rs` does):
//!
//! | module | what it has |
//! |---|---|
//! | [`checkpoint`] | a model on disk, opened and checked ([`checkpoint::Checkpoint`]); an output that appears whole or not at all ([`checkpoint::Output`]) |
//! | [`calibration`], [`norms`] | column norms, measured or read from a file |
//! | [`plan`] | what is asked for ([`plan::Options`]) and what happens to every tensor ([`plan::Plan`]) |
//! | [`device`] | the CPU and every adapter: rows of weights in, a mask out |
//! | [`mod@prune`] | a plan run on a device, in memory that does not grow with the model |
//! | [`evaluation`], [`report`] | perplexity; a run as data |
//! | [`sweep`] | the quality of many ways to prune, without an output |
//!
//! [`selftest`] and [`mod@bench`] check and measure a device. `docs/algorithm.md` defines what is computed, bit for bit.

// A test that unwraps fails with a message; a library that does so crashes.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod bench;
pub mod calibration;
pub mod checkpoint;
mod checksum;
mod compensation;
mod counts;
pub mod device;

mod dtype;
pub mod error;
pub mod evaluation;
mod fixtures;
mod forward;
pub mod inspect;
mod mask;
mod model;
mod names;
pub mod norms;
pub mod parts;
mod passes;
pub mod plan;
mod products;
pub mod prune;
mod recipe;
pub mod report;
pub mod run;
mod scores;
mod selection;
pub mod selftest;
mod shader;
mod simd;
mod sketch;
mod squares;
mod stop;
pub mod sweep;
mod targets;
mod text;
pub mod untrusted;

pub use dtype::{Dtype, StoredDtype};

/// The README's programs compile.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// What this crate's own tests, benchmarks and examples reach of its inside. Not part of its interface: it may change in any
/// version.
#[doc(hidden)]
pub mod internals {
    pub use crate::bench::matrices::{MATRICES, passes, weights};
    pub use crate::device::adapter::submissions::SENTINEL;
    pub use crate::device::mending::MEND;
    pub use crate::device::product::PRODUCT;
    pub use crate::device::timing::{Elapsed, Timed, Timer};
    pub use crate::fixtures::{
        NamedSelection, Random, WeightMatrix, random_norms, rules, trained_norms,
    };
    pub use crate::forward::kernels::KERNELS as FORWARD_KERNELS;
    pub use crate::forward::{Forward, SiteStatistics};
    pub use crate::model::Architecture;
    pub use crate::passes::{FUSED, PASSES, WIDE_WORKGROUP_BYTES, params_layout};
    pub use crate::recipe::Step;
    pub use crate::selftest::shapes::{SHAPES, WIDE};
    pub use crate::shader::{EntryPoint, Kernel, Shader};
}
