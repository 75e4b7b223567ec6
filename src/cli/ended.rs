//! How the program ends: its exit codes.

/// Done.
pub(super) const DONE: u8 = 0;
/// Something that was read, written or computed went wrong.
pub(super) const FAILED: u8 = 1;
/// The command line asks for something impossible; with other flags, the same files would do.
pub(super) const USAGE: u8 = 2;
/// It ran, but the target was not met.
pub(super) const NOT_MET: u8 = 3;

/// An end that is no error, and yet not [`DONE`].
#[derive(Debug, thiserror::Error)]
#[error("ended with {code}")]
pub(super) struct Ended {
    pub(super) code: u8,
    /// What there is to say of it.
    pub(super) said: Option<String>,
}
