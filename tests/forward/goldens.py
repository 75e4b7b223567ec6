"""Makes the checkpoints in this folder, and what transformers computes from them.

    python goldens.py        # transformers 5.23.0, torch 2.15.0, safetensors 0.8; on the CPU, in float32

A folder an architecture: random weights, 2 blocks, hidden size 64, and golden.safetensors with 32 tokens, their logits, and
the sum of squares of every input feature of every linear layer (float64 sums of float32 activations). Checkpoints with
experts are saved by save_pretrained, which takes them apart again; of every expert there are the sums over the tokens that
were routed to it, and their number.
"""

import json
import pathlib
import re
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
SIZES = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=80,
             max_position_embeddings=64, attn_implementation="eager")
LLAMA3 = dict(rope_type="llama3", rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)
CASES = {
    # Llama 3.2: grouped queries, scaled rotary embedding, tied head.
    "llama": (torch.bfloat16, dict(num_key_value_heads=2, rope_parameters=LLAMA3, tie_word_embeddings=True)),
    # Mistral 7B v0.1: a window that is shorter than the text.
    "mistral": (torch.float16, dict(num_key_value_heads=2, sliding_window=8)),
    # Biases on queries, keys and values.
    "qwen2": (torch.bfloat16, dict(num_key_value_heads=1, tie_word_embeddings=True)),
    # Norms in each head; heads wider than the hidden state is shared out.
    "qwen3": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24)),
    # Pythia: everything has a bias, a quarter of each head turns, the halves of a block run in parallel.
    "gpt_neox": (torch.float32, dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0,
                                                          partial_rotary_factor=0.25))),
}
# Experts are narrow, so that several of them stay small.
CASES |= {
    # Mixtral 8x7B: two experts a token, whose weights are normalised; the window of Mistral.
    "mixtral": (torch.bfloat16, dict(num_key_value_heads=2, sliding_window=8, intermediate_size=32, num_local_experts=4,
                                     num_experts_per_tok=2)),
    # Qwen 1.5 MoE: weights that do not add up to 1, an expert for all behind a gate, a block without experts.
    "qwen2_moe": (torch.bfloat16, dict(num_key_value_heads=2, num_experts=6, num_experts_per_tok=2,
                                       moe_intermediate_size=24, shared_expert_intermediate_size=40,
                                       mlp_only_layers=[0])),
    # Qwen 3 30B-A3B: normalised weights, norms in each head.
    "qwen3_moe": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, num_experts=6, num_experts_per_tok=3,
                                       moe_intermediate_size=16, norm_topk_prob=True, decoder_sparse_step=1)),
    # GLM 4.5: a correction of the choice, groups of experts, half of each head turns, a dense block before the others.
    "glm4_moe": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=16, n_routed_experts=8, num_experts_per_tok=3,
                                      moe_intermediate_size=16, n_group=4, topk_group=2, n_shared_experts=2,
                                      routed_scaling_factor=1.5, first_k_dense_replace=1, use_qk_norm=True,
                                      attention_bias=True, rope_parameters=dict(
                                          rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5))),
    # DeepSeek 2 Lite: queries straight from the hidden state, values narrower than keys, groups judged by their best expert.
    "deepseek_v2": (torch.bfloat16, dict(q_lora_rank=None, kv_lora_rank=20, qk_rope_head_dim=8, qk_nope_head_dim=16,
                                         v_head_dim=12, n_routed_experts=8, num_experts_per_tok=3,
                                         moe_intermediate_size=16, n_shared_experts=1, topk_method="group_limited_greedy",
                                         n_group=4, topk_group=2, routed_scaling_factor=2.0, first_k_dense_replace=1)),
    # DeepSeek 3: queries out of a narrow vector, too; YaRN, which scales the scores; a correction of the choice.
    "deepseek_v3": (torch.bfloat16, dict(num_key_value_heads=4, q_lora_rank=24, kv_lora_rank=20, qk_rope_head_dim=8,
                                         qk_nope_head_dim=16, v_head_dim=32, n_routed_experts=8, num_experts_per_tok=3,
                                         moe_intermediate_size=16, n_shared_experts=1, n_group=4, topk_group=2,
                                         first_k_dense_replace=1, rope_parameters=dict(
                                             rope_type="yarn", rope_theta=500.0, factor=4.0, mscale=1.0,
                                             mscale_all_dim=0.8, beta_fast=4.0, beta_slow=1.0,
                                             original_max_position_embeddings=16))),
    # OLMoE: weights that are not normalised, norms over all heads of queries and of keys together.
    "olmoe": (torch.bfloat16, dict(num_key_value_heads=2, intermediate_size=16, num_experts=6, num_experts_per_tok=3)),
    # Granite 3 with experts: those of a block in two tensors, and multipliers everywhere.
    "granitemoe": (torch.bfloat16, dict(num_key_value_heads=2, intermediate_size=20, num_local_experts=5,
                                        num_experts_per_tok=2, embedding_multiplier=1.5, logits_scaling=2.0,
                                        residual_multiplier=0.7, attention_multiplier=0.2, tie_word_embeddings=True)),
    # gpt-oss: sinks, windows in every other block, biases, experts as [in, out] whose gates and ups take turns.
    "gpt_oss": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=16, intermediate_size=20, num_local_experts=5,
                                     num_experts_per_tok=2, sliding_window=8, rope_parameters=dict(
                                         rope_type="yarn", rope_theta=500.0, factor=4.0, beta_fast=4.0, beta_slow=1.0,
                                         truncate=False, original_max_position_embeddings=16))),
}
# What a checkpoint calls the weights that read an expert's input, and that which reads what comes out of its activation.
EXPERT_WEIGHT = re.compile(r"\.(?:experts\.(?:(\d+)\.)?(?:(w1|w3|gate_proj|up_proj|gate_up_proj)|(w2|down_proj))"
                           r"|block_sparse_moe\.(?:(input_linear)|(output_linear)))(?:\.weight)?$")


def watch_experts(model, seen):
    """Has every module of experts put into `seen`, by its parent's name, what each expert reads and what its last layer does."""
    def hook(name):
        def see(experts, inputs):
            x, chosen = inputs[0].reshape(-1, inputs[0].shape[-1]), inputs[1]
            of_block = []
            for expert in range(experts.num_experts):
                own = x[(chosen == expert).any(-1)]
                if hasattr(experts, "gate_up_proj_bias"):
                    gate_up = own @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
                    of_block.append((own, experts._apply_gate(gate_up)))
                    continue
                gate, up = (own @ experts.gate_up_proj[expert].T).chunk(2, dim=-1)
                of_block.append((own, experts.act_fn(gate) * up))
            seen[name] = of_block
        return see

    for key, module in model.named_modules():
        if key.endswith(".experts"):
            module.register_forward_pre_hook(hook(key.removesuffix(".experts")))


def squares(x):
    return (x.double() ** 2).sum(0).float()


@torch.no_grad()
def save_with_experts(model, dtype, folder, seen):
    """Saves the model as transformers does. Gives the norms and the numbers of tokens of its experts, by saved name."""
    with tempfile.TemporaryDirectory() as scratch:
        model.to(dtype).save_pretrained(scratch)
        state = load_file(pathlib.Path(scratch) / "model.safetensors")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    found = {}
    for weight in state:
        match = EXPERT_WEIGHT.search(weight)
        if not match:
            continue
        block = next(name for name in seen if block_of(name) == block_of(weight))
        fused = match[1] is None
        which = 0 if match[2] or match[4] else 1
        experts = seen[block] if fused else [seen[block][int(match[1])]]
        found[f"norms.{weight}"] = torch.stack([squares(x[which]) for x in experts]).reshape(-1)
        found[f"counts.{weight}"] = torch.tensor([float(len(x[0])) for x in experts])
    return found


def block_of(name):
    return int(re.search(r"\.layers\.(\d+)\.", name)[1])


@torch.no_grad()
def make(name, dtype, changes):
    torch.manual_seed(len(name))
    config = transformers.AutoConfig.for_model(name, **{**SIZES, **changes})
    config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for key, tensor in model.named_parameters():
        # Wide enough that attention chooses and activations bend; norms around 1; biases that matter.
        noise = torch.randn_like(tensor) * (0.3 if tensor.dim() == 1 else 0.2)
        is_norm = tensor.dim() == 1 and "norm" in key and key.endswith("weight")
        # Some gates and ups beyond where gpt-oss clamps them.
        wide = 4.0 if name == "gpt_oss" and "gate_up" in key else 1.0
        tensor.copy_((noise * wide + (1.0 if is_norm else 0.0)).to(dtype).float())

    for key, tensor in model.named_buffers():
        if key.endswith("e_score_correction_bias"):
            tensor.copy_((torch.randn_like(tensor) * 0.3).to(dtype).float())

    norms, seen = {}, {}
    watch_experts(model, seen)

    def hook(key):
        def see(_, inputs):
            norms[f"norms.{key}.weight"] = squares(inputs[0].flatten(0, -2))
        return see

    for key, module in model.named_modules():
        # Routers, and the gates of experts for all, are no weights to prune.
        if isinstance(module, torch.nn.Linear) and ".layers." in key and not key.endswith(("expert_gate", "router")):
            module.register_forward_pre_hook(hook(key))
    tokens = torch.randint(0, config.vocab_size, (1, 32))
    logits = model(tokens, use_cache=False).logits[0]

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    if seen:
        norms |= save_with_experts(model, dtype, folder, seen)
    else:
        state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
        if config.tie_word_embeddings:
            del state["lm_head.weight"]
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    kept = {k: v for k, v in config.to_dict().items() if k in KEYS and v is not None}
    (folder / "config.json").write_text(json.dumps(kept, indent=2) + "\n")
    save_file({"tokens": tokens[0].int(), "logits": logits.contiguous(), **norms}, folder / "golden.safetensors",
              metadata={"transformers": transformers.__version__, "torch": torch.__version__})


KEYS = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "hidden_act", "rms_norm_eps",
        "layer_norm_eps", "rope_parameters", "tie_word_embeddings", "sliding_window", "use_parallel_residual",
        "attention_bias", "mlp_bias"]
KEYS += ["num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size",
         "shared_expert_intermediate_size", "n_shared_experts", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers",
         "qkv_bias", "n_group", "topk_group", "routed_scaling_factor", "first_k_dense_replace", "use_qk_norm",
         "q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "topk_method",
         "rope_interleave", "layer_types", "swiglu_limit", "swiglu_alpha",
         "embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier"]

if __name__ == "__main__":
    # All of them, or those that are named.
    for name in sys.argv[1:] or CASES:
        make(name, *CASES[name])
