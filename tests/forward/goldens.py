"""Makes the checkpoints in this folder, and what transformers computes from them.

    python goldens.py [CASE...]      # transformers 5.23.0, torch 2.15.0, safetensors 0.8; on the CPU, in float32

A folder a case, named MODEL_TYPE or MODEL_TYPE-VARIANT: random weights, 2 blocks, hidden size 64, and golden.safetensors with 32 tokens, their logits, and
the sum of squares of every input feature of every linear layer (float64 sums of float32 activations).
"""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import save_file

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
    # Learned positions, ReLU, a tied head. transformers has a bias or none in all layers; here they have it.
    "opt": (torch.float16, dict(intermediate_size=None, ffn_dim=96, word_embed_proj_dim=64)),
    # Weights as [in, out], queries, keys and values in one; the scores of a block divided by its number.
    "gpt2": (torch.bfloat16, dict(intermediate_size=None, n_inner=96, scale_attn_by_inverse_layer_idx=True)),
    # StarCoder 1: one key and value for all queries.
    "gpt_bigcode": (torch.bfloat16, dict(intermediate_size=None, hidden_size=48, num_attention_heads=6)),
    # Many of them: head by head.
    "gpt_bigcode-multi_head": (torch.bfloat16, dict(intermediate_size=None, n_inner=96, multi_query=False,
                                                    scale_attn_weights=False)),
    # ALiBi for a number of heads that is no power of two, a norm behind the embedding.
    "bloom": (torch.bfloat16, dict(intermediate_size=None, hidden_size=48, num_attention_heads=12)),
    # ALiBi in MPT's order of slopes, queries, keys and values in one and clipped.
    "mpt": (torch.bfloat16, dict(intermediate_size=None, max_position_embeddings=None, d_model=48, n_heads=12,
                                 attn_config=dict(clip_qkv=1.5, softmax_scale=0.3), hidden_size=None,
                                 num_attention_heads=None, max_seq_len=64)),
    # Both halves of a block read one normalised input, half of each head turns; norms in each head, a bias on the head.
    "phi": (torch.float16, dict(num_key_value_heads=2, qk_layernorm=True)),
    # Neighbouring features turn together; the same with a bias on the head.
    "gptj": (torch.bfloat16, dict(intermediate_size=None, n_inner=96, rotary_dim=8)),
    # 7B: one key and value for all queries, both halves read one normalised input.
    "falcon": (torch.bfloat16, dict(intermediate_size=None, ffn_hidden_size=96)),
    # 40B: a key and a value for every two queries, two norms side by side.
    "falcon-new": (torch.bfloat16, dict(intermediate_size=None, ffn_hidden_size=96, new_decoder_architecture=True,
                                        num_kv_heads=2, tie_word_embeddings=False)),
    # RW: ALiBi in bfloat16 for a number of heads that is no power of two, one half after the other, biases.
    # Not eager: there, transformers 5.23 adds ALiBi to the scores and to their mask.
    "falcon-alibi": (torch.bfloat16, dict(intermediate_size=None, hidden_size=48, num_attention_heads=12,
                                          ffn_hidden_size=96, alibi=True, multi_query=False, parallel_attn=False,
                                          bias=True, attn_implementation="sdpa")),
    # One interleaved projection, norms in each head, squared ReLU.
    "persimmon": (torch.bfloat16, dict()),
}


@torch.no_grad()
def make(name, dtype, changes):
    torch.manual_seed(len(name))
    sizes = {key: value for key, value in {**SIZES, **changes}.items() if value is not None}
    config = transformers.AutoConfig.for_model(name.split("-")[0], **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for key, tensor in model.named_parameters():
        # Wide enough that attention chooses and activations bend; norms around 1; biases that matter.
        noise = torch.randn_like(tensor) * (0.3 if tensor.dim() == 1 else 0.2)
        is_norm = tensor.dim() == 1 and key.endswith("weight")
        tensor.copy_((noise + (1.0 if is_norm else 0.0)).to(dtype).float())

    norms = {}

    def hook(key):
        def see(_, inputs):
            x = inputs[0].double().reshape(-1, inputs[0].shape[-1])
            norms[f"norms.{key}.weight"] = (x * x).sum(0).float()
        return see

    for key, module in model.named_modules():
        in_a_block = any(part.isdigit() for part in key.split("."))
        if in_a_block and isinstance(module, (torch.nn.Linear, transformers.pytorch_utils.Conv1D)):
            module.register_forward_pre_hook(hook(key))
    tokens = torch.randint(0, config.vocab_size, (1, 32))
    logits = model(tokens, use_cache=False).logits[0]

    folder = HERE / name
    folder.mkdir(exist_ok=True)
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
        "attention_bias", "mlp_bias",
        # opt, gpt2, gpt_bigcode
        "ffn_dim", "activation_function", "do_layer_norm_before", "word_embed_proj_dim", "enable_bias", "n_embd", "n_layer",
        "n_head", "n_inner", "n_positions", "layer_norm_epsilon", "scale_attn_weights", "scale_attn_by_inverse_layer_idx",
        "multi_query",
        # bloom, mpt
        "apply_residual_connection_post_layernorm", "d_model", "n_layers", "n_heads", "max_seq_len", "expansion_ratio",
        "attn_config", "learned_pos_emb", "logit_scale", "no_bias", "norm_type",
        # phi, gptj, falcon, persimmon
        "qk_layernorm", "rotary_dim", "ffn_hidden_size", "alibi", "bias", "multi_query", "parallel_attn",
        "new_decoder_architecture", "num_ln_in_parallel_attn", "num_kv_heads", "activation"]

if __name__ == "__main__":
    for name in sys.argv[1:] or CASES:
        make(name, *CASES[name])
