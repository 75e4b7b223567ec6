//! The table of tensor names: what each is, keyed by the part of the name behind its block.
//!
//! A checkpoint does not say what its tensors *are*; their names do. A row of [`RULES`] says three things of the weights it
//! names: how they are stored, which input of the block they read (norms belong to an input, so all its readers share
//! them), and by that input how llama.cpp calls them (`imatrix.rs`). **To support an architecture, add its tails here**;
//! every row is tested by the loop in this file, and by the lists of real names in `src/targets`.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::grammar::{block, match_tail};

/// Which axis of a stored weight its inputs run along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// `[out_features, in_features]`: a row is one output neuron, as in `nn.Linear`.
    OutIn,
    /// `[in_features, out_features]`: a column is one output neuron, as in GPT-2's `Conv1D`.
    InOut,
}

/// How a rule's weights are stored, and whether that needs to be found out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// `nn.Linear`: `[out, in]`, always.
    Linear,
    /// A module that is `nn.Linear` in some architectures and GPT-2's `Conv1D`, `[in, out]`, in others.
    MaybeConv1d(Hidden),
    /// All experts of a block in one tensor, `[experts, out, in]` or `[experts, in, out]`.
    FusedExperts(Hidden),
    /// All experts of a block one below the other in a matrix, `[experts * rows, columns]`, each lying this way.
    StackedExperts(Layout),
}

/// Which side of a layer has `hidden_size` features; by it a shape tells which axis is which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hidden {
    /// It reads the residual stream.
    In,
    /// It writes to the residual stream.
    Out,
}

/// The inputs of linear layers in a decoder block. All weights that read one input share its column norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Input {
    /// What queries, keys and values are made of.
    Attention,
    /// What the query's latent vector is expanded from.
    QueryLatent,
    /// What the latent vector of keys and values is expanded from.
    KeyValueLatent,
    /// The output of the attention heads.
    AttentionOutput,
    /// What gate and up read.
    Mlp,
    /// What down reads.
    MlpDown,
    /// What an expert's gate and up read: the tokens that were routed to it.
    Experts,
    /// What an expert's down reads.
    ExpertsDown,
    /// What the gate and up of the experts for every token read.
    SharedExperts,
    /// What their down reads.
    SharedExpertsDown,
    /// What a mixer (a state space, a linear attention, a short convolution) reads of the residual stream.
    Mixer,
    /// What it gives back to the residual stream.
    MixerOutput,
    /// What a state space's time step, B and C are made of.
    MixerStates,
    /// What its time step is expanded from.
    MixerTimeStep,
    /// An input that llama.cpp has no name for.
    Unnamed,
}

/// A row of the table: some tails, and what they say about a weight.
#[derive(Debug)]
pub(crate) struct NameRule {
    /// Which architectures have them; for the reader, and for a test to name the row.
    #[cfg_attr(
        not(test),
        expect(
            dead_code,
            reason = "documents the table, and names the row that a test fails on"
        )
    )]
    pub(crate) seen_in: &'static str,
    /// How the weight is stored.
    pub(crate) stored: Stored,
    /// Which input it reads.
    pub(crate) input: Input,
    /// The names within their block, without `.weight`, with a space between; `*` is a number.
    tails: &'static str,
}

impl NameRule {
    /// Each of the names.
    fn tails(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.tails.split_whitespace()
    }
}

const fn row(seen_in: &'static str, stored: Stored, input: Input, tails: &'static str) -> NameRule {
    NameRule {
        seen_in,
        stored,
        input,
        tails,
    }
}

/// The default set: every weight of which a name is known, all of them linear layers of a decoder block.
pub(crate) static RULES: &[NameRule] = &[
    row(
        "attention of llama, mistral, qwen 2 and 3, gemma, phi 3, olmo, granite, cohere, mixtral, opt, phi 1 and 2, persimmon",
        Stored::Linear,
        Input::Attention,
        "self_attn.q_proj self_attn.k_proj self_attn.v_proj self_attn.qkv_proj self_attn.W_pack self_attn.query_key_value",
    ),
    row(
        "the same: its output",
        Stored::Linear,
        Input::AttentionOutput,
        "self_attn.o_proj self_attn.out_proj self_attn.dense",
    ),
    row(
        "latent attention of deepseek 2 and 3, kimi, minicpm 3: down to the latent vectors",
        Stored::Linear,
        Input::Attention,
        "self_attn.q_a_proj self_attn.kv_a_proj_with_mqa",
    ),
    row(
        "the same: queries out of their latent vector",
        Stored::Linear,
        Input::QueryLatent,
        "self_attn.q_b_proj",
    ),
    row(
        "the same: keys and values out of theirs",
        Stored::Linear,
        Input::KeyValueLatent,
        "self_attn.kv_b_proj",
    ),
    row(
        "feed-forward of llama, mistral, qwen 2 and 3, gemma, olmo; phi 3 and glm 4 (gate and up in one)",
        Stored::Linear,
        Input::Mlp,
        "mlp.gate_proj mlp.up_proj mlp.gate_up_proj",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::MlpDown,
        "mlp.down_proj",
    ),
    row(
        "feed-forward of phi 1 and 2, opt",
        Stored::Linear,
        Input::Mlp,
        "mlp.fc1 fc1",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::MlpDown,
        "mlp.fc2 fc2",
    ),
    row(
        "attention of gpt_neox (pythia), falcon, bloom, chatglm",
        Stored::Linear,
        Input::Attention,
        "attention.query_key_value self_attention.query_key_value",
    ),
    row(
        "the same: its output",
        Stored::Linear,
        Input::AttentionOutput,
        "attention.dense self_attention.dense",
    ),
    row(
        "feed-forward of the same",
        Stored::Linear,
        Input::Mlp,
        "mlp.dense_h_to_4h",
    ),
    row(
        "feed-forward of the same: down",
        Stored::Linear,
        Input::MlpDown,
        "mlp.dense_4h_to_h",
    ),
    row(
        "attention of gpt-j, codegen, gpt_neo",
        Stored::Linear,
        Input::Attention,
        "attn.q_proj attn.k_proj attn.v_proj attn.qkv_proj attn.attention.q_proj attn.attention.k_proj \
         attn.attention.v_proj",
    ),
    row(
        "the same, and mpt: its output",
        Stored::Linear,
        Input::AttentionOutput,
        "attn.out_proj attn.attention.out_proj",
    ),
    row(
        "feed-forward of gpt-j, codegen",
        Stored::Linear,
        Input::Mlp,
        "mlp.fc_in",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::MlpDown,
        "mlp.fc_out",
    ),
    row(
        "attention of mpt (its output is above)",
        Stored::Linear,
        Input::Attention,
        "attn.Wqkv",
    ),
    row(
        "feed-forward of mpt",
        Stored::Linear,
        Input::Mlp,
        "ffn.up_proj",
    ),
    row(
        "feed-forward of mpt: down",
        Stored::Linear,
        Input::MlpDown,
        "ffn.down_proj",
    ),
    row(
        "attention of llama as first published, mistral's own files, internlm 2, lfm 2",
        Stored::Linear,
        Input::Attention,
        "attention.wq attention.wk attention.wv attention.wqkv",
    ),
    row(
        "the same: its output",
        Stored::Linear,
        Input::AttentionOutput,
        "attention.wo",
    ),
    row(
        "feed-forward of the same; dense layers of llama 4, jamba",
        Stored::Linear,
        Input::Mlp,
        "feed_forward.w1 feed_forward.w3 feed_forward.gate_proj feed_forward.up_proj",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::MlpDown,
        "feed_forward.w2 feed_forward.down_proj",
    ),
    row(
        "experts, one tensor each: mixtral, phi 3.5 moe, minimax, lfm 2 moe, jamba; qwen 2 and 3 moe, deepseek, olmoe, glm 4 moe",
        Stored::Linear,
        Input::Experts,
        "block_sparse_moe.experts.*.w1 block_sparse_moe.experts.*.w3 feed_forward.experts.*.w1 feed_forward.experts.*.w3 \
         feed_forward.experts.*.gate_proj feed_forward.experts.*.up_proj mlp.experts.*.gate_proj mlp.experts.*.up_proj",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::ExpertsDown,
        "block_sparse_moe.experts.*.w2 feed_forward.experts.*.w2 feed_forward.experts.*.down_proj mlp.experts.*.down_proj",
    ),
    row(
        "shared experts: qwen 2 moe, deepseek, llama 4, granite moe",
        Stored::Linear,
        Input::SharedExperts,
        "mlp.shared_expert.gate_proj mlp.shared_expert.up_proj mlp.shared_experts.gate_proj mlp.shared_experts.up_proj \
         feed_forward.shared_expert.gate_proj feed_forward.shared_expert.up_proj shared_mlp.input_linear",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::SharedExpertsDown,
        "mlp.shared_expert.down_proj mlp.shared_experts.down_proj feed_forward.shared_expert.down_proj \
         shared_mlp.output_linear",
    ),
    row(
        "experts of a block in one tensor, gate and up: llama 4, gpt-oss, mixtral and qwen 3 moe since transformers 5",
        Stored::FusedExperts(Hidden::In),
        Input::Experts,
        "mlp.experts.gate_up_proj feed_forward.experts.gate_up_proj experts.gate_up_proj block_sparse_moe.input_linear",
    ),
    row(
        "the same: down",
        Stored::FusedExperts(Hidden::Out),
        Input::ExpertsDown,
        "mlp.experts.down_proj feed_forward.experts.down_proj experts.down_proj block_sparse_moe.output_linear",
    ),
    row(
        "attention of gpt2, openai-gpt (Conv1D); gpt_bigcode, gpt_neo, starcoder 2, qwen 1 (Linear)",
        Stored::MaybeConv1d(Hidden::In),
        Input::Attention,
        "attn.c_attn",
    ),
    row(
        "the same: its output",
        Stored::MaybeConv1d(Hidden::Out),
        Input::AttentionOutput,
        "attn.c_proj",
    ),
    row(
        "feed-forward of the same",
        Stored::MaybeConv1d(Hidden::In),
        Input::Mlp,
        "mlp.c_fc",
    ),
    row(
        "feed-forward of the same: down",
        Stored::MaybeConv1d(Hidden::Out),
        Input::MlpDown,
        "mlp.c_proj",
    ),
    row(
        "mixers of mamba 1 and 2, falcon_mamba, nemotron_h, jamba, bamba, falcon_h1, granitemoehybrid; of qwen 3 next and 3.5, olmo_hybrid; of lfm 2, recurrent_gemma, xlstm, zamba 2",
        Stored::Linear,
        Input::Mixer,
        "mixer.in_proj mamba.in_proj linear_attn.in_proj_qkvz linear_attn.in_proj_ba linear_attn.in_proj_qkv \
         linear_attn.in_proj_z linear_attn.in_proj_a linear_attn.in_proj_b linear_attn.q_proj linear_attn.k_proj \
         linear_attn.v_proj linear_attn.a_proj linear_attn.b_proj linear_attn.g_proj conv.in_proj temporal_block.linear_x \
         temporal_block.linear_y mamba_decoder.mamba.in_proj mlstm_layer.q mlstm_layer.k mlstm_layer.v \
         mlstm_layer.ogate_preact mlstm_layer.igate_preact mlstm_layer.fgate_preact",
    ),
    row(
        "the same: their output",
        Stored::Linear,
        Input::MixerOutput,
        "mixer.out_proj mamba.out_proj linear_attn.out_proj linear_attn.o_proj conv.out_proj temporal_block.linear_out \
         mamba_decoder.mamba.out_proj mlstm_layer.out_proj",
    ),
    row(
        "state spaces of mamba 1, falcon_mamba, jamba: time step, B and C",
        Stored::Linear,
        Input::MixerStates,
        "mixer.x_proj mamba.x_proj",
    ),
    row(
        "the same: the time step of every feature",
        Stored::Linear,
        Input::MixerTimeStep,
        "mixer.dt_proj mamba.dt_proj",
    ),
    row(
        "attention of nemotron_h, recurrent_gemma; of moshi, jetmoe, hrm_text, ctrl, bailing_hybrid, inkling, zamba 2, zaya",
        Stored::Linear,
        Input::Attention,
        "mixer.q_proj mixer.k_proj mixer.v_proj temporal_block.q_proj temporal_block.k_proj temporal_block.v_proj \
         self_attn.q_proj.linear self_attn.k_proj.linear self_attn.v_proj.linear self_attention.kv_proj attn.gqkv_proj \
         multi_head_attention.Wq multi_head_attention.Wk multi_head_attention.Wv attention.q_proj attention.k_proj \
         attention.v_proj attention.b_proj attention.f_proj attention.g_proj shared_transformer.self_attn.q_proj \
         shared_transformer.self_attn.k_proj shared_transformer.self_attn.v_proj self_attn.qkv_proj.q_proj \
         self_attn.qkv_proj.k_proj self_attn.qkv_proj.v_proj_current self_attn.r_proj",
    ),
    row(
        "the same, and modernbert-decoder: its output",
        Stored::Linear,
        Input::AttentionOutput,
        "mixer.o_proj temporal_block.o_proj self_attn.o_proj.linear attn.o_proj attn.Wo \
         shared_transformer.self_attn.o_proj multi_head_attention.dense",
    ),
    row(
        "gates of what attention gives: afmoe, lfm 3, laguna, minimax, hy_v4; kimi_linear's and its decays, down to their latent vectors",
        Stored::Linear,
        Input::Attention,
        "self_attn.gate_proj self_attn.g_proj self_attn.output_gate self_attn.linear_gate self_attn.b_proj \
         self_attn.f_a_proj self_attn.g_a_proj",
    ),
    row(
        "the same: out of their latent vectors; zaya's values of the token before, zamba 2's way back from its shared block, gemma 3n and 4's inputs of a layer, doge's mask",
        Stored::Linear,
        Input::Unnamed,
        "self_attn.f_b_proj self_attn.g_b_proj self_attn.qkv_proj.v_proj_delayed linear per_layer_input_gate \
         per_layer_projection laurel.linear_left laurel.linear_right self_attn.dt_proj",
    ),
    row(
        "feed-forward of recurrent_gemma, nemotron_h, kimi_linear, modernbert-decoder, ctrl, hy_v4, xlstm, zamba 2",
        Stored::Linear,
        Input::Mlp,
        "mlp_block.gate_proj mlp_block.up_proj mixer.up_proj block_sparse_moe.gate_proj block_sparse_moe.up_proj mlp.Wi \
         ffn.0 ffn.proj_up ffn.proj_up_gate shared_transformer.feed_forward.gate_up_proj mlp.linear_gate",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::MlpDown,
        "mlp_block.down_proj mixer.down_proj block_sparse_moe.down_proj mlp.Wo ffn.2 ffn.proj_down \
         shared_transformer.feed_forward.down_proj",
    ),
    row(
        "two of each in a block: longcat_flash",
        Stored::Linear,
        Input::Unnamed,
        "mlps.0.gate_proj mlps.0.up_proj mlps.0.down_proj mlps.1.gate_proj mlps.1.up_proj mlps.1.down_proj \
         self_attn.0.q_a_proj self_attn.0.q_b_proj self_attn.0.kv_a_proj_with_mqa self_attn.0.kv_b_proj \
         self_attn.0.o_proj self_attn.1.q_a_proj self_attn.1.q_b_proj self_attn.1.kv_a_proj_with_mqa \
         self_attn.1.kv_b_proj self_attn.1.o_proj",
    ),
    row(
        "time mix and channel mix of rwkv: each reads a blend of its own",
        Stored::Linear,
        Input::Unnamed,
        "attention.key attention.value attention.receptance attention.output feed_forward.key feed_forward.value \
         feed_forward.receptance",
    ),
    row(
        "attention to an encoder: bart, marian, pegasus, whisper and the like",
        Stored::Linear,
        Input::Unnamed,
        "encoder_attn.q_proj encoder_attn.k_proj encoder_attn.v_proj encoder_attn.out_proj",
    ),
    row(
        "attention of deepseek 4: queries, keys and values; the second half of its output",
        Stored::Linear,
        Input::Unnamed,
        "attn.wq_a attn.wq_b attn.wkv attn.wo_b",
    ),
    row(
        "experts of nemotron_h, deepseek 4",
        Stored::Linear,
        Input::Experts,
        "mixer.experts.*.up_proj ffn.experts.*.w1 ffn.experts.*.w3",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::ExpertsDown,
        "mixer.experts.*.down_proj ffn.experts.*.w2",
    ),
    row(
        "shared experts of hunyuan_v1_moe, hy_v3, kimi_linear, nemotron_h, deepseek 4, hy_v4, minimax 3",
        Stored::Linear,
        Input::SharedExperts,
        "mlp.shared_mlp.gate_proj mlp.shared_mlp.up_proj block_sparse_moe.shared_experts.gate_proj \
         block_sparse_moe.shared_experts.up_proj mixer.shared_experts.up_proj ffn.shared_experts.w1 ffn.shared_experts.w3 \
         mlp.shared_experts.linear_gate mlp.shared_experts.gate_up_proj",
    ),
    row(
        "the same: down",
        Stored::Linear,
        Input::SharedExpertsDown,
        "mlp.shared_mlp.down_proj block_sparse_moe.shared_experts.down_proj mixer.shared_experts.down_proj \
         ffn.shared_experts.w2",
    ),
    row(
        "experts of a block in one tensor: granitemoe_swa, aria, jetmoe",
        Stored::FusedExperts(Hidden::In),
        Input::Experts,
        "block_sparse_moe.experts.gate_up_proj mlp.experts.fc1 mlp.input_linear",
    ),
    row(
        "the same: down",
        Stored::FusedExperts(Hidden::Out),
        Input::ExpertsDown,
        "block_sparse_moe.experts.down_proj mlp.experts.fc2 mlp.output_linear",
    ),
    row(
        "attention of dbrx",
        Stored::Linear,
        Input::Attention,
        "norm_attn_norm.attn.Wqkv",
    ),
    row(
        "the same: its output",
        Stored::Linear,
        Input::AttentionOutput,
        "norm_attn_norm.attn.out_proj",
    ),
    row(
        "experts of dbrx, one below the other in a matrix: gate and up",
        Stored::StackedExperts(Layout::OutIn),
        Input::Experts,
        "ffn.experts.mlp.w1 ffn.experts.mlp.v1",
    ),
    row(
        "the same: down",
        Stored::StackedExperts(Layout::InOut),
        Input::ExpertsDown,
        "ffn.experts.mlp.w2",
    ),
    row(
        "experts of queries: jetmoe",
        Stored::FusedExperts(Hidden::In),
        Input::Unnamed,
        "self_attention.experts.input_linear",
    ),
    row(
        "the same: their output",
        Stored::FusedExperts(Hidden::Out),
        Input::Unnamed,
        "self_attention.experts.output_linear",
    ),
];

/// Weights that are all stored in the same order within one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// [`Stored::MaybeConv1d`].
    Conv1d,
    /// [`Stored::FusedExperts`].
    Experts,
}

/// How architectures store a group, for shapes that do not tell. Only what was seen in files.
const CONVENTIONS: &[(Group, Layout, &[&str])] = &[
    (
        Group::Conv1d,
        Layout::InOut,
        &["gpt2", "openai-gpt", "imagegpt", "jais"],
    ),
    (
        Group::Conv1d,
        Layout::OutIn,
        &["gpt_bigcode", "gpt_neo", "starcoder2", "qwen"],
    ),
    (
        Group::Experts,
        Layout::InOut,
        &["llama4", "llama4_text", "gpt_oss", "aria", "aria_text"],
    ),
    (
        Group::Experts,
        Layout::OutIn,
        &[
            "mixtral",
            "qwen2_moe",
            "qwen3_moe",
            "olmoe",
            "granitemoe",
            "granitemoe_swa",
            "granitemoehybrid",
            "granitemoeshared",
            "jetmoe",
            "glm4_moe",
            "deepseek_v2",
            "deepseek_v3",
            "phimoe",
        ],
    ),
];

impl Stored {
    /// The group of weights that are stored alike, with the side that is `hidden_size` long; `None` for what is always
    /// `[out, in]`.
    pub(crate) const fn group(self) -> Option<(Group, Hidden)> {
        match self {
            Self::Linear | Self::StackedExperts(_) => None,
            Self::MaybeConv1d(hidden) => Some((Group::Conv1d, hidden)),
            Self::FusedExperts(hidden) => Some((Group::Experts, hidden)),
        }
    }
}

/// How an architecture stores a group of weights, where that is known.
pub(crate) fn convention(group: Group, model_type: &str) -> Option<Layout> {
    CONVENTIONS
        .iter()
        .find(|(of, _, models)| *of == group && models.contains(&model_type))
        .map(|&(_, layout, _)| layout)
}

/// What the table knows of one tensor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The row that its name matches.
    pub(crate) rule: &'static NameRule,
    /// The expert, if the name counts them.
    pub(crate) expert: Option<usize>,
}

/// The patterns by their last part, each with its rule: there may be a million names to look up.
static BY_LAST_PART: LazyLock<HashMap<&str, Vec<(&NameRule, &str)>>> = LazyLock::new(|| {
    let mut by_last: HashMap<&str, Vec<(&NameRule, &str)>> = HashMap::new();
    for rule in RULES {
        for pattern in rule.tails() {
            let patterns = by_last.entry(last_part(pattern)).or_default();
            patterns.push((rule, pattern));
        }
    }
    by_last
});

fn last_part(of: &str) -> &str {
    of.rsplit_once('.').map_or(of, |(_, last)| last)
}

/// What the table knows of a tensor, by its name alone.
pub(crate) fn known(name: &str) -> Option<Known> {
    let tail = block(name)?.tail;
    let bare = tail.strip_suffix(".weight");
    let last = last_part(bare.unwrap_or(tail));
    // A pattern may end in the number of an expert.
    let patterns = [last, "*"].map(|last| BY_LAST_PART.get(last));
    // No tail is in two rules, so that their order does not matter.
    patterns
        .into_iter()
        .flatten()
        .flatten()
        .find_map(|&(rule, pattern)| {
            let tail = match (bare, rule.stored) {
                (Some(bare), _) => bare,
                // Experts in one are parameters of their module, mostly without `.weight`.
                (None, Stored::FusedExperts(_) | Stored::StackedExperts(_)) => tail,
                (None, _) => return None,
            };
            let found = match_tail(pattern, tail)?;
            Some(Known {
                rule,
                expert: found.expert,
            })
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_is_reached_by_its_own_names_and_hidden_by_none_before_it() {
        for row in RULES {
            assert!(!row.seen_in.is_empty() && row.tails().next().is_some());
            for tail in row.tails() {
                let name = format!("model.layers.3.{}.weight", tail.replace('*', "11"));
                let found =
                    known(&name).unwrap_or_else(|| panic!("{}: {name} has no rule", row.seen_in));
                assert!(
                    std::ptr::eq(found.rule, row),
                    "{name} is of `{}`, not of `{}`",
                    found.rule.seen_in,
                    row.seen_in
                );
                assert_eq!(found.expert, tail.contains('*').then_some(11));
            }
        }
    }

    #[test]
    fn no_tail_is_in_two_rules() {
        let mut tails: Vec<_> = RULES.iter().flat_map(NameRule::tails).collect();
        let count = tails.len();
        tails.sort();
        tails.dedup();
        assert_eq!(tails.len(), count);
    }
}
