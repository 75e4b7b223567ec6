//! A row kept as the 16-bit logarithms of its scores, which is how nearly every row is pruned: half the bytes of its keys,
//! on a CPU twice as many to a vector, on an adapter small enough for workgroup memory.
//!
//! A logarithm is the upper bits of an order key, all of a row's less the same number. A row has logarithms if its live
//! scores lie within a span of nearly 64 octaves and no weight is NaN or infinite; any other is pruned by its keys, to
//! the same mask.
//!
//! The shaders of the same names, `shaders/passes/row_logs/*.wgsl`, are twins at the mask alone. The passes by themselves
//! leave the same numbers on every device, and tests compare every one of them; here, only what is pruned is
//! promised, because each side keeps the row as its hardware likes it:
//!
//! | | here | in the shaders |
//! |---|---|---|
//! | a live score | from `i16::MIN`, signed: every CPU compares signed lanes | from 2, unsigned |
//! | a weight that is zero, a vanished score | `i16::MIN` and the next, where the row has any ([`score::Logs::WithGaps`]) | 0 and 1, always kept free |
//! | columns past the last | there are none: a slice has an end | 65535 (`ABSENT`), as eight columns are one vector |
//! | the span | 65535 logarithms, placed by the largest multiplier of the row | 65533, placed by the largest of the chunk's rows |
//! | the moving average | gives each block a bound, and logarithms stay | turns logarithms into threshold keys where they lie |
//! | the selection | searches for the cut, counting what is below bounds | a histogram of the upper bytes, then of the lower |
//!
//! So a row near the span's ends may be kept on one side and pruned by keys on the other. Both ways are the same cut, which
//! is what a test of [`select`] holds here, and what the twins of `tests/devices.rs` hold between devices.

pub(crate) mod ewma;
pub(crate) mod score;
pub(crate) mod select;
