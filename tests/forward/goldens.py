"""Makes the checkpoints in this folder, and what transformers computes from them.

    python goldens.py [CASE...]      # transformers 5.23.0, torch 2.15.0, safetensors 0.8; on the CPU, in float32

A folder a case, an architecture with what is special about it switched on, named MODEL_TYPE or MODEL_TYPE-VARIANT where the
case does not say its model_type: random weights, 2 blocks, hidden size 64, and golden.safetensors with 32 tokens, their logits,
and the sum of squares of every input feature of every linear layer (float64 sums of float32 activations). Checkpoints with
experts are saved by save_pretrained, which takes them apart again; of every expert there are the sums over the tokens that
were routed to it, and their number.
"""

import dataclasses
import json
import pathlib
import re
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

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
    # Fused projections, LongRoPE beyond the trained length, rope on a part of each head.
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
    # Gate and up in one, rope on half of each head, by neighbours.
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
    # LayerNorms by one plus their weight, squared ReLU without a gate, rope on half of each head.
    "nemotron": (torch.bfloat16, dict(num_key_value_heads=2, head_dim=24, attention_bias=True, mlp_bias=True)),
    # Every other block slides; YaRN with factors of its own.
    "ministral": (torch.bfloat16, dict(
        num_key_value_heads=2, head_dim=24, sliding_window=8, layer_types=SLIDES_THEN_NOT,
        rope_parameters=dict(rope_type="yarn", rope_theta=500.0, factor=4.0, original_max_position_embeddings=16,
                             beta_fast=4.0, beta_slow=1.0, mscale=1.0, mscale_all_dim=0.5, truncate=False))),
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
    # Both halves of a block read one normalised input, rope on half of each head; norms in each head, a bias on the head.
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
CASES |= {
    # xIELU, whose numbers each block learns; norms of heads.
    "apertus": (torch.bfloat16, dict(num_key_value_heads=2, attention_bias=True, rope_parameters=LLAMA3)),
    # A short convolution with biases, then attention.
    "lfm2": (torch.bfloat16, dict(num_key_value_heads=2, layer_types=["conv", "full_attention"], conv_bias=True,
                                  block_auto_adjust_ff_dim=False)),
    # Mamba 1 alone.
    "mamba": (torch.bfloat16, dict(intermediate_size=None, num_attention_heads=None, state_size=12, time_step_rank=6,
                                   use_bias=True, conv_kernel=3)),
    # Mamba 2 with a norm behind its gate, in groups, and time steps that are kept within limits; then attention.
    "bamba": (torch.bfloat16, dict(num_key_value_heads=2, attn_layer_indices=[1], mamba_n_heads=4, mamba_d_head=32,
                                   mamba_n_groups=2, mamba_d_state=12, mamba_chunk_size=8, time_step_limit=(0.4, 0.9))),
    # Attention and Mamba 2 side by side, the norm before the gate, and multipliers everywhere.
    "falcon_h1": (torch.bfloat16, dict(
        num_key_value_heads=2, mamba_d_ssm=96, mamba_n_heads=6, mamba_d_head=16, mamba_n_groups=2, mamba_d_state=12,
        mamba_chunk_size=8, mamba_rms_norm=True, mamba_norm_before_gate=True, mamba_proj_bias=True, projectors_bias=True,
        attention_in_multiplier=0.7, attention_out_multiplier=1.3, key_multiplier=0.6, ssm_in_multiplier=1.2,
        ssm_out_multiplier=0.8, ssm_multipliers=[0.9, 1.1, 0.7, 1.4, 0.5], mlp_multipliers=[0.8, 1.5],
        embedding_multiplier=1.7, lm_head_multiplier=0.3)),
    # The same without that norm.
    "falcon_h1-plain": (torch.bfloat16, dict(
        num_key_value_heads=2, mamba_d_ssm=96, mamba_n_heads=6, mamba_d_head=16, mamba_d_state=12, mamba_chunk_size=8)),
}
CASES |= {
    # OPT 350M: norms of sums, and an embedding narrower than the residual stream.
    "opt-350m": (torch.float16, dict(intermediate_size=None, ffn_dim=96, word_embed_proj_dim=48, do_layer_norm_before=False)),
    # Each half is added to what it read, normalised.
    "bloom-normed_residual": (torch.bfloat16, dict(intermediate_size=None, num_attention_heads=4,
                                                   apply_residual_connection_post_layernorm=True)),
    # Scores that are not scaled, a window in every other block.
    "gpt_neo": (torch.bfloat16, dict(attention_types=[[["global", "local"], 1]], window_size=8)),
    # Queries, values and keys in four quarters of one tensor.
    "codegen": (torch.bfloat16, dict(intermediate_size=None, num_attention_heads=8, n_inner=96, rotary_dim=4)),
    # StableLM 2 12B: a norm for each head, in a tensor of its own.
    "stablelm-normed_heads": (torch.float16, dict(num_key_value_heads=2, qk_layernorm=True, use_parallel_residual=True)),
}
CASES |= {
    # Mamba 2 alone.
    "mamba2": (torch.bfloat16, dict(intermediate_size=None, num_attention_heads=None, num_heads=4, head_dim=32, n_groups=2,
                                    state_size=12, chunk_size=8, use_bias=True)),
    # Mamba 1 with norms without weights.
    "falcon_mamba": (torch.bfloat16, dict(intermediate_size=None, num_attention_heads=None, state_size=12,
                                          time_step_rank=6)),
    # Qwen 3.5: a delta net in tensors of their own, gated attention.
    "qwen3_5_text": (torch.bfloat16, dict(
        num_key_value_heads=2, head_dim=16, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=12)),
}
# Their norms have factors around 1 where the weight is around 0.
OFFSET_NORMS = ("gemma", "nemotron", "qwen3_next", "qwen3_5")
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
    # GLM 4.5: a correction of the choice, groups of experts, rope on half of each head, a dense block before the others.
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
CASES |= {
    # Chunks, a block without rotation but with a temperature, experts as [in, out] whose input is weighed, a dense block.
    "llama4_text": (torch.bfloat16, dict(
        num_key_value_heads=2, head_dim=16, no_rope_layers=[1, 0], attention_chunk_size=12, floor_scale=5, attn_scale=0.3,
        interleave_moe_layer_step=2, intermediate_size=24, intermediate_size_mlp=96, num_local_experts=5,
        num_experts_per_tok=2, pad_token_id=0)),
    # Experts one below the other in three matrices, of which the last is [in, out]; clipped heads.
    "dbrx": (torch.bfloat16, dict(
        intermediate_size=None, hidden_size=None, d_model=64, attn_config=dict(kv_n_heads=2, rope_theta=10000.0, clip_qkv=1.5),
        ffn_config=dict(ffn_hidden_size=24, moe_num_experts=5, moe_top_k=2))),
    # Phi 3.5 MoE: experts chosen one after the other, a head with a bias, LongRoPE within the trained length.
    "phimoe": (torch.bfloat16, dict(
        num_key_value_heads=2, intermediate_size=24, num_local_experts=5, num_experts_per_tok=2, attention_bias=True,
        lm_head_bias=True, router_jitter_noise=0.2, sliding_window=12, max_position_embeddings=256,
        rope_parameters=dict(rope_type="longrope", rope_theta=500.0, original_max_position_embeddings=64, factor=4.0,
                             short_mscale=1.2, long_mscale=1.4, short_factor=[1.0, 1.0, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6],
                             long_factor=[1.0, 1.2, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0]))),
    # Mamba 1 with norms of what it chooses; attention without positions, and experts whose weights are not normalised.
    "jamba": (torch.bfloat16, dict(
        num_key_value_heads=2, intermediate_size=24, num_experts=5, num_experts_per_tok=2, attn_layer_period=2,
        attn_layer_offset=1, mamba_d_state=12, mamba_dt_rank=6, mamba_d_conv=3)),
    # LFM 2 with experts in all blocks but the first.
    "lfm2_moe": (torch.bfloat16, dict(
        num_key_value_heads=2, layer_types=["conv", "full_attention"], num_dense_layers=1, num_experts=5,
        num_experts_per_tok=2, moe_intermediate_size=16, routed_scaling_factor=1.5)),
    # Granite 4: Mamba 2, then attention; an expert for all beside the others.
    "granitemoehybrid": (torch.bfloat16, dict(
        num_key_value_heads=2, layer_types=["linear_attention", "full_attention"], mamba_n_heads=4, mamba_d_head=32,
        mamba_n_groups=2, mamba_d_state=12, mamba_chunk_size=8, num_local_experts=5, num_experts_per_tok=2,
        intermediate_size=20, shared_intermediate_size=24, embedding_multiplier=1.5, logits_scaling=2.0,
        residual_multiplier=0.7, attention_multiplier=0.2)),
    # Nemotron 3: a block is one thing, each of the four.
    "nemotron_h": (torch.bfloat16, dict(
        num_hidden_layers=4, layers_block_type=["linear_attention", "moe", "full_attention", "mlp"], num_key_value_heads=2,
        head_dim=16, mamba_num_heads=6, mamba_head_dim=16, n_groups=2, ssm_state_size=12, chunk_size=8,
        n_routed_experts=6, num_experts_per_tok=2, moe_intermediate_size=16, moe_shared_expert_intermediate_size=24,
        routed_scaling_factor=1.5)),
    # Qwen 3.5 with experts.
    "qwen3_5_moe_text": (torch.bfloat16, dict(
        num_key_value_heads=2, head_dim=16, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=12, num_experts=5, num_experts_per_tok=2,
        moe_intermediate_size=16, shared_expert_intermediate_size=24)),
    # A delta net whose key heads serve two value heads each, gated attention, an expert for all behind a gate.
    "qwen3_next": (torch.bfloat16, dict(
        num_key_value_heads=2, head_dim=16, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=8, linear_value_head_dim=12, num_experts=5, num_experts_per_tok=2,
        moe_intermediate_size=16, shared_expert_intermediate_size=24)),
}
# What a checkpoint calls the weights that read an expert's input, and that which reads what comes out of its activation.
EXPERT_WEIGHT = re.compile(r"\.(?:experts\.(?:(\d+)\.|mlp\.)?(?:(w1|w3|v1|gate_proj|up_proj|gate_up_proj)|(w2|down_proj))"
                           r"|block_sparse_moe\.(?:(input_linear)|(output_linear)))(?:\.weight)?$")


def watch_experts(model, seen):
    """Has every module of experts put into `seen`, by its parent's name, what each expert reads and what its last layer does."""
    def hook(name):
        def see(experts, inputs):
            if len(inputs) == 1:
                # Llama 4: every token for every expert, times a weight that is zero for those that did not choose it.
                of_experts = inputs[0].view(experts.num_experts, -1, experts.hidden_size)
                owns = [x[x.any(-1)] for x in of_experts]
                gates_ups = [(own @ both).chunk(2, -1) for own, both in zip(owns, experts.gate_up_proj)]
                seen[name] = [(own, experts.act_fn(gate) * up) for own, (gate, up) in zip(owns, gates_ups)]
                return
            x, chosen = inputs[0].reshape(-1, inputs[0].shape[-1]), inputs[1]
            of_block = []
            for expert in range(experts.num_experts):
                own = x[(chosen == expert).any(-1)]
                if hasattr(experts, "gate_up_proj_bias"):
                    gate_up = own @ experts.gate_up_proj[expert] + experts.gate_up_proj_bias[expert]
                    of_block.append((own, experts._apply_gate(gate_up)))
                    continue
                if hasattr(experts, "mlp"):
                    sides = [of.view(experts.num_experts, -1, experts.hidden_size)[expert]
                             for of in (experts.mlp.w1, experts.mlp.v1)]
                    gate, up = (own @ side.T for side in sides)
                    of_block.append((own, experts.mlp.activation_fn(gate) * up))
                    continue
                if not hasattr(experts, "gate_up_proj"):
                    of_block.append((own, experts.act_fn(own @ experts.up_proj[expert].T)))
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
    return int(re.search(r"\.(?:layers|blocks)\.(\d+)\.", name)[1])


class Left(TorchFunctionMode):
    """Sees weights that are multiplied with an input, [features, tokens], and not by their modules."""

    def __init__(self, model, norms):
        super().__init__()
        self.names = {id(tensor): name for name, tensor in model.named_parameters()}
        self.norms = norms

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__name__", "") in ("matmul", "__matmul__") and id(args[0]) in self.names:
            self.norms[f"norms.{self.names[id(args[0])]}"] = squares(args[1][0].T)
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def make(name, dtype, changes):
    torch.manual_seed(len(name))
    changes = dict(changes)
    model_type = changes.pop("model_type", name.split("-")[0])
    sizes = {key: value for key, value in {**SIZES, **changes}.items() if value is not None}
    config = transformers.AutoConfig.for_model(model_type, **sizes)
    config._experts_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for key, tensor in model.named_parameters():
        # Wide enough that attention chooses and activations bend; norms around 1; biases that matter.
        noise = torch.randn_like(tensor) * (0.3 if tensor.dim() == 1 else 0.2)
        around_0 = name.startswith(OFFSET_NORMS) and "linear_attn" not in key and name != "nemotron_h"
        is_norm = key.endswith("weight") and (tensor.dim() == 1 or "norm" in key.split(".")[-2]) and not around_0
        # Some gates and ups beyond where gpt-oss clamps them.
        wide = 4.0 if name == "gpt_oss" and "gate_up" in key else 1.0
        tensor.copy_((noise * wide + (1.0 if is_norm else 0.0)).to(dtype).float())

    for key, tensor in model.named_buffers():
        if key.endswith(("e_score_correction_bias", "expert_bias")):
            tensor.copy_((torch.randn_like(tensor) * 0.3).to(dtype).float())

    norms, seen = {}, {}
    watch_experts(model, seen)

    def hook(key):
        def see(_, inputs):
            norms[f"norms.{key}.weight"] = squares(inputs[0].flatten(0, -2))
        return see

    for key, module in model.named_modules():
        in_a_block = any(part.isdigit() for part in key.split("."))
        # Routers, and the gates of experts for all, are no weights to prune.
        is_layer = isinstance(module, (torch.nn.Linear, transformers.pytorch_utils.Conv1D))
        if in_a_block and is_layer and not re.search("expert_gate$|router", key):
            module.register_forward_pre_hook(hook(key))
    tokens = torch.randint(0, config.vocab_size, (1, 32))
    with Left(model, norms):
        logits = model(tokens, use_cache=False).logits[0]

    folder = HERE / name
    folder.mkdir(exist_ok=True)
    if name == "nemotron_h":
        # It is saved under another name.
        norms = {key.replace("model.", "backbone.", 1): norm for key, norm in norms.items()}
    if seen:
        norms |= save_with_experts(model, dtype, folder, seen)
        state = None
    else:
        state = {k: v.to(dtype).contiguous() for k, v in model.state_dict().items()}
        if config.tie_word_embeddings:
            del state["lm_head.weight"]
    # A null is said where the class means something else.
    usual = {field.name: field.default for field in dataclasses.fields(config)}
    kept = {k: v for k, v in config.to_dict().items()
            if k in KEYS and (v is not None or usual.get(k) is not None)}
    # Infinity is no number of JSON; the usual limit is not said.
    if float("inf") in kept.get("time_step_limit", ()):
        del kept["time_step_limit"]
    if name == "dbrx":
        kept |= {part: {k: v for k, v in kept[part].items() if k in KEYS} for part in ("attn_config", "ffn_config")}
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
        "logit_scale", "attention_out_bias", "sliding_window_pattern", "partial_rotary_factor",
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
KEYS += ["num_local_experts", "num_experts", "n_routed_experts", "num_experts_per_tok", "moe_intermediate_size",
         "shared_expert_intermediate_size", "n_shared_experts", "norm_topk_prob", "decoder_sparse_step", "mlp_only_layers",
         "qkv_bias", "n_group", "topk_group", "routed_scaling_factor", "first_k_dense_replace", "use_qk_norm",
         "q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim", "topk_method",
         "rope_interleave", "layer_types", "swiglu_limit", "swiglu_alpha",
         "embedding_multiplier", "logits_scaling", "residual_multiplier", "attention_multiplier"]
# llama4, dbrx
KEYS += ["intermediate_size_mlp", "interleave_moe_layer_step", "attention_chunk_size", "floor_scale", "attn_scale",
         "attn_temperature_tuning", "ffn_config", "kv_n_heads", "rope_theta", "ffn_act_fn", "moe_num_experts", "moe_top_k",
         "moe_normalize_expert_weights"]
# mamba2, falcon_mamba, lfm2_moe, granitemoehybrid, nemotron_h
KEYS += ["head_dim", "n_groups", "mixer_rms_eps", "num_dense_layers", "use_expert_bias", "shared_intermediate_size",
         "position_embedding_type", "mamba_num_heads", "mamba_head_dim", "ssm_state_size", "mlp_hidden_act",
         "mamba_hidden_act", "time_step_min", "moe_shared_expert_intermediate_size"]
# gpt_neo, phimoe
KEYS += ["attention_types", "window_size", "num_layers", "num_heads", "lm_head_bias", "router_jitter_noise"]
# lfm2, mamba, jamba, bamba, falcon_h1, qwen3_next
KEYS += ["conv_bias", "conv_L_cache", "block_auto_adjust_ff_dim", "block_multiple_of", "block_ffn_dim_multiplier",
         "state_size", "time_step_rank", "conv_kernel", "expand", "use_conv_bias", "attn_layer_period", "attn_layer_offset",
         "expert_layer_period", "expert_layer_offset", "attn_layer_indices", "layers_block_type", "time_step_limit",
         "mamba_d_state", "mamba_dt_rank", "mamba_d_conv", "mamba_expand", "mamba_proj_bias", "mamba_conv_bias",
         "mamba_n_heads", "mamba_d_head", "mamba_n_groups", "mamba_d_ssm", "mamba_rms_norm", "mamba_norm_before_gate",
         "projectors_bias", "attention_in_multiplier", "attention_out_multiplier", "key_multiplier", "ssm_in_multiplier",
         "ssm_out_multiplier", "ssm_multipliers", "mlp_multipliers", "lm_head_multiplier", "linear_num_key_heads",
         "linear_num_value_heads", "linear_key_head_dim", "linear_value_head_dim", "linear_conv_kernel_dim"]

if __name__ == "__main__":
    # All of them, or those that are named.
    for name in sys.argv[1:] or CASES:
        make(name, *CASES[name])
