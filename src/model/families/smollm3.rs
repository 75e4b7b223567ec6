//! SmolLM 3: a Llama of which every fourth block knows no positions.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::attention::Position;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;

pub(super) static FAMILY: Family = Family {
    model_types: &["smollm3"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let blocks = files.blocks()?;
    let interval = config.size("no_rope_layer_interval")?;
    // A list, for all its name, of the blocks that do turn.
    let turns: Vec<bool> = match config.get("no_rope_layers") {
        None => (0..blocks)
            .map(|block| (block + 1) % interval != 0)
            .collect(),
        Some(list) => {
            let list = list.as_array().filter(|list| list.len() == blocks);
            let list = list.ok_or_else(|| {
                let problem = format!("no_rope_layers is not a list of {blocks} numbers");
                Error::Config(problem)
            })?;
            list.iter().map(|turns| turns.as_u64() != Some(0)).collect()
        }
    };
    let window = match config.flag("use_sliding_window")? {
        true => common::window(config)?,
        false => None,
    };
    let sliding = common::sliding(config, blocks, |block| window.is_some() && !turns[block])?;
    let attention_bias = config.flag("attention_bias")?;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        ..RotaryDefaults::of(heads.features)
    };
    let position = |turns: &bool| match turns {
        true => Position::Rotary(0),
        false => Position::None,
    };
    let smollm = LlamaLike {
        projection_bias: attention_bias,
        output_bias: attention_bias,
        mlp_bias: config.flag("mlp_bias")?,
        windows: common::windows_of(&sliding, window)?,
        positions: turns.iter().map(position).collect(),
        ..LlamaLike::turning(files, turning)?
    };
    smollm.describe(files)
}
