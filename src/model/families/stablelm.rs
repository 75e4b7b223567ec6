//! StableLM 2: a Llama with LayerNorms, of whose heads a part turns; the halves of a block may be parallel.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::NormStyle;
use crate::model::architecture::Architecture;
use crate::model::block::BlockOrder;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;
use crate::model::tensors::NormKind;

pub(super) static FAMILY: Family = Family {
    model_types: &["stablelm"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    // A norm of its own, in a tensor of its own, for each head.
    common::refuse(config, "qk_layernorm")?;
    let heads = common::grouped_heads(config)?;
    let turning = RotaryDefaults {
        fraction: 0.25,
        ..RotaryDefaults::of(heads.features)
    };
    let parallel = config.flag_or("use_parallel_residual", false)?;
    let plain = LlamaLike::turning(files, turning)?;
    let stablelm = LlamaLike {
        order: match parallel {
            true => BlockOrder::Parallel,
            false => BlockOrder::Sequential,
        },
        norm: NormStyle {
            biased: true,
            ..NormStyle::of(NormKind::Layer, config.number_or("layer_norm_eps", 1e-5)?)
        },
        mlp_norm: plain.mlp_norm.filter(|_| !parallel),
        projection_bias: config.flag_or("use_qkv_bias", false)?,
        ..plain
    };
    stablelm.describe(files)
}
