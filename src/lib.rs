//! Prune large language models on any device.

pub mod checkpoint;
pub mod device;
mod dtype;
pub mod mask;
pub mod norms;
pub mod passes;
pub mod plan;
pub mod prune;
pub mod report;
pub mod scores;
pub mod selection;
pub mod targets;

pub use dtype::Dtype;
