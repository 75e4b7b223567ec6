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
//!
//! The feature `native`, a part of the default ones, has everything that takes files, threads or a forward pass. Without it
//! the library compiles for a browser (`wasm32-unknown-unknown`): `docs/browser.md`.

// A test that unwraps fails with a message; a library that does so crashes.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]
// Modules that a browser has serve those that it lacks, too.
#![cfg_attr(
    not(feature = "native"),
    allow(dead_code, unused_imports, unused_macros)
)]

// Weights are little-endian in their files, and are taken as they lie there.
#[cfg(target_endian = "big")]
compile_error!(
    "swiftprune-wgpu does not run on big-endian machines: weights are read as they lie in a file, which is little-endian, and \
     would be pruned wrongly"
);

pub mod bench;
#[cfg(feature = "native")]
pub mod calibration;
pub mod checkpoint;
mod checksum;
mod compensation;
#[cfg(feature = "native")]
mod cores;
mod counts;
pub mod device;

mod dtype;
pub mod error;
#[cfg(feature = "native")]
pub mod evaluation;
mod fixtures;
#[cfg(feature = "native")]
mod forward;
#[cfg(feature = "native")]
pub mod inspect;
mod mask;
#[cfg(feature = "native")]
mod model;
mod names;
pub mod norms;
#[cfg(feature = "native")]
pub mod parts;
mod passes;
pub mod plan;
#[cfg(feature = "native")]
mod products;
pub mod prune;
mod recipe;
#[cfg(feature = "native")]
pub mod report;
#[cfg(feature = "native")]
pub mod run;
mod scores;
mod selection;
pub mod selftest;
mod shader;
mod simd;
mod sketch;
mod squares;
mod stop;
#[cfg(feature = "native")]
pub mod sweep;
mod targets;
#[cfg(feature = "native")]
mod text;
pub mod untrusted;
#[cfg(feature = "native")]
mod workers;

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
    #[cfg(feature = "native")]
    pub use crate::device::compensation::COMPENSATE;
    #[cfg(feature = "native")]
    pub use crate::device::product::PRODUCT;
    pub use crate::device::timing::{Elapsed, Timed, Timer};
    pub use crate::fixtures::{
        NamedSelection, Random, WeightMatrix, random_norms, rules, trained_norms,
    };
    #[cfg(feature = "native")]
    pub use crate::forward::kernels::KERNELS as FORWARD_KERNELS;
    #[cfg(feature = "native")]
    pub use crate::forward::{Forward, SiteStatistics};
    #[cfg(feature = "native")]
    pub use crate::model::Architecture;
    pub use crate::passes::{FUSED, PASSES, WIDE_WORKGROUP_BYTES, params_layout};
    pub use crate::recipe::Step;
    pub use crate::selftest::shapes::{SHAPES, WIDE};
    pub use crate::shader::{EntryPoint, Kernel, Shader};
}
