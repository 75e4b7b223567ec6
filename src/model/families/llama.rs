//! Llama 1 to 3, and what was trained as one (SmolLM2, TinyLlama, Yi).

use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["llama"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let attention_bias = files.config.flag("attention_bias")?;
    let llama = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: files.config.flag("mlp_bias")?,
        ..LlamaLike::plain(files)?
    };
    llama.describe(files)
}
