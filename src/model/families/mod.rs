//! The architectures: a file a family, and the list of them. What several families read alike is in `common.rs`.

mod bloom;
mod common;
mod falcon;
mod gpt2;
mod gpt_neox;
mod gptj;
mod llama;
mod llama_like;
mod mistral;
mod mpt;
mod opt;
mod persimmon;
mod phi;
mod qwen2;
mod qwen3;

use super::family::Family;

/// Every family; the messages name them in this order.
static FAMILIES: &[&Family] = &[
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &gpt_neox::FAMILY,
    &opt::FAMILY,
    &gpt2::GPT2,
    &gpt2::GPT_BIGCODE,
    &bloom::FAMILY,
    &mpt::FAMILY,
    &phi::FAMILY,
    &gptj::FAMILY,
    &falcon::FAMILY,
    &persimmon::FAMILY,
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
