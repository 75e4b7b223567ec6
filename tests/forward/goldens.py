"""Makes the checkpoints in this folder, and what transformers computes from them.

    python goldens.py        # transformers 5.23.0, torch 2.15.0, safetensors 0.8; on the CPU, in float32

    python goldens.py gemma phi3        # only these

A folder a case, an architecture with what is special about it switched on: random weights, 2 blocks, hidden size 64, and
golden.safetensors with 32 tokens, their logits, and the sum of squares of every input feature of every linear layer (float64
sums of float32 activations). Checkpoints with experts are saved by save_pretrained, which takes them apart again; of every
expert there are the sums over the tokens that were routed to it, and their number.
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
SLIDES_THEN_NOT = ["sliding_attention", "full_attention"]
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
    # Norms by one plus their weight, a scaled embedding, heads wider than the hidden state is shared out.
    "gemma": (torch.bfloat16, dict(num_key_value_heads=1, head_dim=24)),
    # Post norms, soft caps, a scale of its own, every other block slides.
    "gemma2": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, sliding_window=8, query_pre_attn_scalar=20,
                                    attn_logit_softcapping=4.0, final_logit_softcapping=3.0)),
    # Two bases, one of them scaled; norms in each head.
    "gemma3_text": (torch.bfloat16, dict(
        num_key_value_heads=2, head_dim=24, sliding_window=8, query_pre_attn_scalar=20, layer_types=SLIDES_THEN_NOT,
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=5000.0),
                             sliding_attention=dict(rope_type="default", rope_theta=100.0)))),
    # The text's half of one that knows pictures, as transformers 4 wrote it: what is usual is not said.
    "gemma3": (torch.bfloat16, dict(
        model_type="gemma3_text", num_key_value_heads=1, num_attention_heads=2, head_dim=256, hidden_size=16,
        intermediate_size=32, sliding_window=8, sliding_window_pattern=2, attn_implementation="eager",
        rope_parameters=dict(full_attention=dict(rope_type="linear", factor=8.0, rope_theta=1e6),
                             sliding_attention=dict(rope_type="default", rope_theta=1e4)))),
    # Fused projections, LongRoPE beyond the trained length, part of each head turns.
    "phi3": (torch.bfloat16, dict(
        num_key_value_heads=2, sliding_window=20, original_max_position_embeddings=16, pad_token_id=0,
        rope_parameters=dict(rope_type="longrope", rope_theta=500.0, partial_rotary_factor=0.75,
                             original_max_position_embeddings=16,
                             short_factor=[1.0, 1.0, 1.1, 1.2, 1.3, 1.4], long_factor=[1.0, 1.2, 1.5, 2.0, 3.0, 4.0]))),
    # Norms without weights, clipped heads.
    "olmo": (torch.float16, dict(num_key_value_heads=2, clip_qkv=1.0)),
    # Post norms only; norms of all heads together.
    "olmo2": (torch.bfloat16, dict(num_key_value_heads=2, attention_bias=True)),
    # The same, half of the blocks slide, and only the others are scaled, by YaRN.
    "olmo3": (torch.bfloat16, dict(
        num_key_value_heads=2, sliding_window=8, layer_types=SLIDES_THEN_NOT,
        rope_parameters=dict(full_attention=dict(rope_type="yarn", rope_theta=500.0, factor=4.0, beta_fast=8.0,
                                                 original_max_position_embeddings=16),
                             sliding_attention=dict(rope_type="default", rope_theta=500.0)))),
    # Multipliers of embedding, attention, residual stream and logits.
    "granite": (torch.bfloat16, dict(num_key_value_heads=2, embedding_multiplier=6.0, attention_multiplier=0.1,
                                     residual_multiplier=0.3, logits_scaling=3.0, mlp_bias=True)),
    # A block that knows no positions, and slides.
    "smollm3": (torch.bfloat16, dict(num_key_value_heads=2, no_rope_layers=[1, 0], use_sliding_window=True,
                                     sliding_window=8, pad_token_id=0)),
    # LayerNorms, biases, no gate.
    "starcoder2": (torch.bfloat16, dict(num_key_value_heads=2, sliding_window=8)),
    # LayerNorms, a quarter of each head turns.
    "stablelm": (torch.float16, dict(num_key_value_heads=2, use_qkv_bias=True)),
    # The same with one norm for both halves of a block.
    "stablelm_parallel": (torch.float16, dict(model_type="stablelm", num_key_value_heads=4,
                                              use_parallel_residual=True)),
    # One LayerNorm for both halves, norms of heads that each have their factors, neighbours turn.
    "cohere": (torch.bfloat16, dict(num_key_value_heads=2, use_qk_norm=True, logit_scale=0.25)),
    # The same; the blocks that do not slide know no positions.
    "cohere2": (torch.bfloat16, dict(num_key_value_heads=2, sliding_window=8, layer_types=SLIDES_THEN_NOT,
                                     logit_scale=0.25)),
    # Gate and up in one, half of each head turns, by neighbours.
    "glm": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, pad_token_id=0)),
    # The same with norms around both halves.
    "glm4": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, pad_token_id=0)),
    # Biases everywhere, neighbours turn.
    "ernie4_5": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, use_bias=True)),
    # Post norms, norms of heads, a block without positions.
    "exaone4": (torch.bfloat16, dict(num_key_value_heads=2, sliding_window=8, layer_types=SLIDES_THEN_NOT)),
    # Norms of heads that have turned, by a base of their own.
    "hunyuan_v1_dense": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, rope_parameters=dict(
        rope_type="dynamic", alpha=50.0, factor=1.0, rope_theta=500.0))),
    # Biases, dynamic scaling within the trained length.
    "seed_oss": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, attention_out_bias=True, mlp_bias=True,
                                      max_position_embeddings=256,
                                      rope_parameters=dict(rope_type="dynamic", factor=4.0, rope_theta=500.0))),
    # Neighbours turn.
    "helium": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=16)),
    # LayerNorms by one plus their weight, squared ReLU without a gate, half of each head turns.
    "nemotron": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, attention_bias=True, mlp_bias=True)),
    # Every other block slides; YaRN with factors of its own.
    "ministral": (torch.bfloat16, dict(
        num_key_value_heads=2, head_dim=24, sliding_window=8, layer_types=SLIDES_THEN_NOT,
        rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=16,
                             beta_fast=4.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=0.5, truncate=False))),
}
# Their norms have factors around 1 where the weight is around 0.
OFFSET_NORMS = ("gemma", "nemotron")
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
    changes = dict(changes)
    model_type = changes.pop("model_type", name)
    config = transformers.AutoConfig.for_model(model_type, **{**SIZES, **changes})
    config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for key, tensor in model.named_parameters():
        # Wide enough that attention chooses and activations bend; norms around 1; biases that matter.
        noise = torch.randn_like(tensor) * (0.3 if tensor.dim() == 1 else 0.2)
        is_norm = "norm" in key and key.endswith("weight") and not name.startswith(OFFSET_NORMS)
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
        state = None
    else:
        state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
        if config.tie_word_embeddings:
            del state["lm_head.weight"]
    kept = {k: v for k, v in config.to_dict().items() if k in KEYS and v is not None}
    if name == "gemma3":
        state, norms, kept = as_half(state, norms, kept)
    if state is not None:
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(kept, indent=2) + "\n")
    save_file({"tokens": tokens[0].int(), "logits": logits.contiguous(), **norms}, folder / "golden.safetensors",
              metadata={"transformers": transformers.__version__, "torch": torch.__version__})


def as_half(state, norms, kept):
    """The text's half of a model that knows pictures, too, in the names and keys of transformers 4."""
    said = ["hidden_size", "intermediate_size", "num_hidden_layers", "sliding_window", "vocab_size",
            "max_position_embeddings", "num_attention_heads", "num_key_value_heads"]
    text = {key: kept[key] for key in said}
    text |= dict(model_type="gemma3_text", sliding_window_pattern=2, rope_scaling=dict(rope_type="linear", factor=8.0))
    state = {f"language_model.{key}": tensor for key, tensor in state.items()}
    norms = {key.replace("norms.", "norms.language_model."): norm for key, norm in norms.items()}
    return state, norms, dict(model_type="gemma3", text_config=text, torch_dtype="bfloat16")


KEYS = ["model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "hidden_act", "rms_norm_eps",
        "layer_norm_eps", "rope_parameters", "tie_word_embeddings", "sliding_window", "use_parallel_residual",
        "attention_bias", "mlp_bias", "hidden_activation", "layer_types", "query_pre_attn_scalar",
        "attn_logit_softcapping", "final_logit_softcapping", "original_max_position_embeddings", "clip_qkv",
        "embedding_multiplier", "attention_multiplier", "residual_multiplier", "logits_scaling", "no_rope_layers",
        "use_sliding_window", "norm_epsilon", "norm_eps", "use_bias", "use_qkv_bias", "qk_layernorm", "use_qk_norm",
        "logit_scale", "attention_out_bias", "sliding_window_pattern", "partial_rotary_factor"]
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
