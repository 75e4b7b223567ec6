//! Qwen 3: a Llama with a norm in each head of the queries and keys.

use super::common;
use super::llama_like::{self, LlamaLike};
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["qwen3"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let attention_bias = files.config.flag("attention_bias")?;
    let qwen = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        head_norms: llama_like::norms_of_each_head(["self_attn.q_norm", "self_attn.k_norm"]),
        windows: common::windows(&files.config, files.blocks()?)?,
        ..LlamaLike::plain(files)?
    };
    qwen.describe(files)
}
