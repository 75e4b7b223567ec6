//! What a model computes, read from its config.json and held against its tensors: one description for every device.
//!
//! A decoder-only transformer is an embedding, a row of blocks, a norm and a head. A block is
//!
//! ```text
//! a = norm(x);  q, k, v = linear(a);  o = attention(rotate(q), rotate(k), v);  h = x + s norm(linear(o))
//! m = norm(h);  u = act(gate(m)) * up(m), or act(up(m));                       y = h + s norm(down(u))
//! ```
//!
//! where each of the four norms may be missing, `s` is mostly 1, and `m = norm(x)` or `m = a` where the two halves run in
//! parallel. A recurrence (`recurrence.rs`) may stand in for attention, or run beside it. Where a block has experts (`experts.rs`), `y = h + s sum_i w_i expert_i(m)` over those that a router chose for the
//! token. What differs between architectures is data: a `DecoderBlock` says what is computed and which tensors it takes, and
//! `src/forward/block.rs` computes it. **To add an architecture, add a function to `families/`**, and a checkpoint of it to
//! `tests/forward/goldens.py`.
//!
//! An [`Architecture`] has been checked against the checkpoint: every tensor it names is there, in the shape it says, as
//! floats.

mod activation;
mod architecture;
mod attention;
mod block;
mod config;
mod error;
mod experts;
mod families;
mod family;
mod feed_forward;
mod headers;
mod latent;
mod mlp;
mod parts;
mod position;
mod reading;
mod recurrence;
mod rotary;
mod scan;
mod tensors;

pub(crate) use activation::{Activation, Nonlinearity};
pub use architecture::{Architecture, Site};
pub(crate) use attention::{
    HeadCounts, HeadNorms, NormedWidth, Position, Projections, QueryTemperature, Reach,
    SelfAttention,
};
pub(crate) use block::{BlockOrder, DecoderBlock, InputKind, Mixer, MixerKind};
pub use error::Error;
pub(crate) use experts::{ExpertAssignment, Experts};
pub(crate) use feed_forward::FeedForward;
pub(crate) use latent::{LatentProjections, LatentQuery, LatentWidths};
pub(crate) use mlp::Mlp;
pub(crate) use parts::{Loader, Parts, Visitor};
pub(crate) use position::Alibi;
pub(crate) use reading::{check_absent, check_complete};
pub(crate) use recurrence::{Recurrence, Ssm};
pub(crate) use rotary::{Pairing, Rotary};
pub(crate) use scan::{Convolution, DeltaSizes, Scan, ScanSizes, ScanTensors, StateSizes};
pub(crate) use tensors::{Linear, NormKind, NormTensors, Vector};
