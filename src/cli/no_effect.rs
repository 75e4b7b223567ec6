//! Flags that would do nothing beside others: refused, so that nobody takes a run for one that it is not.
//!
//! Where it is enough that both flags are there, clap refuses them (`conflicts_with` in `args.rs`). What is here depends on the
//! values of flags, or on the model. `tests/program/flags.rs` holds every pair of flags to it.

/// A flag that was given and would do nothing.
#[derive(Debug, thiserror::Error)]
#[error("{flag} has no effect {why}")]
pub(super) struct NoEffect {
    /// The flag, as it is typed.
    flag: &'static str,
    /// What leaves it nothing to do: `with --selection exact`.
    why: String,
}

/// A flag: its name, whether it was given, and what leaves it nothing to do, if anything does.
pub(super) type Flag = (&'static str, bool, Option<String>);

/// Refuses the first flag that was given and would do nothing.
pub(super) fn check(flags: impl IntoIterator<Item = Flag>) -> Result<(), NoEffect> {
    let mut idle = flags
        .into_iter()
        .filter_map(|(flag, is_given, why)| Some((flag, why.filter(|_| is_given)?)));
    match idle.next() {
        Some((flag, why)) => Err(NoEffect { flag, why }),
        None => Ok(()),
    }
}
