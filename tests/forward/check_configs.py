"""Writes the keys that transformers' configuration classes know, and checks what the program makes of each.

    python tests/forward/check_configs.py --write
    python tests/forward/check_configs.py [--only NAME ...] [--binary PATH]

Made for transformers 5.24.0 and torch 2.15.0, on the CPU in float32; the versions found are printed.

`--write` writes `src/model/configurations.json`, from which the program has what a config.json means that lacks a key, and
which keys it takes no notice of. For each `model_type`,

- `defaults`: the value of each key that the forward pass reads, as transformers' class has it where config.json says nothing;
- `also`: keys without a default that act all the same: older names, and what a model's code looks for by `getattr`;
- `spellings`: names of one key; of several that are there, transformers takes the first;
- `part`: the part of config.json that the class is for, where that is not the whole;
- `fixed`: keys that a class sets itself, whatever config.json says.

Without it, the script makes a tiny model of every family of check_families.py and changes its config.json, one key at a time:

- each key is taken away, so that its default counts;
- each key that the forward pass reads for any family is added, with a value that would mislead;
- rotary embeddings are described in all the ways there are.

With each, transformers and the program evaluate the same text. The program must find the same perplexity, or refuse. What
transformers cannot run may be refused or run. The exit code is 1 if something differs, or the table is not what `--write`
would write.
"""

import argparse
import copy
import dataclasses
import inspect
import json
import math
import pathlib
import re
import sys
import tempfile
import warnings

import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.configuration_utils import PreTrainedConfig

import check_families
from check_families import CONTEXT, FAMILIES, ROOT, TEXT, TOKENIZER, run

TABLE = ROOT / "src/model/configurations.json"
SOURCES = sorted((ROOT / "src/model").rglob("*.rs"))
# Of the perplexity; transformers' chunks of a delta net in f32 are farther from one token after the other.
TOLERANCE = 1e-5
TOLERANCES = {"qwen3_next": 3e-5}

# Older names that a class takes in its own code, and which win over the newer ones.
RENAMED = {
    "bloom": [["n_embed", "hidden_size"]],
    "falcon": [["n_embed", "hidden_size"]],
    "lfm2": [["tie_embedding", "tie_word_embeddings"], ["block_ff_dim", "intermediate_size"]],
    "lfm2_moe": [["tie_embedding", "tie_word_embeddings"]],
    "nemotron_h": [["mamba_n_groups", "n_groups"], ["mamba_d_conv", "conv_kernel"], ["mamba_expand", "expand"],
                   ["mamba_dt_min", "time_step_min"], ["mamba_conv_bias", "use_conv_bias"]],
}
# Keys that a class has and overwrites, or that its code sets whatever config.json says.
DEAF = {"deepseek_v2": {"head_dim"}, "falcon": {"head_dim"}, "bamba": {"partial_rotary_factor"}}
ROTARY = {"rope_theta", "rope_scaling", "partial_rotary_factor", "original_max_position_embeddings"}
# Of no use to transformers, and to us only the length that a model was made for.
LENGTHS = {"bloom": {"seq_length"}}


def model_types():
    """Those of the program, in the order of its families."""
    lists = "".join(re.findall(r"family\(\s*&\[(.*?)\]", "".join(path.read_text() for path in SOURCES), re.S))
    return sorted(set(re.findall(r'"(\w+)"', lists)))


def read_keys():
    """What the forward pass reads of config.json: every word in quotes in its sources."""
    return {word for path in SOURCES for word in re.findall(r'"([A-Za-z_][A-Za-z0-9_]*)"', path.read_text())}


def plain(value):
    """As JSON, in which there is no infinity."""
    if isinstance(value, (tuple, list)):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isinf(value) else value


def entry(config_class, model_class, name, keys):
    own = {field.name: field.default for field in dataclasses.fields(config_class)}
    base = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    own = {key: plain(value) for key, value in own.items() if key not in base and key != "rope_parameters"}
    code = inspect.getsource(config_class)
    also = set()
    # Defaults of older keys are where they are read.
    for key, value in re.findall(r'kwargs\.(?:pop|get|setdefault)\(\s*"(\w+)"(?:,\s*([\d._]+|True|False))?', code):
        also.add(key)
        if value:
            own.setdefault(key, json.loads(value.replace("_", "").lower()))
    if model_class is not None:
        model_code = pathlib.Path(inspect.getfile(model_class)).read_text()
        also |= {"head_dim"} & set(re.findall(r'getattr\(\s*(?:self\.)?config,\s*"(\w+)"', model_code))
    fields = {field.name for field in dataclasses.fields(config_class)}
    if "rope_parameters" in fields:
        also |= {"rope_parameters"}
        theta = config_class.default_theta
        if "convert_rope_params_to_dict" not in config_class.__dict__:
            also |= ROTARY
            own["rope_theta"] = theta
        elif isinstance(theta, dict):
            own |= {"rope_theta": theta["global"], "rope_local_base_freq": theta["local"]}
        elif "rotary_emb_base" in also:
            own["rotary_emb_base"] = theta
            also.add("original_max_position_embeddings")
        else:
            own["rope_theta"] = theta
        usual = config_class().rope_parameters
        # Those that a class sets itself, with the base where one beside them does not replace it.
        kind = usual.get("rope_type")
        if kind not in (None, "default"):
            replaced = config_class(rope_theta=1234.5).rope_parameters.get("rope_theta") == 1234.5
            own["rope_parameters"] = {key: value for key, value in usual.items() if key != "rope_theta" or not replaced}
        if "partial_rotary_factor" in usual and "rotary_pct" not in also:
            own["partial_rotary_factor"] = usual["partial_rotary_factor"]
    deaf = DEAF.get(name, set())
    also |= LENGTHS.get(name, set())
    if model_class is not None and not model_class._tied_weights_keys:
        own.pop("tie_word_embeddings", None)
    spellings = [list(names) for names in RENAMED.get(name, [])]
    for other, usual in config_class.attribute_map.items():
        # Fields are set first, so that another name overwrites them.
        spellings.append([other, usual] if usual in own else [usual, other])
    spellings = [names for names in spellings if keys & set(names)]
    keys = keys.union(*spellings)
    known = {key: value for key, value in own.items() if key in keys}
    also = (also - deaf) & keys - set(known) - {name for names in spellings for name in names}
    result = {"defaults": dict(sorted(known.items())), "also": sorted(also)}
    if spellings:
        result["spellings"] = sorted(spellings)
    if fixed := sorted(deaf & set(known)):
        result["fixed"] = fixed
    return result


def table():
    keys = read_keys()
    entries = {}
    for name in model_types():
        config_class = top = CONFIG_MAPPING[name]
        if "text_config" in (config_class.sub_configs or {}):
            config_class = config_class.sub_configs["text_config"]
        model_class = MODEL_FOR_CAUSAL_LM_MAPPING[top]
        entries[name] = entry(config_class, model_class, name, keys)
        if config_class is not top:
            entries[name]["part"] = "text_config"
            entries[name]["defaults"]["tie_word_embeddings"] = bool(top().tie_word_embeddings)
        for part, part_class in (top.sub_configs or {}).items():
            if part.endswith("n_config") and part != "vision_config":
                entries[f"{name}.{part}"] = entry(part_class, None, f"{name}.{part}", keys)
        if name == "mpt":
            part_class = sys.modules[top.__module__].MptAttentionConfig
            entries["mpt.attn_config"] = entry(part_class, None, "mpt.attn_config", keys)
    return entries


def written(entries):
    """A line for each part of an entry."""
    parts = []
    for name, parts_of in entries.items():
        lines = ",\n".join(f'    "{part}": {json.dumps(value)}' for part, value in parts_of.items())
        parts.append(f'  "{name}": {{\n{lines}\n  }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


# What would mislead, for keys whose values are neither switches nor numbers.
WORDS = {
    "hidden_act": "relu", "activation_function": "relu", "activation": "relu", "hidden_activation": "relu",
    "mlp_hidden_act": "relu", "mamba_hidden_act": "relu", "position_embedding_type": "rope", "topk_method": "greedy",
    "tie_embedding": False, "attn_config": {"clip_qkv": 0.1}, "rope_parameters": {"rope_type": "linear", "factor": 3.0},
    "rope_scaling": {"rope_type": "linear", "factor": 3.0},
}
NUMBERS = {
    "head_dim": 8, "num_key_value_heads": 1, "intermediate_size": 40, "hidden_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "sliding_window": 5, "window_size": 5, "max_position_embeddings": 100, "vocab_size": 100,
    "rope_theta": 50.0, "rotary_emb_base": 50.0, "rope_local_base_freq": 50.0, "partial_rotary_factor": 0.5,
    "rotary_pct": 0.5, "original_max_position_embeddings": 16, "clip_qkv": 0.1, "logit_scale": 3.0,
    "attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.5, "seq_length": 100, "max_seq_len": 100,
    "n_positions": 100,
}


def misleading(entries):
    """A value that would mislead, for each key that the forward pass reads for any family."""
    values = dict(WORDS)
    for parts in entries.values():
        for key, usual in parts["defaults"].items():
            if isinstance(usual, bool):
                values.setdefault(key, not usual)
            elif isinstance(usual, int):
                values.setdefault(key, NUMBERS.get(key, 3))
            elif isinstance(usual, float):
                values.setdefault(key, NUMBERS.get(key, 0.3))
        for key in parts["also"] + [name for names in parts.get("spellings", []) for name in names]:
            if key in NUMBERS:
                values.setdefault(key, NUMBERS[key])
    for key, value in NUMBERS.items():
        values.setdefault(key, value)
    return values


LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
BASE = {"rope_type": "default", "rope_theta": 700.0}


def rotary_changes(config):
    """Changes of what a config.json says of the rotary embedding; `None` takes a key away."""
    def without(**keys):
        return dict(dict.fromkeys(["rope_parameters", "rope_scaling", "rope_theta", "partial_rotary_factor"]), **keys)

    own = config.get("rope_parameters") or {}
    nested = any(isinstance(part, dict) for part in own.values())
    heads = config.get("head_dim") or config.get("hidden_size", config.get("d_model", 64)) // 4
    each = [1.0 + i / 8 for i in range(heads // 2)]
    longrope = {"rope_type": "longrope", "short_factor": each, "long_factor": [2 * x for x in each]}
    changes = {
        "linear beside": dict(rope_scaling=LINEAR),
        "linear by its older name beside": dict(rope_scaling={"type": "linear", "factor": 4.0}),
        "yarn beside": dict(rope_scaling=YARN),
        "yarn with a base beside": dict(rope_scaling=dict(YARN, rope_theta=300.0)),
        "an empty scaling beside": dict(rope_scaling={}),
        "two types": dict(rope_scaling=dict(LINEAR, type="yarn")),
        "nothing": without(),
        "base": without(rope_theta=500.0),
        "base and yarn": without(rope_theta=500.0, rope_scaling=YARN),
        "base and linear": without(rope_theta=500.0, rope_scaling=LINEAR),
        "a base beside the parameters": without(rope_theta=500.0, rope_parameters=BASE),
        "parameters without a base": without(rope_theta=500.0, rope_parameters=LINEAR),
        "part beside": without(rope_theta=500.0, partial_rotary_factor=0.5),
        "part inside": without(rope_parameters=dict(BASE, partial_rotary_factor=0.5)),
        "part and linear": without(rope_parameters=dict(LINEAR, partial_rotary_factor=0.5)),
        "llama3 without the trained length": without(rope_theta=500.0, rope_parameters=LLAMA3),
        "llama3 with it beside": without(rope_parameters=dict(LLAMA3, original_max_position_embeddings=32),
                                         original_max_position_embeddings=16),
        "llama3 without a factor": without(rope_parameters={"rope_type": "llama3"}),
        "yarn with the trained length beside": without(rope_parameters=YARN, original_max_position_embeddings=32),
        "yarn without the trained length": without(rope_parameters={"rope_type": "yarn", "factor": 4.0}),
        "yarn without truncation": without(rope_parameters=dict(YARN, truncate=False, beta_fast=4)),
        "yarn with a factor of attention": without(rope_parameters=dict(YARN, attention_factor=1.5)),
        "yarn with two scales": without(rope_parameters=dict(YARN, mscale=0.7, mscale_all_dim=1.2)),
        "linear without a factor": without(rope_parameters={"rope_type": "linear"}),
        "dynamic": without(rope_scaling={"type": "dynamic", "factor": 3.0}),
        "dynamic with alpha": without(rope_scaling={"type": "dynamic", "alpha": 50.0, "factor": 3.0}),
        "longrope": without(rope_scaling=longrope),
        "longrope with the trained length": without(rope_scaling=longrope, original_max_position_embeddings=16),
        "longrope under an older name": without(rope_scaling=dict(longrope, rope_type="su")),
        "longrope called yarn": without(rope_scaling=dict(longrope, rope_type="yarn")),
        "a type nobody knows": without(rope_scaling={"rope_type": "axial", "factor": 2.0}),
        "parts by type of block": without(rope_parameters={"full_attention": BASE, "sliding_attention": LINEAR}),
        "a base with a pct": without(rotary_emb_base=300.0, rotary_pct=0.5),
    }
    if nested:
        changes |= {
            "yarn for one type": dict(rope_parameters=dict(own, full_attention=dict(YARN, truncate=False, rope_theta=90.0))),
            "one part": dict(rope_parameters={"full_attention": BASE}, rope_theta=40.0),
            "the other part": dict(rope_parameters={"sliding_attention": BASE}, rope_theta=40.0, rope_local_base_freq=30.0),
            "base and local base": without(rope_theta=500.0, rope_local_base_freq=60.0, rope_scaling=LINEAR),
        }
    return changes


def changed(config, change):
    result = copy.deepcopy(config)
    for key, value in change.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = value
    return result


@torch.no_grad()
def theirs(folder, tokens):
    """The perplexity by transformers; none where it cannot load or run the model, or not all of it."""
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True)
        if info["missing_keys"] or info.get("mismatched_keys"):
            return None
        losses = []
        prefix = check_families.tokenizer().encode("").ids
        room = CONTEXT - len(prefix)
        for begin in range(0, len(tokens) - room + 1, room):
            window = torch.tensor([prefix + tokens[begin:begin + room]])
            logits = model.eval()(window, use_cache=False).logits[0]
            losses.append(torch.nn.functional.cross_entropy(logits[:-1].double(), window[0, 1:], reduction="none"))
        return torch.cat(losses).mean().exp().item()
    except Exception:
        return None


def ours(binary, folder, text):
    stdout, refused = run(binary, "eval", folder, "--text", text, "--context", CONTEXT, "--json", "--device", "cpu")
    return (None, refused) if refused else (json.loads(stdout)["perplexity"], None)


def heads_changes(folder):
    """Copies of a model with a head of its own, without it and without an embedding, all of them said to be tied."""
    stored = check_families.tensors(folder)
    head = [key for key in stored if re.search(r"(^|\.)(lm_head|embed_out)\.weight$", key)]
    embedding = [key for key in stored if re.search(r"(embed_tokens|wte|word_embeddings|embed_in|embeddings)\.weight$", key)]
    if len(embedding) != 1:
        return {}
    (embedding,), head = embedding, head[0] if head else "lm_head.weight"
    other = torch.randn_like(stored[embedding]) * 0.2
    only_head = {key: value for key, value in stored.items() if key != embedding}
    return {
        "a head of its own": {**stored, head: other},
        "the same head": {**stored, head: stored[embedding].clone()},
        "no head": {key: value for key, value in stored.items() if key != head},
        "only a head": {**only_head, head: stored[embedding]},
    }


def cases(name, folder, entries, values):
    """(what it is, config.json, tensors or none) for each case of a family."""
    config = json.loads((folder / "config.json").read_text())
    parts = entries[config["model_type"]]
    names = {name for names in parts.get("spellings", []) for name in names}
    known = set(parts["defaults"]) | set(parts["also"]) | names
    yield "as it is", config, None
    for key in sorted(config):
        if key in values or key in known:
            yield f"without {key}", changed(config, {key: None}), None
            if key in known:
                yield f"{key} null", dict(config, **{key: None}), None
    for key, value in sorted(values.items()):
        if key not in config:
            yield f"with {key}", dict(config, **{key: value}), None
    for spellings in parts.get("spellings", []):
        there = [key for key in spellings if key in config]
        for key in spellings:
            if there and key != there[0]:
                value = config[there[0]]
                yield f"{key} for {there[0]}", dict(changed(config, {there[0]: None}), **{key: value}), None
                yield f"{key} before a wrong {there[0]}", dict(config, **{key: value, there[0]: values.get(there[0], 3)}), None
                yield f"a wrong {key} beside {there[0]}", dict(config, **{key: values.get(there[0], 3)}), None
    for what, change in rotary_changes(config).items():
        yield f"rotary: {what}", changed(config, change), None
    for part in ("attn_config", "ffn_config"):
        for key in sorted(config.get(part) or {}):
            yield f"without {part}.{key}", dict(config, **{part: changed(config[part], {key: None})}), None
    for what, stored in heads_changes(folder).items():
        yield f"tied: {what}", dict(config, tie_word_embeddings=True), stored
        yield f"tied by default: {what}", changed(config, {"tie_word_embeddings": None}), stored
        yield f"not tied: {what}", dict(config, tie_word_embeddings=False), stored


def check(name, binary, entries, values, folder, verbose):
    """The number of cases of a family, of those that were refused, and what is wrong."""
    model, text = folder / "model", folder / "text.txt"
    text.write_text(TEXT[:400])
    tokens = tokenizers.Tokenizer.from_file(str(TOKENIZER)).encode(TEXT[:400]).ids
    check_families.make(name, FAMILIES[name], model)
    weights = model / "model.safetensors"
    kept = weights.read_bytes()
    counts, wrong = dict(cases=0, same=0, refused=0, neither=0, only_ours=0), []
    for what, config, stored in cases(name, model, entries, values):
        (model / "config.json").write_text(json.dumps(config))
        if stored is not None:
            save_file({key: value.contiguous().clone() for key, value in stored.items()}, weights, metadata={"format": "pt"})
        reference = theirs(model, tokens)
        perplexity, refused = ours(binary, model, text)
        if stored is not None:
            weights.write_bytes(kept)
        counts["cases"] += 1
        if refused is not None:
            counts["refused" if reference is not None else "neither"] += 1
            if reference is not None and (what == "as it is" or verbose):
                print(f"  {name}: {what}: refused: {refused[:150]}", flush=True)
            if what == "as it is":
                wrong.append(f"{what}: {refused}")
        elif reference is None:
            counts["only_ours"] += 1
            if verbose:
                print(f"  {name}: {what}: only the program runs it", flush=True)
        elif abs(perplexity / reference - 1) <= TOLERANCES.get(name, TOLERANCE):
            counts["same"] += 1
        else:
            wrong.append(f"{what}: {perplexity:.6g}, transformers {reference:.6g}")
    return counts, wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="write the table, and do no more")
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="NAME")
    parser.add_argument("--binary", default=str(ROOT / "target/release/swiftprune-wgpu"))
    parser.add_argument("--verbose", action="store_true", help="show what is refused, and what only the program runs")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity(transformers.logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    entries = table()
    if arguments.write:
        TABLE.write_text(written(entries))
        return
    failed = TABLE.read_text() != written(entries)
    if failed:
        print(f"{TABLE} is not what --write makes of this transformers")
    values = misleading(entries)
    for name in arguments.only or FAMILIES:
        if name.split("-")[0] not in entries:
            continue
        with tempfile.TemporaryDirectory() as folder:
            counts, wrong = check(name, arguments.binary, entries, values, pathlib.Path(folder), arguments.verbose)
        failed |= bool(wrong)
        print(f"{name:<24}", ", ".join(f"{count} {what.replace('_', ' ')}" for what, count in counts.items()), flush=True)
        for what in wrong:
            print(f"  WRONG: {name}: {what}", flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
