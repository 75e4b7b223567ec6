//! The architectures: the list of them, and a file for each lineage. What several of them read alike is in `common.rs`.

mod bloom;
mod common;
mod deepseek;
mod dense;
mod falcon;
mod gemma;
mod glm;
mod gpt;
mod gpt_oss;
mod granite;
mod lfm2;
mod llama;
mod llama_like;
mod mamba;
mod mistral;
mod moe;
mod mpt;
mod nemotron;
mod olmo;
mod opt;
mod phi;
mod qwen;
mod state_spaces;

use super::architecture::Architecture;
use super::error::Error;
use super::family::{Family, ModelFiles};

const fn family(
    model_types: &'static [&'static str],
    describe: fn(&ModelFiles<'_>) -> Result<Architecture, Error>,
) -> Family {
    Family {
        model_types,
        describe,
    }
}

/// Every family; the messages name them in this order.
static FAMILIES: &[Family] = &[
    family(&["llama"], llama::llama),
    family(&["mistral"], mistral::mistral),
    family(&["ministral"], mistral::ministral),
    family(&["qwen2"], qwen::qwen2),
    family(&["qwen3"], qwen::qwen3),
    family(&["gemma"], gemma::gemma),
    family(&["gemma2"], gemma::gemma2),
    family(&["gemma3", "gemma3_text"], gemma::gemma3),
    family(&["phi3"], phi::phi3),
    family(&["olmo"], olmo::olmo),
    family(&["olmo2", "olmo3"], olmo::olmo2),
    family(&["granite"], granite::granite),
    family(&["smollm3"], dense::smollm3),
    family(&["starcoder2"], dense::starcoder2),
    family(&["stablelm"], dense::stablelm),
    family(&["cohere", "cohere2"], dense::cohere),
    family(&["glm", "glm4"], glm::glm),
    family(&["ernie4_5"], dense::ernie4_5),
    family(&["exaone4"], dense::exaone4),
    family(&["hunyuan_v1_dense"], dense::hunyuan),
    family(&["seed_oss"], dense::seed_oss),
    family(&["helium"], dense::helium),
    family(&["apertus"], dense::apertus),
    family(&["nemotron"], nemotron::nemotron),
    family(&["gpt_neox"], gpt::gpt_neox),
    family(&["opt"], opt::opt),
    family(&["gpt2"], gpt::gpt2),
    family(&["gpt_bigcode"], gpt::gpt_bigcode),
    family(&["bloom"], bloom::bloom),
    family(&["mpt"], mpt::mpt),
    family(&["phi"], phi::phi),
    family(&["gptj"], gpt::gptj),
    family(&["codegen"], gpt::codegen),
    family(&["gpt_neo"], gpt::gpt_neo),
    family(&["falcon"], falcon::falcon),
    family(&["persimmon"], dense::persimmon),
    family(&["mixtral"], mistral::mixtral),
    family(&["phimoe"], phi::phimoe),
    family(&["qwen2_moe"], qwen::qwen2_moe),
    family(&["qwen3_moe"], qwen::qwen3_moe),
    family(&["glm4_moe"], glm::glm4_moe),
    family(&["deepseek_v2", "deepseek_v3"], deepseek::deepseek),
    family(&["olmoe"], olmo::olmoe),
    family(&["granitemoe"], granite::granitemoe),
    family(&["gpt_oss"], gpt_oss::gpt_oss),
    family(&["llama4", "llama4_text"], llama::llama4),
    family(&["dbrx"], mpt::dbrx),
    family(&["lfm2", "lfm2_moe"], lfm2::lfm2),
    family(&["mamba", "falcon_mamba", "mamba2"], mamba::mamba),
    family(&["jamba"], mamba::jamba),
    family(&["bamba"], mamba::bamba),
    family(&["falcon_h1"], falcon::falcon_h1),
    family(&["granitemoehybrid"], granite::granitemoehybrid),
    family(&["nemotron_h"], nemotron::nemotron_h),
    family(
        &[
            "qwen3_next",
            "qwen3_5",
            "qwen3_5_text",
            "qwen3_5_moe",
            "qwen3_5_moe_text",
        ],
        qwen::qwen3_next,
    ),
];

/// The family of a `model_type`, and the type as the family spells it.
pub(super) fn of(model_type: &str) -> Option<(&'static Family, &'static str)> {
    FAMILIES.iter().find_map(|family| {
        let mut known = family.model_types.iter();
        let spelled = known.find(|known| **known == model_type)?;
        Some((family, *spelled))
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
