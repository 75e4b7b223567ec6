//! The architectures: a file a family, and the list of them. What several families read alike is in `common.rs`.

mod cohere;
mod common;
mod deepseek;
mod ernie4_5;
mod exaone4;
mod gemma;
mod gemma2;
mod gemma3;
mod glm;
mod glm4_moe;
mod gpt_neox;
mod gpt_oss;
mod granite;
mod granitemoe;
mod helium;
mod hunyuan;
mod llama;
mod llama_like;
mod ministral;
mod mistral;
mod mixtral;
mod moe;
mod nemotron;
mod olmo;
mod olmo2;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;

use super::family::Family;

/// Every family; the messages name them in this order.
static FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &mistral::FAMILY,
    &ministral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &gemma::FAMILY,
    &gemma2::FAMILY,
    &gemma3::FAMILY,
    &phi3::FAMILY,
    &olmo::FAMILY,
    &olmo2::FAMILY,
    &granite::FAMILY,
    &smollm3::FAMILY,
    &starcoder2::FAMILY,
    &stablelm::FAMILY,
    &cohere::FAMILY,
    &glm::FAMILY,
    &ernie4_5::FAMILY,
    &exaone4::FAMILY,
    &hunyuan::FAMILY,
    &seed_oss::FAMILY,
    &helium::FAMILY,
    &nemotron::FAMILY,
    &gpt_neox::FAMILY,
    &mixtral::FAMILY,
    &qwen2_moe::FAMILY,
    &qwen3_moe::FAMILY,
    &glm4_moe::FAMILY,
    &deepseek::FAMILY,
    &olmoe::FAMILY,
    &granitemoe::FAMILY,
    &gpt_oss::FAMILY,
];

/// The family of a `model_type`, and the type as the family spells it.
pub(super) fn of(model_type: &str) -> Option<(&'static Family, &'static str)> {
    FAMILIES.iter().find_map(|family| {
        let mut known = family.model_types.iter();
        let spelled = known.find(|known| **known == model_type)?;
        Some((*family, *spelled))
    })
}

/// The model types there are, for a message.
pub(super) fn supported() -> String {
    let types = FAMILIES.iter().flat_map(|family| family.model_types);
    types.copied().collect::<Vec<_>>().join(", ")
}
