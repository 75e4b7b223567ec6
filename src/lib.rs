//! Prune large language models on any device: everything the `swiftprune-wgpu` command does, without printing.
//!
//! A [`checkpoint::Checkpoint`] is opened (headers only), a [`plan::Plan`] decides and checks what happens to each tensor, a
//! [`device::Device`] turns rows into masks, and [`prune::prune`] streams the weights through it into a
//! [`checkpoint::Output`] that appears whole or not at all. `docs/algorithm.md` defines what is computed, bit for bit.
//!
//! ```no_run
//! use swiftprune_wgpu::checkpoint::{Checkpoint, Output, OutputOptions};
//! use swiftprune_wgpu::device::{Device, DeviceChoice};
//! use swiftprune_wgpu::plan::{Options, Plan};
//! use swiftprune_wgpu::selection::{Pattern, Selection};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let two_of_four = Pattern::new(2, 4).ok_or("no such pattern")?;
//! let checkpoint = Checkpoint::open("model.safetensors")?;
//! let plan = Plan::new(checkpoint, Options::new(Selection::Pattern(two_of_four)), None)?;
//! let device = Device::open(&DeviceChoice::Auto)?;
//! let output = Output::create(plan.checkpoint(), "model-2-4.safetensors".as_ref(), &OutputOptions::new())?;
//! let outcome = swiftprune_wgpu::prune::prune(&plan, &device, output, &|_| ())?;
//! println!("{} in {:?}", outcome.finished.path.display(), outcome.elapsed);
//! # Ok(())
//! # }
//! ```

// A test that unwraps fails with a message; a library that does so crashes.
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

pub mod bench;
pub mod calibration;
pub mod checkpoint;
mod checksum;
pub mod counts;
pub mod device;

mod dtype;
pub mod error;
pub mod evaluation;
mod fixtures;
pub mod forward;
pub mod mask;
pub mod model;
mod names;
pub mod norms;
mod passes;
pub mod plan;
pub mod prune;
pub mod recipe;
pub mod report;
pub mod run;
pub mod scores;
pub mod selection;
pub mod selftest;
mod shader;
mod simd;
pub mod targets;
pub mod text;
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
    pub use crate::device::timing::{Elapsed, Timed, Timer};
    pub use crate::fixtures::{NamedSelection, Random, Tensor, random_norms, rules, trained_norms};
    pub use crate::forward::kernels::{KERNELS, Kernel};
    pub use crate::passes::{FUSED, PASSES, WIDE_WORKGROUP_BYTES, params_layout};
    pub use crate::recipe::Step;
    pub use crate::selftest::shapes::{SHAPES, WIDE};
    pub use crate::shader::{EntryPoint, Shader};
}
