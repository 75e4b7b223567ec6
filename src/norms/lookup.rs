//! The answer to a question for norms.

/// The answer to "which norms does this weight have?".
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Lookup<'a> {
    /// `in_features` norms, finite and not negative, at least one of them above zero.
    Measured(&'a [f32]),
    /// The weight is there, but nothing was measured: no calibration token reached it (an expert that was never chosen).
    Unseen,
    /// The source knows no such weight.
    Absent,
}

impl<'a> Lookup<'a> {
    /// The norms, if they were measured; the caller must report the other two cases.
    pub fn measured(self) -> Option<&'a [f32]> {
        match self {
            Self::Measured(norms) => Some(norms),
            Self::Unseen | Self::Absent => None,
        }
    }
}
