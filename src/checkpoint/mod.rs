//! A checkpoint on disk: opened safely, read by the names of its tensors, and its output staged so that it appears whole
//! or not at all.
//!
//! Somebody else wrote the checkpoint, so nothing in it is believed. [`Checkpoint::open`] finds it ([`locate()`]), reads
//! every header ([`Header`]) and the index ([`Index`]), and checks all that they say about the data before anything is
//! allocated, opened or printed because of it. No tensor data is read: an open checkpoint costs as much memory as its
//! headers. After that every [`Tensor`] is a range of bytes that its shard really has; a file that is cut short later
//! gives an error on reading, never a wrong result.
//!
//! [`Output`] is the other end: a transaction that stages the same files with the same headers beside their destination,
//! takes the data from many threads, and is renamed into place at the end. A [`Reader`]
//! finds the data of a tensor by its name, a [`Writer`] writes a file with a header of its own.

mod catalog;
#[cfg(feature = "native")]
mod companions;
#[cfg(feature = "native")]
mod compare;
mod config;
#[cfg(feature = "native")]
mod copying;
#[cfg(feature = "native")]
mod destination;
mod error;
mod file_names;
mod handles;
mod header;
mod hub_cache;
mod index;
mod json;
mod locate;
#[cfg(feature = "native")]
mod moving;
mod options;
#[cfg(feature = "native")]
mod orphans;
#[cfg(feature = "native")]
mod output;
mod positional;
mod quantized;
mod reader;
#[cfg(feature = "native")]
mod readme;
mod shards;
#[cfg(feature = "native")]
mod staging;
mod stamp;
#[cfg(feature = "native")]
mod tree;
#[cfg(feature = "native")]
mod writer;

pub use catalog::{Catalog, Place};
#[cfg(feature = "native")]
pub use compare::CompanionDifferences;
#[cfg(feature = "native")]
pub(crate) use compare::companion_differences;
pub use config::{Config, MAX_CONFIG};
#[cfg(feature = "native")]
pub use destination::{keep_apart, keep_off_model, same_file};
pub use error::{Error, Result};
pub use header::{Header, HeaderError, MAX_JSON, MAX_RANK, Tensor, TensorSpec};
pub(crate) use header::{PREFIX as HEADER_PREFIX, json_len as header_json_len};
pub use index::{Discrepancy, Index, IndexError, MAX_INDEX};
pub use locate::{Source, Weights, locate};
pub use options::OutputOptions;
#[cfg(feature = "native")]
pub(crate) use orphans::remove_all as remove_orphans;
#[cfg(feature = "native")]
pub use output::{Finished, Output};
pub(crate) use positional::{read_exact_at, write_all_at};
pub use reader::Reader;
#[cfg(feature = "native")]
pub(crate) use readme::{Field, extended as extended_readme};
pub use shards::{Checkpoint, Shard};
#[cfg(feature = "native")]
pub(crate) use staging::{NewFile, replace_within};
#[cfg(feature = "native")]
pub(crate) use stamp::Stamp;
#[cfg(feature = "native")]
pub use writer::Writer;

#[cfg(test)]
pub(crate) mod tests;
