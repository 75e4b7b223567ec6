//! What the names of tensors say: one table, keyed by the part of a name behind its block, for everything that goes by
//! names.
//!
//! `grammar.rs` takes a name apart, `rules.rs` has the table (how a weight is stored, which input it reads), and
//! `imatrix.rs` goes on to the names that llama.cpp gives the weights on that input. `packed.rs` knows the pieces of
//! quantised weights. `targets` decides by it what is
//! pruned, `norms` finds importance matrices by it.

pub(crate) mod grammar;
pub(crate) mod imatrix;
pub(crate) mod packed;
pub(crate) mod rules;
