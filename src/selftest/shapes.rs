//! The shapes of the tensors that devices are tried on.

/// Shapes on either side of every boundary: a mask word, a workgroup, a block, a half word of bf16.
pub const SHAPES: [(usize, usize); 17] = [
    (0, 5),
    (1, 1),
    (1, 2),
    (1, 333),
    (65, 1),
    (257, 1),
    (3, 31),
    (3, 32),
    (3, 33),
    (5, 63),
    (3, 127),
    (3, 128),
    (3, 129),
    (2, 255),
    (2, 257),
    (7, 1000),
    (2, 8224), // more than the 256 mask words that a workgroup scans at once
];

/// Shapes on either side of what an adapter keeps of a row in its workgroup memory, two sizes of it.
pub const KEPT: [(usize, usize); 5] = [(4, 4096), (3, 4097), (3, 8200), (3, 14_336), (3, 14_337)];

/// LLaMA-3-405B's `down_proj`.
pub const WIDE: (usize, usize) = (3, 53_248);
