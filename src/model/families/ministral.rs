//! Ministral 8B: a Mistral whose blocks slide by their type.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};

pub(super) static FAMILY: Family = Family {
    model_types: &["ministral"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let window = common::window(config)?;
    let sliding = common::sliding(config, files.blocks()?, |_| window.is_some())?;
    let ministral = LlamaLike {
        windows: common::windows_of(&sliding, window)?,
        ..LlamaLike::plain(files)?
    };
    ministral.describe(files)
}
