//! Whether a checkpoint is quantised, by its config.json or by what its tensors are called.
//!
//! A quantised weight is packed into integers, or scaled by a tensor beside it. Neither can be pruned as it is stored, and
//! what is left to prune (attention alone, say, where the experts are packed) is not what was asked for.

use serde_json::Value;

use super::config::Config;
use super::header::Tensor;
use crate::dtype::StoredDtype;
use crate::names::packed;

/// Keys under which a config.json describes a quantisation.
const KEYS: [&str; 2] = ["quantization_config", "compression_config"];

/// The method by which config.json says that the weights are quantised.
pub(super) fn by_config(config: &Config) -> Option<String> {
    config.parts().find_map(|part| {
        let described = KEYS.iter().find_map(|key| Some((key, part.get(key)?)));
        let (key, described) = described?;
        let empty = described.as_object().is_none_or(serde_json::Map::is_empty);
        (!empty && !is_off(described)).then(|| match method(described) {
            Some(method) => method.to_owned(),
            None => (*key).to_owned(),
        })
    })
}

fn method(described: &Value) -> Option<&str> {
    let word = |key: &str| described.get(key)?.as_str();
    word("quant_method")
        .or_else(|| word("quant_type"))
        .or_else(|| word("format"))
}

/// Whether it says itself that nothing is quantised: what bitsandbytes leaves behind in a model that it was switched off
/// for.
fn is_off(described: &Value) -> bool {
    let flag = |key: &str| described.get(key).and_then(Value::as_bool);
    flag("load_in_4bit") == Some(false) && flag("load_in_8bit") == Some(false)
}

/// What shows that a tensor is a piece of a quantised weight.
pub(super) fn by_tensor(tensor: &Tensor) -> Option<String> {
    let name = tensor.name.as_str();
    let bytes = matches!(tensor.dtype, StoredDtype::U8 | StoredDtype::I8);
    let blocks = bytes && (name.ends_with("_blocks") || name.ends_with("_scales"));
    let shown = blocks || packed::is_packed_weight(name);
    shown.then(|| format!("by the name of its tensor {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn method_of(json: &str) -> Option<String> {
        by_config(&Config::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn every_method_is_called_by_its_name() {
        for name in [
            "gptq",
            "awq",
            "mxfp4",
            "fp8",
            "bitsandbytes",
            "compressed-tensors",
            "hqq",
        ] {
            let described = format!(r#"{{"quantization_config":{{"quant_method":"{name}"}}}}"#);
            assert_eq!(method_of(&described).as_deref(), Some(name));
            let nested = format!(r#"{{"text_config":{described}}}"#);
            assert_eq!(method_of(&nested).as_deref(), Some(name));
        }
        let unnamed = r#"{"compression_config":{"ignore":["lm_head"]}}"#;
        assert_eq!(method_of(unnamed).as_deref(), Some("compression_config"));
    }

    #[test]
    fn a_model_that_is_not_quantised_is_not_called_so() {
        for json in [
            "{}",
            r#"{"quantization_config":null}"#,
            r#"{"quantization_config":{}}"#,
            r#"{"quantization_config":{"quant_method":"bitsandbytes","load_in_4bit":false,"load_in_8bit":false}}"#,
            "[]",
        ] {
            assert_eq!(method_of(json), None, "{json}");
        }
    }
}
