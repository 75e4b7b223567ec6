//! How windows of tokens become tensors: several windows as one, or one in chunks.
//!
//! A tensor is `[rows, features]`, whoever's tokens the rows are: norms, products and nonlinearities need not know. What looks at
//! other tokens of the same window (attention, convolutions, recurrences) or at their place (rope, statistics) is told by
//! [`Span`]s which rows are whose.

/// Bytes that the hidden states of all windows may take in any case.
pub(super) const HIDDEN_BYTES: usize = 256 << 20;

/// The same on this machine: a quarter of the memory that is free. More windows go through the model group by group, and each group
/// reads all of its weights.
pub(super) fn hidden_room() -> usize {
    use sysinfo::{MemoryRefreshKind, RefreshKind, System};
    let ram = MemoryRefreshKind::nothing().with_ram();
    let system = System::new_with_specifics(RefreshKind::nothing().with_memory(ram)).ok();
    let free = system
        .as_ref()
        .map_or(0, |system| match system.cgroup_limits() {
            Some(limits) => limits.free_memory.min(system.available_memory()),
            None => system.available_memory(),
        });
    usize::try_from(free / 4)
        .unwrap_or(usize::MAX)
        .max(HIDDEN_BYTES)
}

/// Stands where no token follows.
const NO_TOKEN: u32 = u32::MAX;

/// Rows of a tensor that are successive tokens of one window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// The first of the rows.
    pub(super) row: usize,
    pub(super) rows: usize,
    /// Where the first of the tokens stands in its window.
    pub(super) position: usize,
    /// Tokens of the whole window.
    pub(super) window: usize,
}

impl Span {
    /// The row behind the last.
    pub(super) fn end(self) -> usize {
        self.row + self.rows
    }

    /// Whether tokens of its window follow.
    pub(super) fn goes_on(self) -> bool {
        self.position + self.rows < self.window
    }
}

/// How windows become tensors on an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// Windows that go through a block as one tensor.
    pub(super) windows: usize,
    /// Tokens of each that do so at once.
    pub(super) tokens: usize,
}

/// Some windows on their way through the model together: a tensor for each chunk of their tokens.
pub(super) struct Batch<'w, T> {
    pub(super) windows: &'w [&'w [u32]],
    pub(super) chunks: Vec<Chunk<T>>,
}

/// The same number of tokens, or what is left, of each window of a batch.
pub(super) struct Chunk<T> {
    pub(super) spans: Vec<Span>,
    pub(super) x: T,
}

impl<'w, T> Batch<'w, T> {
    /// Windows cut into batches; `tensor` makes a chunk's rows of its spans and of each one's tokens.
    pub(super) fn of<E>(
        windows: &'w [&'w [u32]],
        cut: Cut,
        mut tensor: impl FnMut(&[Span], &[&[u32]]) -> Result<T, E>,
    ) -> Result<Vec<Self>, E> {
        let mut batch = |windows: &'w [&'w [u32]]| {
            let longest = windows.iter().map(|window| window.len()).max();
            let mut chunks = Vec::new();
            for position in (0..longest.unwrap_or(0)).step_by(cut.tokens) {
                let (mut spans, mut tokens) = (Vec::new(), Vec::new());
                let mut row = 0;
                for window in windows {
                    let first = position.min(window.len());
                    let own = &window[first..window.len().min(position + cut.tokens)];
                    spans.push(Span {
                        row,
                        rows: own.len(),
                        position: first,
                        window: window.len(),
                    });
                    row += own.len();
                    tokens.push(own);
                }
                let x = tensor(&spans, &tokens)?;
                chunks.push(Chunk { spans, x });
            }
            Ok(Self { windows, chunks })
        };
        windows.chunks(cut.windows).map(&mut batch).collect()
    }

    /// Tokens of all its windows.
    pub(super) fn tokens(&self) -> usize {
        self.windows.iter().map(|window| window.len()).sum()
    }

    /// The token that follows that of each row of a chunk; behind the last of a window there is none.
    pub(super) fn next_tokens(&self, chunk: &Chunk<T>) -> Vec<u32> {
        let mut next = Vec::new();
        for (span, window) in chunk.spans.iter().zip(self.windows) {
            let first = span.position + 1;
            let own = first..first + span.rows;
            next.extend(own.map(|token| window.get(token).copied().unwrap_or(NO_TOKEN)));
        }
        next
    }
}

/// Tokens of the longest window.
pub(super) fn longest(windows: &[&[u32]]) -> usize {
    windows.iter().map(|window| window.len()).max().unwrap_or(0)
}

/// Rows of the largest chunk of some batches.
pub(super) fn rows_of<T>(batches: &[Batch<'_, T>]) -> usize {
    let chunks = batches.iter().flat_map(|batch| &batch.chunks);
    let rows = chunks.map(|chunk| chunk.spans.iter().map(|span| span.rows).sum());
    rows.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_of_every_window_is_in_one_chunk_in_its_order() {
        let windows: Vec<Vec<u32>> = [7, 3, 5, 0, 6].map(|n| (0..n).collect()).into();
        let windows: Vec<&[u32]> = windows.iter().map(Vec::as_slice).collect();
        for (count, tokens) in [(1, 100), (2, 3), (3, 4), (8, 1)] {
            let cut = Cut {
                windows: count,
                tokens,
            };
            let rows = |spans: &[Span], tokens: &[&[u32]]| {
                assert_eq!(spans.len(), tokens.len());
                Ok::<_, ()>(tokens.concat())
            };
            let batches = Batch::of(&windows, cut, rows).unwrap();
            let mut whole: Vec<Vec<u32>> = Vec::new();
            for batch in &batches {
                let mut own = vec![Vec::new(); batch.windows.len()];
                for chunk in &batch.chunks {
                    for (span, own) in chunk.spans.iter().zip(&mut own) {
                        assert_eq!(span.position, own.len());
                        own.extend(&chunk.x[span.row..span.end()]);
                        assert_eq!(span.goes_on(), own.len() < span.window);
                        assert!(span.rows <= tokens);
                    }
                }
                whole.extend(own);
            }
            assert_eq!(whole, windows);
        }
    }
}
