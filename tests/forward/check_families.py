"""Makes a tiny random checkpoint of every family and checks the program on it against transformers.

    python tests/forward/check_families.py [--only NAME ...] [--binary PATH] [--markdown FILE]

Made for transformers 5.23.0 and torch 2.15.0, on the CPU in float32; the versions found are printed. A family is a row of
FAMILIES: what is special about it, on top of SIZES. For each,

- `calibrate`: the norms of every linear layer in the blocks, against what transformers' own matrix products were given;
- `eval`: the perplexity, against transformers on the same windows;
- both with a tokenizer that puts a token before a text: every window begins with it, and it is not predicted;
- `prune --sparsity 0.5`: half of each row along the input axis is zero, in every such layer and in nothing else, whichever
  way it is stored; what is left is as it was;
- the output is loaded by `from_pretrained`, without missing or unexpected keys.

A family that the program does not support says so in its row. The exit code is 1 if something is wrong: a difference above
the tolerances, a wrong count of zeros, an output that does not load.
"""

import argparse
import collections
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import warnings

import tokenizers
import torch
import transformers
from safetensors import safe_open
from torch.overrides import TorchFunctionMode

ROOT = pathlib.Path(__file__).parents[2]
TOKENIZER = ROOT / "examples/tiny-llama/tokenizer.json"
PREFIX = "<s>"
TEXT = (ROOT / "src/text/heldout.txt").read_text()[:1500]
CONTEXT = 48
NORMS_TOLERANCE, PERPLEXITY_TOLERANCE = 1e-4, 1e-5

# Under every name that some configuration has for it; a configuration takes those that it knows.
SIZES = dict(
    vocab_size=2048, hidden_size=64, n_embd=64, d_model=64, word_embed_proj_dim=64,
    intermediate_size=96, n_inner=96, ffn_dim=96, ffn_hidden_size=96,
    num_hidden_layers=2, n_layer=2, n_layers=2, num_layers=2,
    num_attention_heads=4, n_head=4, n_heads=4, num_heads=4, num_key_value_heads=2, head_dim=16,
    max_position_embeddings=64, n_positions=64, n_ctx=64, max_seq_len=64, pad_token_id=0,
    num_experts=4, num_local_experts=4, n_routed_experts=4, num_experts_per_tok=2, moe_intermediate_size=48,
    shared_expert_intermediate_size=48, n_group=1, topk_group=1, q_lora_rank=32, kv_lora_rank=32, qk_rope_head_dim=8,
    qk_nope_head_dim=16, v_head_dim=16, first_k_dense_replace=1, rotary_dim=8,
    mamba_d_state=16, mamba_d_conv=4, mamba_expand=2, mamba_n_heads=4, mamba_d_head=32, mamba_n_groups=1, mamba_d_ssm=128,
    mamba_dt_rank=8, mamba_num_heads=4, mamba_head_dim=32, n_groups=1, state_size=16, ssm_state_size=16,
    linear_num_value_heads=4, linear_num_key_heads=2, linear_key_head_dim=16, linear_value_head_dim=16, lru_width=64,
)
# A value of this takes a size away again.
DEFAULT = object()
WINDOW = dict(sliding_window=16)

FAMILIES = {
    # Dense.
    "llama": dict(),
    "mistral": WINDOW,
    "qwen2": dict(),
    "qwen3": dict(),
    "gpt_neox": dict(num_key_value_heads=DEFAULT),
    "gemma": dict(),
    "gemma2": dict(WINDOW, query_pre_attn_scalar=16),
    "gemma3_text": dict(WINDOW, num_hidden_layers=4, layer_types=["sliding_attention", "full_attention"] * 2),
    "phi3": dict(head_dim=DEFAULT, **WINDOW),
    "olmo": dict(),
    "olmo2": dict(),
    "olmo3": dict(WINDOW, num_hidden_layers=4),
    "granite": dict(embedding_multiplier=3.0, logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.3),
    "smollm3": dict(num_hidden_layers=4),
    "starcoder2": WINDOW,
    "stablelm": dict(head_dim=DEFAULT),
    "stablelm-12b": dict(head_dim=DEFAULT, qk_layernorm=True, use_parallel_residual=True),
    "cohere": dict(),
    "cohere2": dict(WINDOW, num_hidden_layers=4),
    "glm": dict(),
    "glm4": dict(),
    "ernie4_5": dict(),
    "exaone4": dict(WINDOW, num_hidden_layers=4),
    "hunyuan_v1_dense": dict(),
    "seed_oss": dict(),
    "helium": dict(),
    "apertus": dict(),
    "nemotron": dict(),
    "ministral": WINDOW,
    # Older.
    "opt": dict(),
    "opt-350m": dict(word_embed_proj_dim=48, do_layer_norm_before=False),
    "gpt2": dict(),
    "gpt_bigcode": dict(),
    "gpt_neo": dict(attention_types=[[["global", "local"], 1]], window_size=16),
    "gptj": dict(),
    "codegen": dict(),
    "bloom": dict(),
    "mpt": dict(),
    "falcon": dict(head_dim=DEFAULT, ffn_hidden_size=DEFAULT),
    "phi": dict(head_dim=DEFAULT),
    "persimmon": dict(head_dim=DEFAULT),
    # Experts.
    "mixtral": dict(),
    "phimoe": dict(),
    "qwen2_moe": dict(),
    "qwen3_moe": dict(),
    "olmoe": dict(),
    "granitemoe": dict(),
    "glm4_moe": dict(),
    "deepseek_v2": dict(head_dim=DEFAULT, num_key_value_heads=4),
    "deepseek_v3": dict(head_dim=DEFAULT, num_key_value_heads=4),
    "gpt_oss": WINDOW,
    "llama4_text": dict(intermediate_size_mlp=96, num_hidden_layers=4, no_rope_layer_interval=2, attention_chunk_size=16,
                        floor_scale=8, attn_scale=0.3, interleave_moe_layer_step=2),
    "dbrx": dict(ffn_config=dict(ffn_hidden_size=96, moe_num_experts=4, moe_top_k=2),
                 attn_config=dict(kv_n_heads=2, rope_theta=10000.0, clip_qkv=8.0)),
    # Hybrids and recurrences.
    "qwen3_next": dict(num_hidden_layers=4),
    "qwen3_5_text": dict(num_hidden_layers=4),
    "qwen3_5_moe_text": dict(num_hidden_layers=4),
    "olmo_hybrid": dict(num_hidden_layers=4),
    "lfm2": dict(head_dim=DEFAULT, layer_types=["conv", "full_attention"]),
    "lfm2_moe": dict(head_dim=DEFAULT, num_hidden_layers=4, layer_types=["conv", "full_attention"] * 2, num_dense_layers=1),
    "jamba": dict(num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1, use_mamba_kernels=False),
    "bamba": dict(head_dim=DEFAULT, attn_layer_indices=[1], mamba_n_groups=2),
    "falcon_h1": dict(mamba_rms_norm=True, mamba_n_groups=2, attention_in_multiplier=0.7, attention_out_multiplier=1.3,
                      key_multiplier=0.6, ssm_in_multiplier=1.2, ssm_out_multiplier=0.8, embedding_multiplier=1.7,
                      ssm_multipliers=[0.9, 1.1, 0.7, 1.4, 0.5], mlp_multipliers=[0.8, 1.5], lm_head_multiplier=0.3),
    "granitemoehybrid": dict(layer_types=["linear_attention", "full_attention"], embedding_multiplier=3.0,
                             logits_scaling=2.0, residual_multiplier=0.5, attention_multiplier=0.3),
    "granitemoehybrid-dense": dict(layer_types=["linear_attention", "full_attention"], num_local_experts=0),
    "nemotron_h": dict(num_hidden_layers=4, layers_block_type=["linear_attention", "moe", "full_attention", "mlp"]),
    "recurrent_gemma": dict(num_hidden_layers=3, attention_window_size=16),
    "mamba": dict(n_layer=DEFAULT, intermediate_size=DEFAULT),
    "mamba2": dict(num_heads=8, head_dim=16, expand=2),
    "falcon_mamba": dict(intermediate_size=DEFAULT),
    "rwkv": dict(attention_hidden_size=64, context_length=64),
}

BLOCK = re.compile(r"(^|\.)(layers|h|blocks)\.\d+\.")
# They choose experts or tokens, and stay dense.
ROUTER = re.compile(r"\.(gate|shared_expert_gate)\.weight$|\.(router|indexer)\.")
# Parameters that are no weights of linear layers keep what transformers gives them.
KEPT = re.compile(r"conv1d|conv\.conv|A_log|\.D$|dt_bias|rg_lru|time_(mix|decay|first)|slope|decay|e_score_correction_bias")
# Experts one below the other in a matrix.
STACKED = re.compile(r"ffn\.experts\.mlp\.")


def apart(name, tensor):
    """A tensor with a dimension of its own for its experts, where it has several."""
    return tensor.view(SIZES["num_experts"], -1, tensor.shape[-1]) if STACKED.search(name) else tensor


def shown(error):
    return re.sub(r"\s+", " ", f"{type(error).__name__}: {error}")[:160]


def configuration(name, changes):
    wanted = {**SIZES, **changes}
    # What comes behind a dash tells variants apart.
    name = name.split("-")[0]
    known = transformers.AutoConfig.for_model(name)
    return transformers.AutoConfig.for_model(name, **{
        key: value for key, value in wanted.items() if value is not DEFAULT and (key in changes or hasattr(known, key))})


@torch.no_grad()
def make(name, changes, folder):
    """A model of random weights, wide enough that attention chooses and activations bend."""
    torch.manual_seed(len(name))
    model = transformers.AutoModelForCausalLM.from_config(configuration(name, changes)).float().eval()
    for key, tensor in model.named_parameters():
        if not KEPT.search(key):
            is_norm = tensor.dim() == 1 and "norm" in key and key.endswith("weight")
            tensor.copy_(torch.randn_like(tensor) * (0.3 if tensor.dim() == 1 else 0.2) + (1.0 if is_norm else 0.0))
    # Biases of norms and the like that are not parameters of the checkpoint would differ otherwise.
    model.save_pretrained(folder)
    tokenizer().save(str(folder / "tokenizer.json"))


def tokenizer():
    """The example's, which puts PREFIX before a text."""
    made = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    number = made.token_to_id(PREFIX)
    made.post_processor = tokenizers.processors.TemplateProcessing(single=f"{PREFIX} $A", special_tokens=[(PREFIX, number)])
    return made


class Products(TorchFunctionMode):
    """Sums the squares of what is multiplied with each parameter, whichever module does it."""

    def __init__(self, model):
        super().__init__()
        self.parameters = {p.untyped_storage().data_ptr(): p for p in model.parameters() if p.dim() >= 2}
        # By the address of the matrix: the matrix as [out, in], and the sums.
        self.seen = {}

    def see(self, matrix, inputs):
        rows = inputs.reshape(-1, inputs.shape[-1]).double()
        key = (matrix.data_ptr(), tuple(sorted(matrix.shape)))
        _, sums = self.seen.setdefault(key, (matrix.detach(), torch.zeros(matrix.shape[1], dtype=torch.float64)))
        sums += (rows * rows).sum(0)

    def is_weight(self, tensor):
        return isinstance(tensor, torch.Tensor) and tensor.untyped_storage().data_ptr() in self.parameters

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in ("linear", "matmul", "__matmul__", "mm", "bmm", "baddbmm", "addmm"):
            # What is added comes before what is multiplied.
            begin = 1 if name in ("addmm", "baddbmm") else 0
            first, second = (args + tuple(kwargs.values()))[begin:begin + 2]
            if self.is_weight(second) and not self.is_weight(first):
                if name == "linear":
                    self.see(second, first)
                elif second.dim() == 2:
                    self.see(second.T, first)
                else:
                    for one, inputs in zip(second, first):
                        self.see(one.T, inputs)
            elif self.is_weight(first) and first.dim() == 2 and name != "linear":
                self.see(first, second.transpose(-1, -2))
        return func(*args, **kwargs)

    def by_row(self):
        """From the bytes of a row, one output neuron's weights, to the sums of its input."""
        return {row.contiguous().numpy().tobytes(): sums for matrix, sums in self.seen.values() for row in matrix}


@torch.no_grad()
def reference(folder):
    """What transformers computes: the perplexity of the whole windows, and the norms."""
    prefix = tokenizer().encode("").ids
    tokens = tokenizer().encode(TEXT, add_special_tokens=False).ids
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32)
    if hasattr(model, "set_experts_implementation"):
        try:
            model.set_experts_implementation("eager")
        except (ValueError, NotImplementedError):
            pass
    model.eval()
    losses = []
    products = Products(model)
    room = CONTEXT - len(prefix)
    for begin in range(0, len(tokens), room):
        window = torch.tensor([prefix + tokens[begin:begin + room]])
        with products:
            logits = model(window, use_cache=False).logits[0]
        if window.shape[1] == CONTEXT:
            losses.append(torch.nn.functional.cross_entropy(logits[:-1].double(), window[0, 1:], reduction="none"))
    return torch.cat(losses).mean().exp().item(), products.by_row()


def tensors(folder):
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found.update({key: opened.get_tensor(key) for key in opened.keys()})
    return found


def linear_layers(stored, by_row):
    """The matrices of the blocks that transformers multiplies with: a list of (expert, [out, in], norms) by name."""
    layers = {}
    for name, tensor in stored.items():
        if tensor.dim() not in (2, 3) or not BLOCK.search(name):
            continue
        found = []
        tensor = apart(name, tensor)
        for expert, matrix in enumerate(tensor if tensor.dim() == 3 else [tensor]):
            for lying in (lambda m: m, lambda m: m.T):
                sums = by_row.get(lying(matrix)[0].contiguous().numpy().tobytes())
                if sums is not None and lying(matrix).shape[1] == len(sums):
                    found.append((expert, lying, sums))
                    break
        if found:
            layers[name] = found
    return layers


def run(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode == 0:
        return done.stdout, None
    errors = [line for line in done.stderr.splitlines() if line.startswith("error")]
    return None, (errors or [done.stderr])[0].removeprefix("error: ")


def numberless(names):
    patterns = collections.Counter(re.sub(r"(?<=\.)\d+(?=\.)", "*", name).split("*.", 1)[-1].removesuffix(".weight")
                                   for name in names)
    return ", ".join(sorted(patterns))


def check(name, changes, binary, folder):
    """The row of a family, and whether anything in it is wrong."""
    row = dict.fromkeys(["pruned", "calibrated", "evaluated", "norms", "perplexity", "reload"], "")
    row["notes"] = []
    wrong = []
    model, out, norms_file, text_file = (folder / part for part in ("model", "out", "norms.safetensors", "text.txt"))
    text_file.write_text(TEXT)
    try:
        make(name, changes, model)
        perplexity, by_row = reference(model)
    except Exception as error:
        row["notes"].append(f"transformers cannot make it: {shown(error)}")
        return row, wrong
    stored = tensors(model)
    layers = linear_layers(stored, by_row)
    targets = {key for key in layers if not ROUTER.search(key) and not KEPT.search(key)}

    _, refused = run(binary, "calibrate", model, "-o", norms_file, "--text", text_file, "--tokens", 100000, "--context",
                     CONTEXT, "--device", "cpu")
    row["calibrated"] = "no" if refused else "yes"
    if refused:
        row["notes"].append(refused)
    else:
        measured = tensors_of(norms_file)
        worst, missing = 0.0, []
        for key in sorted(targets):
            if key not in measured:
                missing.append(key)
                continue
            for expert, _, sums in layers[key]:
                ours = measured[key].double()
                ours = ours[expert] if ours.dim() == 2 else ours
                if sums.max() > 0:
                    worst = max(worst, ((ours - sums).abs() / sums.clamp(min=1e-9 * sums.max())).max().item())
        row["norms"] = f"{worst:.1e}"
        if worst > NORMS_TOLERANCE:
            wrong.append(f"norms differ by {worst:.1e}")
        if missing:
            wrong.append(f"no norms of {numberless(missing)}")

    stdout, refused = run(binary, "eval", model, "--text", text_file, "--context", CONTEXT, "--json", "--device", "cpu")
    row["evaluated"] = "no" if refused else "yes"
    if not refused:
        difference = abs(json.loads(stdout)["perplexity"] / perplexity - 1)
        row["perplexity"] = f"{difference:.1e}"
        if not difference <= PERPLEXITY_TOLERANCE:
            wrong.append(f"perplexity differs by {difference:.1e}")

    source = ["--norms", norms_file] if row["calibrated"] == "yes" else ["--calibration", "none"]
    _, refused = run(binary, "prune", model, "-o", out, "--sparsity", 0.5, "--device", "cpu", *source)
    if refused:
        row["pruned"], row["reload"] = "no", ""
        row["notes"].append(refused)
        return row, wrong
    pruned = tensors(out)
    done = set()
    for key, before in stored.items():
        after = pruned.get(key)
        if after is None or after.shape != before.shape:
            wrong.append(f"{key} is gone")
        elif not torch.equal(after, before):
            done.add(key)
            if not torch.equal(torch.where(after == 0, before, after), before):
                wrong.append(f"{key}: survivors changed")
            for expert, lying, _ in layers.get(key, []):
                of_experts = apart(key, after)
                matrix = lying(of_experts[expert] if of_experts.dim() == 3 else after)
                zeros = (matrix == 0).sum(1)
                if not (zeros == round(matrix.shape[1] / 2)).all():
                    wrong.append(f"{key}: {zeros.min()} to {zeros.max()} zeros in rows of {matrix.shape[1]}")
    left, more = targets - done, done - targets
    row["pruned"] = "all" if not left else f"{len(done & targets)} of {len(targets)}"
    if left:
        row["notes"].append(f"left dense: {numberless(left)}")
    if more:
        wrong.append(f"pruned without being a linear layer: {numberless(more)}")
    _, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    bad = {kind: sorted(keys) for kind, keys in info.items() if keys and kind != "error_msgs"}
    row["reload"] = "no" if bad else "yes"
    if bad:
        wrong.append(f"reload: {bad}")
    return row, wrong


def tensors_of(file):
    with safe_open(file, "pt") as opened:
        return {key: opened.get_tensor(key) for key in opened.keys()}


def markdown(rows, versions):
    head = ["family", "pruned", "calibrated", "evaluated", "norms differ by", "perplexity differs by", "reload"]
    lines = [f"<!-- Made by tests/forward/check_families.py, {versions}. -->", "",
             "| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, row in rows.items():
        cells = [f"`{name}`"] + [row[key] or "-" for key in ("pruned", "calibrated", "evaluated", "norms", "perplexity", "reload")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=FAMILIES, metavar="NAME")
    parser.add_argument("--binary", default=str(ROOT / "target/release/swiftprune-wgpu"))
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="put the table into this page")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    versions = f"transformers {transformers.__version__}, torch {torch.__version__}"
    print(versions)
    rows, failed = {}, False
    columns = "{:<18} {:<10} {:<10} {:<9} {:<8} {:<10} {:<6} {}"
    print(columns.format("FAMILY", "PRUNED", "CALIBRATED", "EVALUATED", "NORMS", "PERPLEXITY", "RELOAD", "NOTES"))
    for name in arguments.only or FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            row, wrong = check(name, FAMILIES[name], arguments.binary, pathlib.Path(folder))
        rows[name] = row
        failed |= bool(wrong)
        notes = "; ".join([f"WRONG: {what}" for what in wrong[:4]] + row["notes"])
        print(columns.format(name, row["pruned"], row["calibrated"], row["evaluated"], row["norms"], row["perplexity"],
                             row["reload"], notes[:300]), flush=True)
    if arguments.markdown:
        begin, end = "<!-- table -->\n", "<!-- end of table -->\n"
        page = arguments.markdown.read_text() if arguments.markdown.exists() else begin + end
        before, after = page.split(begin)[0], page.split(end)[1]
        arguments.markdown.write_text(before + begin + markdown(rows, versions) + end + after)
    sys.exit(failed)


if __name__ == "__main__":
    main()
