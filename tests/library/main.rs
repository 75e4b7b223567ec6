//! The library: what it computes against what was computed independently, and what must hold whatever it is given.

#[path = "../common/mod.rs"]
mod common;
#[path = "../golden/mod.rs"]
mod golden;
#[path = "../oracle/mod.rs"]
mod oracle;

mod allocation;
mod forward;
mod golden_oracle;
mod layers;
mod left_dense;
mod properties;
mod real_bytes;
mod shaders;
