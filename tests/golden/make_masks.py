"""Golden masks for docs/algorithm.md, computed by a plain transcription of that page.

Run `python tests/golden/make_masks.py` to write masks.safetensors beside this file, or with `--check` to compare the
file that is there with a fresh one. The same numpy version gives the same bytes; another one differs only in the
metadata, because the inputs come from an integer generator and only + - * / sqrt are applied to floats.

This script is the third reading of the page, after the program and tests/oracle. It is written to be compared with the
page line by line; it shares no code with either, and every float operation whose result matters is one numpy float32
operation on scalars.
"""

import json
import math
import pathlib
import sys

import ml_dtypes
import numpy as np

F32 = np.float32
SMALLEST_NORMAL = F32(2.0**-126)

# ----------------------------------------------------------------------------------------------------------- the page


def column_factors(score, norms, columns, squares):
    """f_j of every column as numpy float32, and the score they belong to (all 1 where S = 0).

    squares are the sums of squares of the columns, as integers.
    """
    if score in ("magnitude", "ria-no-norms", "z-pruner-no-norms"):
        return score, [F32(1.0)] * columns
    n = [float(x) for x in norms]
    total = 0.0
    for x in n:  # in column order
        total += x
    if score.startswith("nowag"):
        own = [1.0] * columns if total == 0.0 or score.endswith("no-norms") else [math.sqrt(x) for x in n]
        f = [x / math.sqrt(float(c)) if c else 0.0 for x, c in zip(own, squares)]
        largest = max(f)
        return score, [flush(F32(x / largest)) if largest else F32(0.0) for x in f]
    if total == 0.0:
        return score, [F32(1.0)] * columns

    def rest(x):
        return max(1.0 - x / total, 0.001)

    f = {
        "swiftprune": lambda x: math.sqrt(x / rest(x)),
        "swiftprune-weight": lambda x: math.sqrt(1.0 / rest(x)),
        "wanda": lambda x: math.sqrt(x),
        "stade": lambda x: math.sqrt(x),  # norms about the mean, which are given
        "ria": lambda x: math.sqrt(math.sqrt(x)),  # n^(1/4): two roots, each correctly rounded, unlike pow
        "z-pruner": lambda x: math.sqrt(x) * math.sqrt(math.sqrt(x)),
    }[score]
    f = [f(x) for x in n]
    largest = max(f)
    return score, [flush(F32(x / largest)) for x in f]


def flush(x):
    """A float32 result of at most 2^-126 becomes 0."""
    return F32(0.0) if x <= SMALLEST_NORMAL else x


def fixed(w):
    """|W| in fixed point with 36 fraction bits; float(w) is exact and so is the scaling."""
    return math.floor(min(abs(float(w)), 256.0) * 2.0**36) if np.isfinite(w) else 0


def reciprocal(total):
    """f32(0.5 / sum): the integer to f64, one f64 division, one rounding."""
    return F32(0.5 / float(total)) if total else F32(0.0)


def fixed_square(w):
    """The square in fixed point with 60 fraction bits; the square of an f32 is exact in f64, and so is the scaling."""
    return math.floor(min(abs(float(w)), 256.0) ** 2 * 2.0**60) if np.isfinite(w) else 0


def near_zero(weights):
    """The share of finite weights below a tenth of their mean, all by the upper 16 bits of |w| as f32."""
    upper = [int(F32(abs(w)).view(np.uint32)) >> 16 for w in weights.ravel() if np.isfinite(w)]
    if not upper:
        return 0.0
    value = lambda bits: float(np.array([bits << 16], dtype=np.uint32).view(F32)[0])
    total = 0.0
    for bits in sorted(set(upper)):  # from the smallest up
        total += upper.count(bits) * value(bits)
    limit = int(F32(0.1 * (total / len(upper))).view(np.uint32)) >> 16
    return sum(bits < limit for bits in upper) / len(upper)


def cubed_terms(share, sums, total):
    """r_i or c_j of z-pruner."""

    def term(square):
        if square == 0:
            return F32(0.0)
        x = float(square) * len(sums) / float(total)
        return F32(min(share / (x * math.sqrt(x)), 2.0**40))

    return [term(square) for square in sums]


def order_keys(weights, score, norms):
    """The order key o of every weight, as lists of Python integers."""
    rows, columns = weights.shape
    of_rows = [sum(fixed_square(w) for w in weights[i]) for i in range(rows)]
    of_columns = [sum(fixed_square(w) for w in weights[:, j]) for j in range(columns)]
    score, f = column_factors(score, norms, columns, of_columns)
    ria, cubed = score.startswith("ria"), score.startswith("z-pruner")
    if cubed:
        share = 0.7 * (1.0 - 0.3 * near_zero(weights))
        r = cubed_terms(share, of_rows, sum(of_rows))
        c = cubed_terms(1.0 - share, of_columns, sum(of_rows))
    if ria:
        r = [reciprocal(sum(fixed(w) for w in weights[i])) for i in range(rows)]
        c = [reciprocal(sum(fixed(w) for w in weights[:, j])) for j in range(columns)]

    def order_key(i, j):
        w = weights[i, j]
        if w == 0:
            return 0
        if not np.isfinite(w):
            return 0x7F800000
        if ria or cubed:
            t = F32(r[i] + c[j])
            u = flush(F32(t * f[j]))
        else:
            u = f[j]
        value = abs(w)
        if cubed:
            value = min(value, F32(256.0))
            value = flush(F32(flush(F32(value * value)) * value))
        s = F32(value * u)
        bits = int(s.view(np.uint32))
        return bits if bits > 0x00800000 else 1

    return [[order_key(i, j) for j in range(columns)] for i in range(rows)]


def is_live(o):
    return 0x00800000 < o < 0x7F800000


def threshold_keys(order, block, gain_shift):
    """The threshold key t of every weight of one row."""

    def mean(x, c):
        return (x // c) * 128 + ((x % c) * 128) // c

    keys = []
    mu = d = None
    for start in range(0, len(order), block):
        group = order[start : start + block]
        q = [o >> 13 for o in group if is_live(o)]
        if q:
            m = mean(sum(q), len(q))
            h = (m + 64) >> 7
            e = mean(sum(abs(x - h) for x in q), len(q))
            if mu is None:
                mu, d = m, e
            else:
                mu += (m - mu) >> gain_shift
                d += (e - d) >> gain_shift
        for o in group:
            if o == 0:
                keys.append(-32768)
            elif o == 1:
                keys.append(-32767)
            elif not is_live(o):
                keys.append(32767)
            else:
                scale = F32(F32(0xFFFFFFFF // max(d, 256)) * F32(2.0**-19))
                z = int(F32(F32(32 * (o >> 13) - (mu >> 2)) * scale))  # int() truncates
                keys.append(max(-32766, min(32766, z)))
    return keys


def smallest(keys, order, p):
    """Prunes the k smallest keys of a row, ties to the lower column."""
    k = math.floor(p * len(order) + 0.5)
    k = max(k, sum(o == 0 for o in order))
    k = min(k, sum(o != 0x7F800000 for o in order))
    ranked = sorted(range(len(order)), key=lambda j: (keys[j], j))
    pruned = set(ranked[:k])
    return [j in pruned for j in range(len(order))]


def below(keys, order, x):
    """Prunes every threshold key below round(2048 x), ties away from zero; a non-finite weight never."""
    scaled = 2048.0 * x
    limit = math.trunc(scaled)
    if abs(scaled - limit) >= 0.5:
        limit += 1 if scaled > 0 else -1
    return [o != 0x7F800000 and (t < limit or o <= 1) for t, o in zip(keys, order)]


def n_of_m(order, n, m):
    """Keeps the n largest order keys of every m columns, ties keep the lower column."""
    mask = []
    for start in range(0, len(order), m):
        group = order[start : start + m]
        ranked = sorted(range(len(group)), key=lambda j: (-group[j], j))
        kept = set(ranked[:n])
        for j, o in enumerate(group):
            stays = o == 0x7F800000 or (j in kept and o != 0)
            mask.append(not stays)
    return mask


def select(order, selection):
    """The mask of one row (True = pruned), for a selection as it is spelled in the file."""
    options = dict(part.split("=") for part in selection.split(","))
    if "pattern" in options:
        n, m = (int(x) for x in options["pattern"].split(":"))
        return n_of_m(order, n, m)
    if "exact" in options:
        return smallest(order, order, float(options["exact"]))
    gain_shift = int(options.get("gain", "1/8").removeprefix("1/")).bit_length() - 1
    keys = threshold_keys(order, int(options.get("block", "128")), gain_shift)
    if "lambda" in options:
        return below(keys, order, float(options["lambda"]))
    return smallest(keys, order, float(options["sparsity"]))


SCORES = ["swiftprune", "swiftprune-weight", "wanda", "ria", "ria-no-norms", "magnitude", "stade", "nowag", "nowag-no-norms", "z-pruner", "z-pruner-no-norms"]
SELECTIONS = [
    "sparsity=0.5",
    "sparsity=0.3",
    "sparsity=0.9,block=32,gain=1/4",
    "exact=0.5",
    "lambda=-0.5",
    "lambda=0.25",
    "pattern=2:4",
    "pattern=4:8",
    "pattern=1:4",
]
# Thresholds that round to -32768 and 32768: nothing but zeros, and nothing but the non-finite weights.
FARTHEST = ["lambda=-15.9999", "lambda=15.9999"]
# 2048 x is 512.5: a tie, rounded away from zero.
TIE = ["lambda=0.250244140625"]

# ---------------------------------------------------------------------------------------------------------- the inputs


class Random:
    """SplitMix64, so that the inputs depend on no library's generator."""

    def __init__(self, seed):
        self.state = seed

    def integer(self, bound):
        self.state = (self.state + 0x9E3779B97F4A7C15) % 2**64
        z = self.state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return ((z ^ (z >> 31)) >> 11) * bound >> 53

    def uniform(self):
        return (self.integer(2**32) + 1) / 2**32  # in (0, 1]

    def bell(self):
        return sum(self.uniform() for _ in range(12)) - 6.0

    def tailed(self):
        """Heavy-tailed like trained weights with outliers: a bell curve over a uniform."""
        return 0.02 * self.bell() / (self.uniform() + 0.02)


DTYPES = {"f32": np.float32, "f16": np.float16, "bf16": ml_dtypes.bfloat16}
SUBNORMAL = {"f32": 2.0**-149, "f16": 2.0**-24, "bf16": 2.0**-133}


def tailed_weights(random, rows, columns):
    return [[random.tailed() for _ in range(columns)] for _ in range(rows)]


def tailed_norms(random, columns):
    return [4096.0 * abs(random.tailed()) / 0.02 for _ in range(columns)]


def sprinkle(random, weights, dtype):
    """Zeros of both signs, subnormals and ties at random places."""
    columns = len(weights[0])
    for row in weights:
        for _ in range(columns // 12):
            row[random.integer(columns)] = random_sign(random) * 0.0
            row[random.integer(columns)] = random_sign(random) * SUBNORMAL[dtype] * (1 + random.integer(100))
            row[random.integer(columns)] = random_sign(random) * 0.015625


def random_sign(random):
    return 1.0 if random.integer(2) else -1.0


def tailed(random, dtype, rows, columns):
    weights = tailed_weights(random, rows, columns)
    sprinkle(random, weights, dtype)
    norms = tailed_norms(random, columns)
    if columns > 1:
        norms[columns // 3] = 0.0  # a dead input feature
    return weights, norms


def carried(share):
    """One column carries this share of S."""

    def make(random, dtype, rows, columns):
        weights, norms = tailed(random, dtype, rows, columns)
        norms[5] = 0.0
        norms[5] = sum(norms) * share / (1.0 - share)
        return weights, norms

    return make


def sparse(random, dtype, rows, columns):
    """Rows that are sparse already: nothing, all but one, leading blocks, a block in the middle, 70 %, every second."""
    weights, norms = tailed(random, dtype, rows, columns)
    for i, row in enumerate(weights):
        for j in range(columns):
            zero = [
                True,
                j != columns // 2,
                j < 128,
                64 <= j < 160,
                random.integer(10) < 7,
                j % 2 == 0,
            ][i % 6]
            if zero:
                row[j] = random_sign(random) * 0.0
    return weights, norms


def constant(random, dtype, rows, columns):
    """Equal magnitudes: no deviation, everything tied; then one outlier below, above, and both, to clamp z."""
    weights = [[random_sign(random) * 0.5 for _ in range(columns)] for _ in range(rows)]
    for row in weights[1::3]:
        row[17] = 2.0**-14
    for row in weights[2::3]:
        row[40], row[columns - 2] = 2.0**15, 2.0**-13
    return weights, [64.0] * columns


def clamped(random, dtype, rows, columns):
    """More than 16 deviations away, in falling order: ties once z is clamped, so the lower columns go first."""
    high = [1.0 if j < 160 else 4.0 * (1 + (columns - j) / 128) for j in range(columns)]
    low = [1.0 if j < 128 else 0.25 * (1 + (columns - j) / 128) for j in range(columns)]
    return [high, low], [1.0] * columns


def narrow(random, dtype, rows, columns):
    """Neighbours in q (f16 around 1 has its steps): deviations around the least one, and every fraction bit counts."""
    weights = []
    for i in range(rows):
        row = []
        for j in range(columns if i > 1 else 0):
            if j % 16 == 0:
                spread = 1 + random.integer(6 * (i - 1))
            row.append(random_sign(random) * (1.0 + random.integer(spread) / 1024))
        weights.append(row)
    weights[0] = [1.0 + (j % 2) / 1024 for j in range(columns)]
    weights[1] = [1.0 + (j % 8 == 5) / 1024 for j in range(columns)]
    random = Random(7)  # a row whose mask changes if a falling d is rounded toward zero: found by trying
    for j in range(columns):
        if j % 16 == 0:
            spread = 1 + random.integer(32 if j < 128 else 16)
        weights[-1][j] = 1.0 + random.integer(spread) / 1024
    return weights, [3.0] * columns


def adjacent(random, dtype, rows, columns):
    """Weights and norms a few units in the last place apart: the roundings of the score decide."""

    def near():
        return 1.0 + random.integer(24) * 2.0**-23

    weights = [[random_sign(random) * near() for _ in range(columns)] for _ in range(rows)]
    return weights, [near() for _ in range(columns)]


def edge(random, dtype, rows, columns):
    """`32 q - (mu >> 2)` = 87 and d = 1392 make the product 2^28 - 1 in steps of 2^-19: rounded to f32 it is 512, which
    is not below lambda = 0.25; not rounded it would be."""
    offsets = [3, 131, -127] + [0] * (columns - 3)
    return [[1.5 + x / 1024 for x in offsets] for _ in range(rows)], [1.0] * columns


def extremes(random, dtype, rows, columns):
    """Every exponent of the type, its largest and smallest values, and magnitudes above the 256 of `fixed`."""
    info = ml_dtypes.finfo(DTYPES[dtype])
    low, high = int(info.minexp) - int(info.nmant), int(info.maxexp) - 1

    def somewhere():
        return random_sign(random) * (1.0 + random.uniform() / 2) * 2.0 ** (low + random.integer(high - low))

    weights = [[somewhere() for _ in range(columns)] for _ in range(rows)]
    weights[0][:4] = [float(info.max), -float(info.max), float(info.tiny), 2.0**low]
    weights[-1] = [float(info.max) * random_sign(random) for _ in range(columns)]
    weights[-2] = [float(info.tiny) * (1 + random.integer(8)) for _ in range(columns)]
    return weights, tailed_norms(random, columns)


def faint(random, dtype, rows, columns):
    """Norms so far apart that factors and scores vanish, beside small weights."""
    weights, _ = tailed(random, dtype, rows, columns)
    norms = [2.0 ** (-149 + random.integer(276)) for _ in range(columns)]
    norms[0], norms[1] = 2.0**127, 2.0**-149
    for i, row in enumerate(weights):
        for j in range(columns):
            row[j] *= [1.0, 2.0**-100, 2.0**20, 2.0**-30][i % 4]
    return weights, norms


def silent(random, dtype, rows, columns):
    """No norm at all: S = 0, so every f_j is 1."""
    weights, norms = tailed(random, dtype, rows, columns)
    return weights, [0.0] * columns


def non_finite(random, dtype, rows, columns):
    """NaN and infinities: a few, more than N of a group, most of the row, all of the row."""
    weights, norms = tailed(random, dtype, rows, columns)
    kinds = [math.nan, math.inf, -math.inf]
    for i, row in enumerate(weights):
        for j in range(columns):
            if [j % 19 == 3, 8 <= j < 19, j % 8 != 2, True][i % 4]:
                row[j] = kinds[random.integer(3)]
    return weights, norms


CASES = [
    ("tailed", "bf16", 7, 333, tailed),
    ("tailed", "f16", 7, 333, tailed),
    ("tailed", "f32", 7, 333, tailed),
    ("tailed", "bf16", 2, 1030, tailed),
    ("dominant", "bf16", 5, 128, carried(0.9)),
    ("carried", "f16", 5, 128, carried(0.9999)),
    ("single", "bf16", 3, 1, tailed),
    ("single", "f32", 1, 40, tailed),
    ("sparse", "f16", 6, 200, sparse),
    ("constant", "bf16", 6, 150, constant),
    ("clamped", "bf16", 2, 200, clamped),
    ("narrow", "f16", 6, 300, narrow),
    ("adjacent", "f32", 6, 100, adjacent),
    ("edge", "f32", 1, 24, edge),
    ("extremes", "f32", 5, 150, extremes),
    ("extremes", "f16", 4, 60, extremes),
    ("faint", "f32", 4, 70, faint),
    ("silent", "f16", 2, 140, silent),
    ("nonfinite", "bf16", 4, 70, non_finite),
    ("nonfinite", "f32", 4, 33, non_finite),
]

# ------------------------------------------------------------------------------------------------------------ the file


def packed(mask):
    """One bit a weight: column 8k + j of a row is bit j of its byte k, rows start on a byte, spare bits are 0."""
    return np.packbits(np.array(mask, dtype=bool), axis=1, bitorder="little")


def tensors():
    result = {}
    for number, (flavour, dtype, rows, columns, make) in enumerate(CASES):
        case = f"{flavour}-{dtype}-{rows}x{columns}"
        weights, norms = make(Random(1000 + number), dtype, rows, columns)
        stored = np.array(weights, dtype=np.float64).astype(np.float32).astype(DTYPES[dtype])
        norms = np.array(norms, dtype=np.float64).astype(np.float32)
        result[f"{case}.weights"] = (dtype.upper(), stored)
        result[f"{case}.norms"] = ("F32", norms)
        exact = stored.astype(np.float32)
        for score in SCORES:
            order = order_keys(exact, score, norms)
            more = FARTHEST if make in (clamped, faint, non_finite) else TIE if make == edge else []
            for selection in SELECTIONS + more:
                mask = [select(row, selection) for row in order]
                result[f"{case}.{score}.{selection}"] = ("U8", packed(mask))
    return result


def safetensors_bytes(tensors, metadata):
    """The file, written here because the safetensors package does not promise an order of the metadata."""
    widest_first = {"F32": 0, "BF16": 1, "F16": 1, "U8": 2}
    header, data = {"__metadata__": metadata}, b""
    for name, (dtype, array) in sorted(tensors.items(), key=lambda item: (widest_first[item[1][0]], item[0])):
        raw = array.tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def main():
    target = pathlib.Path(__file__).with_name("masks.safetensors")
    with np.errstate(all="ignore"):  # under- and overflow, and NaN, are the point of some cases
        content = safetensors_bytes(
            tensors(),
            {
                "script": "tests/golden/make_masks.py",
                "numpy": np.__version__,
                "ml_dtypes": ml_dtypes.__version__,
                "masks": "1 = pruned; column 8k+j of a row is bit j of its byte k",
            },
        )
    if "--check" in sys.argv[1:]:
        if target.read_bytes() != content:
            sys.exit(f"{target.name} differs from what this script computes")
        return
    target.write_bytes(content)
    print(f"{target.name}: {len(CASES)} cases, {len(content)} bytes")


if __name__ == "__main__":
    main()
