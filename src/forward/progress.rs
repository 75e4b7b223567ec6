//! How far a forward pass is, and whether it goes on.

use std::ops::ControlFlow;

use super::error::Error;

/// How far a forward pass is, in tokens times layers; the head counts as a layer of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Part that is done, 0 to 1.
    pub done: f64,
    /// Tokens of the whole pass.
    pub tokens: usize,
}

/// Is told how far a forward pass is, and says whether it goes on.
pub type Watch<'w> = dyn Fn(Progress) -> ControlFlow<()> + 'w;

/// A [`Watch`] that lets a forward pass go on to its end.
pub fn unwatched(_: Progress) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Counts tokens times layers.
pub(super) struct Meter<'a> {
    done: usize,
    total: usize,
    tokens: usize,
    progress: &'a Watch<'a>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(tokens: usize, layers: usize, progress: &'a Watch<'a>) -> Self {
        Self {
            done: 0,
            total: tokens * layers,
            tokens,
            progress,
        }
    }

    /// So many tokens went through one more layer.
    ///
    /// # Errors
    /// [`Error::Stopped`] if the pass is not to go on.
    pub(super) fn step(&mut self, tokens: usize) -> Result<(), Error> {
        self.done += tokens;
        let at = Progress {
            done: self.done as f64 / self.total as f64,
            tokens: self.tokens,
        };
        match (self.progress)(at) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::Stopped),
        }
    }
}
