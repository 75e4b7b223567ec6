//! Hunyuan, dense: a Llama with norms of each head after it turned.

use super::llama_like::LlamaLike;
use super::llama_like::NormStyle;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth};
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["hunyuan_v1_dense"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let attention_bias = config.flag_or("attention_bias", false)?;
    let hunyuan = LlamaLike {
        norm: NormStyle::of(NormKind::Rms, config.number_or("rms_norm_eps", 1e-5)?),
        head_norms: Some(HeadNorms {
            norms: ["self_attn.query_layernorm", "self_attn.key_layernorm"],
            width: NormedWidth::Head,
            after_rotation: true,
        }),
        projection_bias: attention_bias,
        output_bias: attention_bias,
        ..LlamaLike::plain(files)?
    };
    hunyuan.describe(files)
}
