//! The index of a checkpoint in shards, and whether index and shards agree.
//!
//! `model.safetensors.index.json` maps every tensor to the file that holds it. The file names are not trusted: each
//! must be the plain name of a `.safetensors` file, so that it cannot lead out of the index's own directory on any
//! system. Index and headers must agree both ways: no tensor is missing, in two shards, or unknown to the index.
//! Otherwise the pruned weights might not be those that the model runs with.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::file_names::WEIGHTS_SUFFIX;
use super::header::Header;
use super::json::{UniqueAnything, UniqueMap};
use crate::untrusted::shown;

/// The longest index that is read, in bytes: as long as the longest header.
pub const MAX_INDEX: u64 = 100_000_000;

/// The rule that an index breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IndexError {
    /// The index is not JSON of the right form, or has a key twice.
    #[error("the index's JSON: {0}")]
    Json(
        /// What the parser says, fit for a terminal.
        String,
    ),
    /// The index names no tensor.
    #[error("the index names no tensors")]
    Empty,
    /// A shard's name is not a plain file name that ends in `.safetensors`.
    #[error(
        "`{}` cannot be the name of a shard: it must be a plain file name ending in .safetensors",
        shown(file)
    )]
    BadFileName {
        /// The name that the index gives.
        file: String,
    },
    /// A shard that the index names does not exist.
    #[error("the shard {} is not there", shown(file))]
    MissingShard {
        /// Its file name.
        file: String,
    },
    /// A tensor is not in the shard that the index names.
    #[error(
        "tensor `{}` is not in {}, where the index says it is",
        shown(tensor),
        shown(file)
    )]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The shard it should be in.
        file: String,
    },
    /// A tensor is in two shards.
    #[error(
        "tensor `{}` is in two shards, {} and {}",
        shown(tensor),
        shown(first),
        shown(second)
    )]
    TwoShards {
        /// The tensor.
        tensor: String,
        /// The first of the two shards.
        first: String,
        /// The second of them.
        second: String,
    },
    /// A shard holds a tensor that the index does not name.
    #[error(
        "tensor `{}` is in {}, but not in the index",
        shown(tensor),
        shown(file)
    )]
    NotInIndex {
        /// The tensor.
        tensor: String,
        /// The shard that holds it.
        file: String,
    },
}

/// An index: which shard holds which tensor. All file names are plain.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Index {
    /// File name of the shard, by tensor.
    pub weight_map: BTreeMap<String, String>,
}

/// The index's JSON, before it is checked.
#[derive(Deserialize)]
struct Raw {
    #[serde(default, rename = "metadata")]
    _metadata: Option<UniqueAnything>,
    weight_map: UniqueMap<String>,
}

impl Index {
    /// Checks the JSON of an index.
    ///
    /// # Errors
    /// The rule that is broken.
    pub fn parse(json: &[u8]) -> Result<Self, IndexError> {
        // First as a map, because a derived struct accepts unknown keys twice, and an array as an object.
        let broken = |e: serde_json::Error| IndexError::Json(shown(&e.to_string()).to_string());
        serde_json::from_slice::<UniqueMap<UniqueAnything>>(json).map_err(broken)?;
        let raw: Raw = serde_json::from_slice(json).map_err(broken)?;
        let weight_map = raw.weight_map.0;
        if weight_map.is_empty() {
            return Err(IndexError::Empty);
        }
        if let Some(file) = weight_map.values().find(|file| !is_plain(file)) {
            return Err(IndexError::BadFileName { file: file.clone() });
        }
        Ok(Self { weight_map })
    }

    /// The file names of the shards, each once, in the order of the names.
    #[must_use]
    pub fn files(&self) -> Vec<&str> {
        self.weight_map
            .values()
            .map(String::as_str)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect()
    }

    /// Checks that the shards hold what the index says and nothing else.
    ///
    /// # Errors
    /// The rule that is broken, with the tensor.
    pub fn check<'a>(
        &self,
        shards: impl IntoIterator<Item = (&'a str, &'a Header)>,
    ) -> Result<(), IndexError> {
        let mut held = HashMap::with_capacity(self.weight_map.len());
        for (file, header) in shards {
            for tensor in &header.tensors {
                if let Some(first) = held.insert(tensor.name.as_str(), file) {
                    return Err(IndexError::TwoShards {
                        tensor: tensor.name.clone(),
                        first: first.to_owned(),
                        second: file.to_owned(),
                    });
                }
            }
        }
        for (tensor, file) in &self.weight_map {
            if held.remove(tensor.as_str()) != Some(file) {
                let (tensor, file) = (tensor.clone(), file.clone());
                return Err(IndexError::MissingTensor { tensor, file });
            }
        }
        // The first by name, so that the message does not depend on the order of a hash map.
        match held.into_iter().min() {
            Some((tensor, file)) => Err(IndexError::NotInIndex {
                tensor: tensor.to_owned(),
                file: file.to_owned(),
            }),
            None => Ok(()),
        }
    }
}

/// Whether a shard may have this name: nothing that means another directory, a drive or a stream on any system.
fn is_plain(file: &str) -> bool {
    file.len() <= 255
        && file.len() > WEIGHTS_SUFFIX.len()
        && file.ends_with(WEIGHTS_SUFFIX)
        && !file.starts_with("..")
        && !file.contains(|c: char| matches!(c, '/' | '\\' | ':') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Index, IndexError> {
        Index::parse(json.as_bytes())
    }

    fn index(pairs: &[(&str, &str)]) -> Index {
        let pairs: Vec<_> = pairs.iter().map(|(t, f)| format!("{t:?}:{f:?}")).collect();
        parse(&format!("{{\"weight_map\":{{{}}}}}", pairs.join(","))).unwrap()
    }

    fn header(tensors: &[&str]) -> Header {
        let entry = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
        let entries: Vec<_> = tensors.iter().map(|t| format!("{t:?}:{entry}")).collect();
        let json = format!("{{{}}}", entries.join(","));
        let mut raw = (json.len() as u64).to_le_bytes().to_vec();
        raw.extend_from_slice(json.as_bytes());
        let len = raw.len() as u64;
        Header::parse(raw, len).unwrap()
    }

    const ONE: &str = "model-1.safetensors";
    const TWO: &str = "model-2.safetensors";

    #[test]
    fn a_good_index_names_its_shards_once() {
        let json = format!(
            r#"{{"metadata":{{"total_size":8}},"weight_map":{{"b":"{TWO}","a":"{ONE}","c":"{ONE}"}}}}"#
        );
        assert_eq!(parse(&json).unwrap().files(), [ONE, TWO]);
        assert!(
            parse(&format!(
                r#"{{"weight_map":{{"a":"{ONE}"}},"metadata":null,"x":1}}"#
            ))
            .is_ok()
        );
    }

    #[test]
    fn file_names_that_lead_elsewhere_are_refused() {
        for file in [
            "",
            ".",
            "..",
            "/etc/x.safetensors",
            "../x.safetensors",
            "a/x.safetensors",
            "a\\x.safetensors",
            "..\\x.safetensors",
            "C:x.safetensors",
            "x.safetensors/",
            "x.bin",
            ".safetensors",
            "x.safetensors\u{0}",
            "x\u{1b}.safetensors",
            "..x.safetensors",
            &format!("{}.safetensors", "x".repeat(250)),
        ] {
            let json = serde_json::json!({"weight_map": {"a": ONE, "b": file}}).to_string();
            assert_eq!(
                parse(&json),
                Err(IndexError::BadFileName {
                    file: file.to_owned()
                })
            );
        }
        let long = format!("{}.safetensors", "x".repeat(243));
        for file in [
            "x.safetensors",
            "a..b.safetensors",
            "модель 1.safetensors",
            &long,
        ] {
            assert!(is_plain(file), "{file}");
        }
    }

    #[test]
    fn double_keys_in_an_index_are_refused() {
        for json in [
            format!(r#"{{"weight_map":{{"a":"{ONE}","a":"{TWO}"}}}}"#),
            format!(r#"{{"weight_map":{{"a":"{ONE}"}},"weight_map":{{"a":"{TWO}"}}}}"#),
            format!(r#"{{"metadata":{{"k":1,"k":1}},"weight_map":{{"a":"{ONE}"}}}}"#),
            format!(r#"{{"x":1,"x":1,"weight_map":{{"a":"{ONE}"}}}}"#),
        ] {
            let error = parse(&json).unwrap_err();
            assert!(
                matches!(&error, IndexError::Json(m) if m.contains("twice")),
                "{error:?}"
            );
        }
    }

    #[test]
    fn an_index_of_the_wrong_form_is_refused() {
        for json in [
            "",
            "[]",
            "{}",
            r#"[null,{"a":"x.safetensors"}]"#,
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
            "{\"weight_map\":{\"a\":\"\u{fffd}",
        ] {
            assert!(matches!(parse(json), Err(IndexError::Json(_))), "{json}");
        }
        assert!(matches!(
            Index::parse(b"{\"weight_map\":{\"a\":\"\xff\"}}"),
            Err(IndexError::Json(_))
        ));
        assert_eq!(parse(r#"{"weight_map":{}}"#), Err(IndexError::Empty));
    }

    #[test]
    fn shards_that_hold_what_the_index_says_are_good() {
        let (one, two) = (header(&["a", "c"]), header(&["b"]));
        let index = index(&[("a", ONE), ("b", TWO), ("c", ONE)]);
        assert_eq!(index.check([(ONE, &one), (TWO, &two)]), Ok(()));
    }

    #[test]
    fn a_tensor_that_is_not_in_its_shard_is_an_error() {
        let index = index(&[("a", ONE), ("b", TWO)]);
        let missing = Err(IndexError::MissingTensor {
            tensor: "b".into(),
            file: TWO.into(),
        });
        assert_eq!(
            index.check([(ONE, &header(&["a"])), (TWO, &header(&[]))]),
            missing
        );
        // In another shard than the index says.
        assert_eq!(
            index.check([(ONE, &header(&["a", "b"])), (TWO, &header(&[]))]),
            missing
        );
    }

    #[test]
    fn a_tensor_in_two_shards_is_an_error() {
        let index = index(&[("a", ONE), ("b", TWO)]);
        let error = index.check([(ONE, &header(&["a"])), (TWO, &header(&["b", "a"]))]);
        assert!(
            matches!(error, Err(IndexError::TwoShards { .. })),
            "{error:?}"
        );
    }

    #[test]
    fn a_tensor_that_the_index_does_not_know_is_an_error() {
        let error = index(&[("a", ONE)]).check([(ONE, &header(&["a", "x"]))]);
        assert_eq!(
            error,
            Err(IndexError::NotInIndex {
                tensor: "x".into(),
                file: ONE.into()
            })
        );
    }
}
