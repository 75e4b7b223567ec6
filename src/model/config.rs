//! Reading numbers out of a config.json that a stranger wrote.

use serde_json::Value;

use super::error::Error;
use crate::untrusted::shown;

/// Sizes above this are no model's; it keeps products of two of them within 64 bits.
const MAX_SIZE: u64 = 1 << 24;

/// What families call a key by another name than most: transformers reads either.
const SPELLINGS: &[(&str, &[&str])] = &[
    ("hidden_size", &["n_embd", "n_embed", "d_model"]),
    ("num_hidden_layers", &["n_layer", "n_layers", "num_layers"]),
    ("num_attention_heads", &["n_head", "n_heads", "num_heads"]),
    (
        "intermediate_size",
        &["n_inner", "ffn_dim", "ffn_hidden_size"],
    ),
    ("max_position_embeddings", &["n_positions", "max_seq_len"]),
    ("hidden_act", &["activation_function", "activation"]),
    ("layer_norm_eps", &["layer_norm_epsilon"]),
];

/// A config.json, in which a key is looked up by its usual name and by others, and what its family means where it says
/// nothing.
#[derive(Clone, Copy)]
pub(super) struct Config<'a> {
    json: &'a Value,
    defaults: Option<&'a Value>,
}

impl<'a> Config<'a> {
    pub(super) fn new(json: &'a Value) -> Self {
        Self {
            json,
            defaults: None,
        }
    }

    /// The same, with the values of `defaults` for keys that it lacks.
    pub(super) fn over(self, defaults: &'a Value) -> Self {
        Self {
            defaults: Some(defaults),
            ..self
        }
    }

    /// The value of a key, under whichever name; `null` is no value, not even the family's.
    pub(super) fn get(&self, key: &str) -> Option<&'a Value> {
        let spelled_otherwise = || {
            let (_, others) = SPELLINGS.iter().find(|(usual, _)| *usual == key)?;
            others.iter().find_map(|other| self.json.get(other))
        };
        let own = self.json.get(key).or_else(spelled_otherwise);
        let value = own.or_else(|| self.defaults.and_then(|defaults| defaults.get(key)));
        value.filter(|value| !value.is_null())
    }

    /// Whether a key is there, if only as `null`.
    pub(super) fn says(&self, key: &str) -> bool {
        self.json.get(key).is_some()
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

    /// A finite number above zero, if there is one.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, Error> {
        let there = self.get(key).map(|_| self.number_or(key, 1.0));
        there.transpose()
    }

    /// A finite number above zero, or what it is when nothing is said.
    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64, Error> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value
                .as_f64()
                .filter(|number| number.is_finite() && *number > 0.0)
                .ok_or_else(|| {
                    Error::Config(format!("{key} is {}, not a number above 0", brief(value)))
                }),
        }
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
    pub(super) fn word(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    /// The part of the file under a key.
    pub(super) fn part(&self, key: &str) -> Option<Self> {
        self.get(key)
            .filter(|value| value.is_object())
            .map(Self::new)
    }
}

/// A value for a message: escaped, and short.
fn brief(value: &Value) -> String {
    shown(&value.to_string()).to_string()
}
