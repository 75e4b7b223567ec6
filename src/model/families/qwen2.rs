//! Qwen 2 and 2.5: a Llama with biases on queries, keys and values.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["qwen2"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let qwen = LlamaLike {
        projection_bias: true,
        windows: common::windows(&files.config, files.blocks()?)?,
        ..LlamaLike::plain(files)?
    };
    qwen.describe(files)
}
