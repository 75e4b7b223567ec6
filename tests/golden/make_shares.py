"""Golden shares for the rules of allocation (docs/algorithm.md), computed in f64 from the formulas of the papers.

Run `python tests/golden/make_shares.py` to write shares.json beside this file, or with `--check` to compare the file that is
there with fresh numbers. It shares no code with the program: scores are f64 products, their mean, their median (the lower of the
two in the middle) and the share above five means are numpy's, over all scores of a block at once.

The model is examples/tiny-llama. Its column norms are made of integers, as in tests/library/allocation.rs:
n_j = 1 + (7919 (j + 1) (b + 1) mod 1009) for block b, and 4096 for every 97th column.
"""

import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parent.parent / "examples" / "tiny-llama" / "model.safetensors"
LAYERS = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]
BLOCKS = 4


def read():
    """The bf16 weights of every tensor as f64 matrices."""
    raw = MODEL.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    tensors = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        assert about["dtype"] == "BF16"
        start, end = (8 + length + offset for offset in about["data_offsets"])
        halves = np.frombuffer(raw[start:end], dtype="<u2").astype(np.uint32) << 16
        tensors[name] = halves.view(np.float32).astype(np.float64).reshape(about["shape"])
    return tensors


def norms(block, columns):
    j = np.arange(columns)
    return np.where(j % 97 == 96, 4096.0, 1.0 + (7919 * (j + 1) * (block + 1)) % 1009)


def shares(signal, weights, asked, spread):
    """Sparsity of each block: its signal on a range of twice the spread, around what was asked for."""
    signal, weights = np.array(signal, dtype=np.float64), np.array(weights, dtype=np.float64)
    place = (signal - signal.min()) / (signal.max() - signal.min()) * 2 * spread
    return (asked + place - (place * weights).sum() / weights.sum()).tolist()


def main():
    tensors = read()
    outliers, medians, weights = [], [], []
    for block in range(BLOCKS):
        scores = []
        for layer in LAYERS:
            w = tensors[f"model.layers.{block}.{layer}.weight"]
            scores.append((np.abs(w) * np.sqrt(norms(block, w.shape[1]))).ravel())
        scores = np.concatenate(scores)
        outliers.append(float((scores > 5 * scores.mean()).mean()))
        medians.append(float(np.sort(scores)[(scores.size - 1) // 2]))
        weights.append(scores.size)
    golden = {"outliers": outliers, "medians": medians, "shares": {}}
    for asked in [0.5, 0.7]:
        golden["shares"][f"owl {asked}"] = shares([-o for o in outliers], weights, asked, 0.08)
        golden["shares"][f"dlp {asked}"] = shares(medians, weights, asked, 0.15)
        golden["shares"][f"atp {asked}"] = shares(range(BLOCKS), weights, asked, 0.1)
    text = json.dumps(golden, indent=1) + "\n"
    path = HERE / "shares.json"
    if "--check" in sys.argv:
        old = json.loads(path.read_text())
        close = lambda a, b: np.allclose(a, b, rtol=1e-9, atol=0)
        same = close(old["outliers"], outliers) and close(old["medians"], medians)
        same = same and all(close(old["shares"][k], v) for k, v in golden["shares"].items())
        sys.exit(None if same else "shares.json is not what this script computes")
    path.write_text(text)


main()
