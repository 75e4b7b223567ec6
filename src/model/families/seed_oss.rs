//! Seed-OSS: a Llama with biases on queries, keys and values.

use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["seed_oss"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let seed = LlamaLike {
        projection_bias: config.flag("attention_bias")?,
        output_bias: config.flag("attention_out_bias")?,
        mlp_bias: config.flag("mlp_bias")?,
        ..LlamaLike::plain(files)?
    };
    seed.describe(files)
}
