//! The config.json of a model: what its author says about it.
//!
//! It is read whole and kept as it is. Which keys there are and what they mean differs from one architecture to the next,
//! so this module looks values up and leaves their meaning to whoever asks: `targets` (what the model is called, how wide
//! it is) and `model` (everything that the forward pass needs).

use std::path::Path;

use serde_json::Value;

use super::error::{Error, Result};
use super::json::without_python_floats;
use crate::untrusted::{self, shown};

/// The longest config.json that is read, in bytes.
pub const MAX_CONFIG: u64 = 16 << 20;

/// A config.json.
#[derive(Clone, Debug, PartialEq)]
pub struct Config(Value);

impl Config {
    /// Reads the file; `None` if there is none.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::TooLong`], [`Error::NotRegular`] and [`Error::Io`].
    pub(super) fn read(path: &Path) -> Result<Option<Self>> {
        let json = match untrusted::read(path, MAX_CONFIG) {
            Err(error) if error.is_not_found() => return Ok(None),
            result => result.map_err(Error::reading(path))?,
        };
        let config = Self::parse(&json).map_err(|problem| Error::Config {
            path: path.to_path_buf(),
            problem,
        })?;
        Ok(Some(config))
    }

    /// Reads the JSON of a config.json. `NaN`, `Infinity` and `-Infinity`, which Python writes and JSON does not have, are
    /// read as `null`.
    ///
    /// # Errors
    /// What is wrong with it, fit for a terminal.
    pub fn parse(json: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(json)
            .or_else(|error| match without_python_floats(json) {
                Some(json) => serde_json::from_slice(&json),
                None => Err(error),
            })
            .map(Self)
            .map_err(|e| format!("it is not valid JSON: {}", shown(&e.to_string())))
    }

    /// The architecture: `llama`, `gpt_neox` ... It is text from a file: escape it before printing.
    #[must_use]
    pub fn model_type(&self) -> Option<&str> {
        self.word("model_type")
    }

    /// The text under a key.
    #[must_use]
    pub fn word(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.as_str()
    }

    /// The whole number, zero or above, under a key.
    #[must_use]
    pub fn size(&self, key: &str) -> Option<u64> {
        self.0.get(key)?.as_u64()
    }

    /// Whether there is anything but `null` under a key.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| !value.is_null())
    }

    /// The JSON, and behind it the part for the language model and the part within that, where it describes several models.
    pub(crate) fn parts(&self) -> impl DoubleEndedIterator<Item = &Value> {
        const PARTS: [&str; 4] = [
            "text_config",
            "llm_config",
            "language_config",
            "thinker_config",
        ];
        // Two levels are the deepest seen: thinker_config, then text_config.
        let mut parts = vec![&self.0];
        for depth in 0..2 {
            let within = |part| parts[depth].get(part).filter(|part| part.is_object());
            match PARTS.iter().find_map(within) {
                Some(part) => parts.push(part),
                None => break,
            }
        }
        parts.into_iter()
    }

    /// The JSON itself, for the modules that read architectures out of it.
    pub(crate) const fn json(&self) -> &Value {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floats_that_only_python_writes_are_null() {
        let config = br#"{"a": Infinity, "b": [-Infinity, NaN, 1.5], "c": "NaN \" Infinity", "model_type":"x"}"#;
        let config = Config::parse(config).unwrap();
        assert!(!config.has("a"));
        assert_eq!(config.json()["b"], serde_json::json!([null, null, 1.5]));
        assert_eq!(config.word("c"), Some("NaN \" Infinity"));
        assert_eq!(config.model_type(), Some("x"));
    }

    #[test]
    fn what_is_no_json_stays_so() {
        for json in [
            "{\"a\": xNaN}",
            "{\"a\": NaN1}",
            "{\"a\": --Infinity}",
            "{NaN: 1}",
            "{\"a\": NaN",
            "{\"a\": NaN, \"b\": \"\\",
        ] {
            assert!(Config::parse(json.as_bytes()).is_err(), "{json}");
        }
    }
}
