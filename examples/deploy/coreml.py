"""A pruned checkpoint as a Core ML package, once with dense and once with sparse weights.

    python coreml.py MODEL OUT [--tokens 64]

Needs coremltools, torch and transformers; the conversion runs on Linux, too. OUT/dense.mlpackage and
OUT/sparse.mlpackage compute the logits of a fixed number of tokens, in f16.
"""

import argparse
import pathlib

import coremltools as ct
import coremltools.optimize as cto
import numpy as np
import torch
import transformers


class Logits(torch.nn.Module):
    """Token ids to logits. The mask is made here: the one that transformers makes cannot be traced."""

    def __init__(self, model, tokens):
        super().__init__()
        self.model = model
        ahead = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        self.register_buffer("mask", torch.zeros(tokens, tokens).masked_fill(ahead, -1e4)[None, None])
        self.register_buffer("positions", torch.arange(tokens)[None])

    def forward(self, ids):
        out = self.model(ids, attention_mask=self.mask, position_ids=self.positions, use_cache=False)
        return out.logits


def size(package):
    return sum(file.stat().st_size for file in package.rglob("*") if file.is_file())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--tokens", type=int, default=64)
    args = parser.parse_args()

    model = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.zeros(1, args.tokens, dtype=torch.long)
    with torch.no_grad():
        traced = torch.jit.trace(Logits(model, args.tokens), ids, check_trace=False)
    dense = ct.convert(
        traced,
        inputs=[ct.TensorType("ids", shape=ids.shape, dtype=np.int32)],
        outputs=[ct.TensorType("logits")],
        minimum_deployment_target=ct.target.iOS17,
        compute_units=ct.ComputeUnit.CPU_ONLY,
        skip_model_load=True,
    )
    # Zeros become a bit each; a tensor with fewer zeros than this stays dense.
    rule = cto.coreml.OpThresholdPrunerConfig(threshold=1e-12, minimum_sparsity_percentile=0.2)
    sparse = cto.coreml.prune_weights(dense, cto.coreml.OptimizationConfig(global_config=rule))
    for name, converted in [("dense", dense), ("sparse", sparse)]:
        package = args.out / f"{name}.mlpackage"
        converted.save(str(package))
        print(f"{package}: {size(package):,} bytes")


main()
