//! The facts of config.json that help to tell a weight's axes.

use std::num::NonZeroUsize;
use std::ops::Range;

use serde_json::Value;

use crate::checkpoint::Config;

/// What a config.json says about the model's shape; any of it may be missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Model {
    /// The architecture: `llama`, `gpt2`, `llama4_text`.
    pub model_type: Option<String>,
    /// The width of the residual stream, in features.
    pub hidden_size: Option<usize>,
    /// Experts of a block, where they are stored one below the other in a matrix.
    pub experts: Option<NonZeroUsize>,
    /// The numbers of the blocks that predict further tokens (`num_nextn_predict_layers`): behind those of the decoder, in
    /// the same stack.
    pub further_blocks: Range<usize>,
}

impl Model {
    /// Reads them out of a `config.json`, or out of the language model's part of it where there are several parts.
    #[must_use]
    pub fn from_config(config: &Config) -> Self {
        const SIZES: &[&str] = &["hidden_size", "n_embd", "d_model"];
        let part = config.parts().next_back().unwrap_or(config.json());
        let model_type = part.get("model_type").and_then(Value::as_str);
        let model_type = model_type.or(config.model_type());
        let hidden_size = SIZES
            .iter()
            .find_map(|s| part.get(s).and_then(Value::as_u64));
        let size = |key: &str| {
            let value = part.get(key).and_then(Value::as_u64);
            value.and_then(|n| usize::try_from(n).ok())
        };
        let further = size("num_nextn_predict_layers").unwrap_or(0);
        let further_blocks = match size("num_hidden_layers") {
            Some(blocks) => blocks..blocks.saturating_add(further),
            None => 0..0,
        };
        let experts = part
            .get("ffn_config")
            .and_then(|part| part.get("moe_num_experts"));
        let experts = experts.and_then(Value::as_u64);
        let experts = experts.and_then(|n| NonZeroUsize::new(usize::try_from(n).ok()?));
        Self {
            experts,
            model_type: model_type.map(str::to_owned),
            hidden_size: hidden_size.and_then(|n| usize::try_from(n).ok()),
            further_blocks,
        }
    }
}
