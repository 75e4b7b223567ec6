//! The architectures: a file a family, and the list of them. What several families read alike is in `common.rs`.

mod apertus;
mod bamba;
mod bloom;
mod cohere;
mod common;
mod dbrx;
mod deepseek;
mod ernie4_5;
mod exaone4;
mod falcon;
mod falcon_h1;
mod gemma;
mod gemma2;
mod gemma3;
mod glm;
mod glm4_moe;
mod gpt2;
mod gpt_neo;
mod gpt_neox;
mod gpt_oss;
mod gptj;
mod granite;
mod granitemoe;
mod granitemoehybrid;
mod helium;
mod hunyuan;
mod jamba;
mod lfm2;
mod llama;
mod llama4;
mod llama_like;
mod mamba;
mod ministral;
mod mistral;
mod mixtral;
mod moe;
mod mpt;
mod nemotron;
mod nemotron_h;
mod olmo;
mod olmo2;
mod olmoe;
mod opt;
mod persimmon;
mod phi;
mod phi3;
mod phimoe;
mod qwen2;
mod qwen2_moe;
mod qwen3;
mod qwen3_moe;
mod qwen3_next;
mod seed_oss;
mod smollm3;
mod stablelm;
mod starcoder2;
mod state_spaces;

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
    &apertus::FAMILY,
    &nemotron::FAMILY,
    &gpt_neox::FAMILY,
    &opt::FAMILY,
    &gpt2::GPT2,
    &gpt2::GPT_BIGCODE,
    &bloom::FAMILY,
    &mpt::FAMILY,
    &phi::FAMILY,
    &gptj::GPTJ,
    &gptj::CODEGEN,
    &gpt_neo::FAMILY,
    &falcon::FAMILY,
    &persimmon::FAMILY,
    &mixtral::FAMILY,
    &phimoe::FAMILY,
    &qwen2_moe::FAMILY,
    &qwen3_moe::FAMILY,
    &glm4_moe::FAMILY,
    &deepseek::FAMILY,
    &olmoe::FAMILY,
    &granitemoe::FAMILY,
    &gpt_oss::FAMILY,
    &llama4::FAMILY,
    &dbrx::FAMILY,
    &lfm2::FAMILY,
    &mamba::FAMILY,
    &jamba::FAMILY,
    &bamba::FAMILY,
    &falcon_h1::FAMILY,
    &granitemoehybrid::FAMILY,
    &nemotron_h::FAMILY,
    &qwen3_next::FAMILY,
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::FAMILIES;
    use crate::model::config::Config;

    #[test]
    fn every_model_type_has_its_configuration_class() {
        let nothing = json!({});
        for model_type in FAMILIES.iter().flat_map(|family| family.model_types) {
            let config = Config::new(&nothing).of_class(model_type);
            assert!(config.default("vocab_size").is_some(), "{model_type}");
        }
    }
}
