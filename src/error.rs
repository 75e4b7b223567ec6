//! What a caller should make of an error: each error enum says its [`Kind`].

/// What an error means for whoever asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The request is impossible, whatever the files hold: ask for something else.
    Usage,
    /// Something that was read, written or computed went wrong.
    Failed,
    /// It ran, but the result is not what was asked for.
    NotMet,
}
