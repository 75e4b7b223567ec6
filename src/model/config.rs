//! Reading numbers out of a config.json that a stranger wrote, as transformers reads it: by the keys and the defaults of the
//! model type's configuration class.

use std::sync::LazyLock;

use serde_json::Value;

use super::error::Error;
use crate::untrusted::shown;

/// Sizes above this are no model's; it keeps products of two of them within 64 bits.
const MAX_SIZE: u64 = 1 << 24;

/// The configuration classes of transformers by model type, as `tests/forward/check_configs.py --write` finds them.
static CLASSES: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("configurations.json")).expect("a test reads it")
});

/// Which keys a class knows, and what it means where config.json says nothing.
#[derive(Clone, Copy)]
struct Class(&'static Value);

impl Class {
    fn of(name: &str) -> Option<Self> {
        CLASSES.get(name).map(Self)
    }

    fn list(self, part: &str) -> impl Iterator<Item = &'static Value> {
        self.0
            .get(part)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    }

    /// The names of a key, in the order in which they count; none where the class does not know it.
    fn spellings(self, key: &str) -> Vec<&'static str> {
        let groups = self.list("spellings").filter_map(Value::as_array);
        for group in groups {
            let names: Vec<_> = group.iter().filter_map(Value::as_str).collect();
            if names.contains(&key) {
                return names;
            }
        }
        let default = self.0["defaults"]
            .as_object()
            .and_then(|all| all.get_key_value(key));
        let listed = || {
            self.list("also")
                .filter_map(Value::as_str)
                .find(|also| *also == key)
        };
        default
            .map(|(name, _)| name.as_str())
            .or_else(listed)
            .into_iter()
            .collect()
    }

    fn default(self, key: &str) -> Option<&'static Value> {
        self.0["defaults"].get(key)
    }

    /// Whether the class sets a key itself, whatever config.json says.
    fn is_fixed(self, key: &str) -> bool {
        self.list("fixed").any(|fixed| fixed == key)
    }
}

/// A config.json, or a part of it, in which a key is looked up as its configuration class does: under any of its names, with
/// the class's default where it is missing, and never if the class does not know it.
#[derive(Clone, Copy)]
pub(super) struct Config<'a> {
    json: &'a Value,
    class: Option<Class>,
}

impl<'a> Config<'a> {
    /// An object that has no class: every key is known, and none has a default.
    pub(super) fn new(json: &'a Value) -> Self {
        Self { json, class: None }
    }

    /// The same, read as the class of a model type does.
    pub(super) fn of_class(self, name: &'static str) -> Self {
        Self {
            class: Class::of(name),
            ..self
        }
    }

    /// The key of the part that the class is for, where it is not for the whole file.
    pub(super) fn text_part(&self) -> Option<&'static str> {
        self.class?.0.get("part")?.as_str()
    }

    /// The value of a key; `null` is no value, not even the class's.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        let value = match self.class {
            None => self.json.get(key),
            Some(class) => {
                let names = class.spellings(key);
                let heard = names.iter().filter(|name| !class.is_fixed(name));
                let said = heard.into_iter().find_map(|name| self.json.get(*name));
                said.or_else(|| names.iter().find_map(|name| class.default(name)))
            }
        };
        value.filter(|value| !value.is_null())
    }

    /// What the class means where config.json says nothing of a key.
    pub(super) fn default(&self, key: &str) -> Option<&'static Value> {
        let value = self.class.and_then(|class| class.default(key));
        value.filter(|value| !value.is_null())
    }

    /// Whether config.json itself has a value for a key that its class knows.
    pub(super) fn says(&self, key: &str) -> bool {
        let names = match self.class {
            None => vec![key],
            Some(class) => class.spellings(key),
        };
        let mut values = names.iter().filter_map(|name| self.json.get(*name));
        values.any(|value| !value.is_null())
    }

    /// A size that has to be there.
    pub(super) fn size(&self, key: &str) -> Result<usize, Error> {
        self.size_or(key, None)
    }

    /// A size, or what it is when nothing is said.
    pub(super) fn size_or(&self, key: &str, default: Option<usize>) -> Result<usize, Error> {
        let wrong = |problem: String| Error::Config(format!("{key} {problem}"));
        match (self.get(key), default) {
            (Some(value), _) => value
                .as_u64()
                .filter(|size| (1..=MAX_SIZE).contains(size))
                .map(|size| size as usize)
                .ok_or_else(|| {
                    wrong(format!(
                        "is {}, not a number from 1 to {MAX_SIZE}",
                        brief(value)
                    ))
                }),
            (None, Some(default)) => Ok(default),
            (None, None) => Err(wrong("is missing".to_owned())),
        }
    }

    /// A size, if there is one.
    pub(super) fn size_if_any(&self, key: &str) -> Result<Option<usize>, Error> {
        self.get(key).map(|_| self.size(key)).transpose()
    }

    /// A finite number above zero, if there is one.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        let number = |value: &Value| {
            (value.as_f64())
                .filter(|number| number.is_finite() && *number > 0.0)
                .ok_or_else(|| {
                    Error::Config(format!("{key} is {}, not a number above 0", brief(value)))
                })
        };
        self.get(key).map(number).transpose()
    }

    /// A finite number above zero that has to be there.
    pub(super) fn needed_number(&self, key: &str) -> Result<f64, Error> {
        let number = self.number(key)?;
        number.ok_or_else(|| Error::Config(format!("{key} is missing")))
    }

    /// A finite number above zero, or what it is when nothing is said.
    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        Ok(self.number(key)?.unwrap_or(default))
    }

    /// A switch, which is off when nothing is said.
    pub(super) fn flag(&self, key: &str) -> Result<bool, Error> {
        self.flag_or(key, false)
    }

    /// A switch, or what it is when nothing is said.
    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool, Error> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| {
                Error::Config(format!("{key} is {}, not true or false", brief(value)))
            }),
        }
    }

    /// A list of so many finite numbers above zero.
    pub(super) fn numbers(&self, key: &str, count: usize) -> Result<Vec<f64>, Error> {
        let list = self.get(key).and_then(Value::as_array);
        let list = list.filter(|list| list.len() == count);
        let numbers = list.and_then(|list| {
            let number = |value: &Value| value.as_f64().filter(|x| x.is_finite() && *x > 0.0);
            list.iter().map(number).collect()
        });
        numbers
            .ok_or_else(|| Error::Config(format!("{key} is not a list of {count} numbers above 0")))
    }

    /// A word, if there is one.
    pub(super) fn word(&self, key: &str) -> Result<Option<&'a str>, Error> {
        let word = |value: &'a Value| {
            value
                .as_str()
                .ok_or_else(|| Error::Config(format!("{key} is {}, not a word", brief(value))))
        };
        self.get(key).map(word).transpose()
    }

    /// The object under a key, without a class, if there is one that says anything.
    pub(super) fn part(&self, key: &str) -> Result<Option<Self>, Error> {
        let part = |value: &'a Value| match value {
            Value::Object(_) => Ok(Self::new(value)),
            _ => Err(Error::Config(format!(
                "{key} is {}, not an object",
                brief(value)
            ))),
        };
        let part = self.get(key).map(part).transpose()?;
        Ok(part.filter(|part| part.json.as_object().is_some_and(|json| !json.is_empty())))
    }

    /// The object with the keys of another put over its own.
    pub(super) fn updated(&self, other: &Self) -> Value {
        let mut both = self.json.clone();
        if let (Some(both), Some(other)) = (both.as_object_mut(), other.json.as_object()) {
            both.extend(other.clone());
        }
        both
    }

    /// The object under a key, read as a class of its own, whose defaults are all there is where the key is missing.
    pub(super) fn part_of_class(&self, key: &str, class: &'static str) -> Result<Self, Error> {
        static NOTHING: Value = Value::Null;
        debug_assert!(Class::of(class).is_some(), "{class}");
        let part = self.part(key)?.unwrap_or(Self::new(&NOTHING));
        Ok(part.of_class(class))
    }
}

/// A value for a message: escaped, and short.
fn brief(value: &Value) -> String {
    shown(&value.to_string()).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_class_has_names_defaults_and_no_ear_for_others() {
        let json = json!({"n_embd": 64, "n_inner": null, "intermediate_size": 40, "n_layer": 2, "num_hidden_layers": 3});
        let config = Config::new(&json).of_class("gpt2");
        assert_eq!(config.size("hidden_size").unwrap(), 64);
        assert_eq!(config.size("n_embd").unwrap(), 64);
        // The class sets its own field before the other name.
        assert_eq!(config.size("num_hidden_layers").unwrap(), 3);
        assert_eq!(config.size("n_head").unwrap(), 12, "the default");
        assert_eq!(config.size("num_attention_heads").unwrap(), 12);
        assert!(config.get("n_inner").is_none(), "null is no default");
        assert!(config.get("intermediate_size").is_none());
        assert!(
            !config.says("intermediate_size") && !config.says("n_inner") && !config.says("n_head")
        );
        assert!(config.says("hidden_size"));
        let error = config.size("intermediate_size").unwrap_err().to_string();
        assert!(error.contains("intermediate_size is missing"), "{error}");
    }

    #[test]
    fn what_a_class_sets_itself_is_not_heard() {
        let json = json!({"partial_rotary_factor": 1.0});
        let bamba = Config::new(&json).of_class("bamba");
        assert_eq!(bamba.number("partial_rotary_factor").unwrap(), Some(0.5));
        let glm = Config::new(&json).of_class("glm");
        assert_eq!(glm.number("partial_rotary_factor").unwrap(), Some(1.0));
    }

    #[test]
    fn a_part_may_have_a_class() {
        let json = json!({"ffn_config": {"moe_top_k": 3}});
        let dbrx = Config::new(&json).of_class("dbrx");
        let experts = dbrx.part_of_class("ffn_config", "dbrx.ffn_config").unwrap();
        assert_eq!(experts.size("moe_top_k").unwrap(), 3);
        assert_eq!(experts.size("moe_num_experts").unwrap(), 4);
        let attention = dbrx
            .part_of_class("attn_config", "dbrx.attn_config")
            .unwrap();
        assert_eq!(attention.size("kv_n_heads").unwrap(), 1);
        assert!(dbrx.part("attn_config").unwrap().is_none());
        let error = Config::new(&json!({"a": 1})).part("a").err().unwrap();
        assert!(
            error.to_string().contains("a is 1, not an object"),
            "{error}"
        );
    }

    #[test]
    fn values_of_another_kind_are_refused() {
        let json = json!({"hidden_act": 1, "hidden_size": 1.5, "rms_norm_eps": "small", "tie_word_embeddings": 1});
        let config = Config::new(&json).of_class("llama");
        for error in [
            config.word("hidden_act").err(),
            config.size("hidden_size").err(),
            config.needed_number("rms_norm_eps").err(),
            config.flag("tie_word_embeddings").err(),
        ] {
            assert!(error.unwrap().to_string().contains(", not "));
        }
    }
}
