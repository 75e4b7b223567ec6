//! StableLM 2: a Llama with LayerNorms, of whose heads a part turns; the halves of a block may be parallel.

use super::common;
use super::llama_like::LlamaLike;
use super::llama_like::NormStyle;
use crate::model::architecture::Architecture;
use crate::model::attention::{HeadNorms, NormedWidth};
use crate::model::block::BlockOrder;
use crate::model::error::Error;
use crate::model::family::{Family, ModelFiles};
use crate::model::rotary::RotaryDefaults;
use crate::model::tensors::{HeadFactors, NormKind, NormTensors};

pub(super) static FAMILY: Family = Family {
    model_types: &["stablelm"],
    describe,
};

fn describe(files: &ModelFiles<'_>) -> Result<Architecture, Error> {
    let config = &files.config;
    let heads = common::grouped_heads(config)?;
    common::only_usual_heads(config, config.size("hidden_size")? / heads.queries)?;
    let turning = RotaryDefaults {
        fraction_key: Some("partial_rotary_factor"),
        ..RotaryDefaults::of(heads.features)
    };
    let parallel = config.flag("use_parallel_residual")?;
    let plain = LlamaLike::turning(files, turning)?;
    let stablelm = LlamaLike {
        order: match parallel {
            true => BlockOrder::Parallel,
            false => BlockOrder::Sequential,
        },
        norm: NormStyle {
            biased: true,
            ..NormStyle::of(NormKind::Layer, config.needed_number("layer_norm_eps")?)
        },
        mlp_norm: plain.mlp_norm.filter(|_| !parallel),
        projection_bias: config.flag("use_qkv_bias")?,
        ..plain
    };
    let mut architecture = stablelm.describe(files)?;
    if config.flag("qk_layernorm")? {
        let prefix = architecture.block_prefix.clone();
        let epsilon = config.needed_number("layer_norm_eps")?;
        for (index, block) in architecture.blocks.iter_mut().enumerate() {
            let norm = |name, count| {
                let weight = format!("{prefix}{index}.self_attn.{name}.norms.*.weight");
                NormTensors {
                    heads: count,
                    head_factors: HeadFactors::Tensors,
                    ..NormTensors::plain(NormKind::Layer, weight, heads.features, epsilon)
                }
            };
            for attention in block.attentions_mut() {
                attention.head_norms = Some(HeadNorms {
                    norms: [
                        norm("q_layernorm", heads.queries),
                        norm("k_layernorm", heads.keys),
                    ],
                    width: NormedWidth::Head,
                    after_rotation: false,
                });
            }
        }
    }
    Ok(architecture)
}
