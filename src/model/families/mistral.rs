//! Mistral 7B and its successors: a Llama whose blocks may all attend to the last tokens only.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["mistral"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let mistral = LlamaLike {
        windows: vec![common::window(&files.config)?; files.blocks()?],
        ..LlamaLike::plain(files)?
    };
    mistral.describe(files)
}
