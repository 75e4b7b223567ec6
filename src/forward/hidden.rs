//! Hidden states: how many are in memory at a time.

/// Hidden states in memory at a time, in bytes; more sequences go through the model group by group.
pub const HIDDEN_BYTES: usize = 256 << 20;

/// Tokens of the longest sequence.
pub(super) fn longest(sequences: &[&[u32]]) -> usize {
    sequences.iter().map(|s| s.len()).max().unwrap_or(0)
}
