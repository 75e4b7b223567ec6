"""How many weights of the decoder blocks are exactly zero in GGUF files, after dequantization.

    python gguf_zeros.py PRUNED.gguf [QUANTIZED.gguf ...]

For each type of matrix in each file: the share of zeros, and the share of the first file's zeros that are still zero.
Needs gguf and numpy.
"""

import collections
import sys

import gguf


def matrices(path):
    """The linear weights of the decoder blocks, by name."""
    tensors = gguf.GGUFReader(path).tensors
    return {t.name: t for t in tensors if t.name.startswith("blk.") and len(t.shape) == 2}


def is_zero(tensor):
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type) == 0


first = matrices(sys.argv[1])
for path in sys.argv[1:]:
    counts = collections.defaultdict(lambda: [0, 0, 0, 0])
    for name, tensor in matrices(path).items():
        before, now = is_zero(first[name]), is_zero(tensor)
        row = [now.size, now.sum(), before.sum(), (before & now).sum()]
        for key in ["all", tensor.tensor_type.name]:
            counts[key] = [int(a + b) for a, b in zip(counts[key], row)]
    for kind, (weights, zeros, before, kept) in counts.items():
        still = f"{kept / before:.2%} of the zeros kept" if before else "none before"
        print(f"{path} {kind}: {weights:,} weights, {zeros / weights:.2%} zeros, {still}")
