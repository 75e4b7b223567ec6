//! How far a forward pass is.

/// How far a forward pass is, in tokens times layers; the head counts as a layer of its own.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Part that is done, 0 to 1.
    pub done: f64,
    /// Tokens of the whole pass.
    pub tokens: usize,
}

/// Counts tokens times layers.
pub(super) struct Meter<'a> {
    done: usize,
    total: usize,
    tokens: usize,
    progress: &'a dyn Fn(Progress),
}

impl<'a> Meter<'a> {
    pub(super) fn new(sequences: &[&[u32]], layers: usize, progress: &'a dyn Fn(Progress)) -> Self {
        let tokens = sequences.iter().map(|s| s.len()).sum::<usize>();
        Self {
            done: 0,
            total: tokens * layers,
            tokens,
            progress,
        }
    }

    /// So many tokens went through one more layer.
    pub(super) fn step(&mut self, tokens: usize) {
        self.done += tokens;
        (self.progress)(Progress {
            done: self.done as f64 / self.total as f64,
            tokens: self.tokens,
        });
    }
}
