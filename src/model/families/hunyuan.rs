//! Hunyuan, dense: a Llama with norms of each head after it turned.

use super::common;
use super::llama_like::LlamaLike;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;

pub(super) static FAMILY: Family = Family {
    model_types: &["hunyuan_v1_dense"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        alpha: true,
        ..RotaryDefaults::of(heads.features)
    };
    let attention_bias = config.flag("attention_bias")?;
    let hunyuan = LlamaLike {
        head_norms: Some(HeadNorms {
            norms: ["self_attn.query_layernorm", "self_attn.key_layernorm"],
            width: NormedWidth::Head,
            after_rotation: true,
        }),
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::turning(files, turning)?
    };
    hunyuan.describe(files)
}
