//! Seed-OSS: a Llama with biases on queries, keys and values.

use serde_json::json;

use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["seed_oss"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let defaults = json!({"head_dim": 128, "num_key_value_heads": 8});
    let files = &files.over(&defaults);
    let config = &files.config;
    let seed = LlamaLike {
        projection_bias: config.flag_or("attention_bias", true)?,
        output_bias: config.flag_or("attention_out_bias", false)?,
        mlp_bias: config.flag_or("mlp_bias", false)?,
        ..LlamaLike::plain(files)?
    };
    seed.describe(files)
}
