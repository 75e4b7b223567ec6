//! The index of a checkpoint in shards, and whether index and shards agree.
//!
//! `model.safetensors.index.json` maps every tensor to the file that holds it. The file names are not trusted: each
//! must be the plain name of a `.safetensors` file, so that it cannot lead out of the index's own directory on any
//! system.
//!
//! Loaders take from the index which files there are, and then all tensors of these files. So an index that disagrees with its
//! shards is no reason to refuse them, as long as every loader gets the same tensors: what it says wrongly is a
//! [`Discrepancy`], which users are told of. Whether a tensor that is nowhere is needed, `model` knows.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde::Deserialize;

use super::file_names::WEIGHTS_SUFFIX;
use super::header::{Header, Tensor};
use super::json::{UniqueAnything, UniqueMap, without_python_floats};
use crate::untrusted::{named, shown};

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
    /// A tensor that the model needs is in no shard.
    #[error(
        "tensor `{}` is in no shard, though the index says that it is in {}",
        shown(tensor),
        shown(file)
    )]
    MissingTensor {
        /// The tensor.
        tensor: String,
        /// The shard it should be in.
        file: String,
    },
    /// Two shards hold a tensor of one name, and not the same.
    #[error(
        "tensor `{}` is in two shards, {} and {}, and not the same in both: loaders disagree which one is the model's",
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
}

/// What an index says wrongly of its shards, without harm.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discrepancy {
    /// A tensor is in no shard.
    Absent {
        /// The tensor.
        tensor: String,
        /// The shard it should be in; the file itself may be missing.
        file: String,
    },
    /// A tensor is in another shard than the index says.
    Moved {
        /// The tensor.
        tensor: String,
        /// The shard that the index names.
        file: String,
        /// The shard that holds it.
        found: String,
    },
    /// A shard holds a tensor that the index does not name.
    NotInIndex {
        /// The tensor.
        tensor: String,
        /// The shard that holds it.
        file: String,
    },
    /// Two shards hold the same tensor.
    Twice {
        /// The tensor.
        tensor: String,
        /// The first of the two shards.
        first: String,
        /// The second of them, which loaders take.
        second: String,
    },
}

impl Discrepancy {
    /// The tensor.
    #[must_use]
    pub fn tensor(&self) -> &str {
        match self {
            Self::Absent { tensor, .. }
            | Self::Moved { tensor, .. }
            | Self::NotInIndex { tensor, .. }
            | Self::Twice { tensor, .. } => tensor,
        }
    }

    /// What is to be said of so many tensors that differ in this way.
    fn sentence(&self, tensors: usize) -> String {
        let (what, are, them) = match tensors {
            1 => ("1 tensor".to_owned(), "is", "it"),
            n => (format!("{n} tensors"), "are", "them"),
        };
        match self {
            Self::Absent { .. } => format!(
                "{what} of the index {are} in no shard, and nothing needs {them} to run the decoder"
            ),
            Self::Moved { .. } => {
                format!(
                    "{what} {are} in another shard than the index says, where loaders find {them}, too"
                )
            }
            Self::NotInIndex { .. } => {
                format!("{what} {are} not in the index, but in a shard, where loaders find {them}")
            }
            Self::Twice { .. } => format!("{what} {are} in two shards; loaders take the second"),
        }
    }
}

/// A sentence for each way in which an index and its shards disagree, with the first tensors that do.
pub(super) fn warnings(discrepancies: &[Discrepancy]) -> Vec<String> {
    let mut rest = discrepancies;
    let mut warnings = Vec::new();
    while let Some(first) = rest.first() {
        let alike =
            |other: &Discrepancy| std::mem::discriminant(other) == std::mem::discriminant(first);
        let (of_kind, behind) = rest.split_at(rest.partition_point(alike));
        warnings.push(format!(
            "{}: {}",
            first.sentence(of_kind.len()),
            named(of_kind.iter().map(Discrepancy::tensor))
        ));
        rest = behind;
    }
    warnings
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
        let broken = |e: serde_json::Error| IndexError::Json(shown(&e.to_string()).to_string());
        // Python writes and reads `NaN`, as in a sum of sizes; nothing of the metadata is used.
        let without = without_python_floats(json);
        let json = without.as_deref().unwrap_or(json);
        // First as a map, because a derived struct accepts unknown keys twice, and an array as an object.
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

    /// In what the index and the shards disagree: kind by kind, by the names of the tensors. The shards come in the order of
    /// their file names, which is that of loaders. `same` compares the bytes of a tensor that is in two of them, by their
    /// places in that order.
    ///
    /// # Errors
    /// [`IndexError::TwoShards`], and what `same` gives.
    pub fn compare<'a, E: From<IndexError>>(
        &self,
        shards: impl IntoIterator<Item = (&'a str, &'a Header)>,
        mut same: impl FnMut([(usize, &'a Tensor); 2]) -> Result<bool, E>,
    ) -> Result<Vec<Discrepancy>, E> {
        let mut held = HashMap::with_capacity(self.weight_map.len());
        let mut twice = Vec::new();
        for (number, (file, header)) in shards.into_iter().enumerate() {
            for tensor in header.tensors() {
                let name = tensor.name.as_str();
                let Some((before, first_file, first)) = held.insert(name, (number, file, tensor))
                else {
                    continue;
                };
                // Loaders take the last; where the index names another, it must not matter.
                let is_last = self.weight_map.get(name).is_some_and(|named| named == file);
                let is_alike = (first.dtype, &first.shape) == (tensor.dtype, &tensor.shape);
                if !is_alike || !(is_last || same([(before, first), (number, tensor)])?) {
                    return Err(E::from(IndexError::TwoShards {
                        tensor: name.to_owned(),
                        first: first_file.to_owned(),
                        second: file.to_owned(),
                    }));
                }
                twice.push(Discrepancy::Twice {
                    tensor: name.to_owned(),
                    first: first_file.to_owned(),
                    second: file.to_owned(),
                });
            }
        }
        let (mut absent, mut moved, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let names_twice: BTreeSet<&str> = twice.iter().map(Discrepancy::tensor).collect();
        for (tensor, file) in &self.weight_map {
            let (tensor, file) = (tensor.clone(), file.clone());
            match held.remove(tensor.as_str()) {
                None => absent.push(Discrepancy::Absent { tensor, file }),
                Some((_, found, _)) if found != file && !names_twice.contains(tensor.as_str()) => {
                    let found = found.to_owned();
                    moved.push(Discrepancy::Moved {
                        tensor,
                        file,
                        found,
                    });
                }
                Some(_) => {}
            }
        }
        drop(names_twice);
        // By name, so that the message does not depend on the order of a hash map.
        let left: BTreeMap<&str, _> = held.into_iter().collect();
        for (tensor, (_, file, _)) in left {
            unknown.push(Discrepancy::NotInIndex {
                tensor: tensor.to_owned(),
                file: file.to_owned(),
            });
        }
        twice.sort_by(|a, b| a.tensor().cmp(b.tensor()));
        Ok([absent, moved, unknown, twice].concat())
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
    fn numbers_that_only_python_has_are_no_reason_to_refuse_an_index() {
        let json = format!(
            r#"{{"metadata":{{"total_size":NaN,"x":[-Infinity]}},"weight_map":{{"NaN":"{ONE}"}}}}"#
        );
        assert!(parse(&json).unwrap().weight_map.contains_key("NaN"));
    }

    /// What differs; tensors in two shards are the same if `same`.
    fn compare(
        index: &Index,
        shards: [(&'static str, &Header); 2],
        same: bool,
    ) -> Result<Vec<Discrepancy>, IndexError> {
        index.compare(shards, |_| Ok(same))
    }

    #[test]
    fn shards_that_hold_what_the_index_says_are_good() {
        let (one, two) = (header(&["a", "c"]), header(&["b"]));
        let index = index(&[("a", ONE), ("b", TWO), ("c", ONE)]);
        assert_eq!(
            compare(&index, [(ONE, &one), (TWO, &two)], false),
            Ok(Vec::new())
        );
    }

    #[test]
    fn what_the_index_says_wrongly_is_told_by_kind_and_name() {
        let index = index(&[("a", ONE), ("b", TWO), ("d", TWO), ("c", TWO), ("e", ONE)]);
        let (one, two) = (header(&["a", "b", "z"]), header(&["y", "e"]));
        let found = compare(&index, [(ONE, &one), (TWO, &two)], false).unwrap();
        let (one, two) = (|| ONE.to_owned(), || TWO.to_owned());
        let absent = |name: &str| Discrepancy::Absent {
            tensor: name.to_owned(),
            file: two(),
        };
        let moved = |name: &str, file, found| Discrepancy::Moved {
            tensor: name.to_owned(),
            file,
            found,
        };
        let unknown = |name: &str, file| Discrepancy::NotInIndex {
            tensor: name.to_owned(),
            file,
        };
        assert_eq!(
            found,
            [
                absent("c"),
                absent("d"),
                moved("b", two(), one()),
                moved("e", one(), two()),
                unknown("y", two()),
                unknown("z", one()),
            ]
        );
        let said = warnings(&found);
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].starts_with("2 tensors of the index are in no shard"));
        assert!(said[0].ends_with(": c, d") && said[1].ends_with(": b, e"));
    }

    #[test]
    fn a_tensor_in_two_shards_must_be_the_same_for_every_loader() {
        let (one, two) = (header(&["a"]), header(&["b", "a"]));
        let shards = [(ONE, &one), (TWO, &two)];
        let by_last = index(&[("a", TWO), ("b", TWO)]);
        let by_first = index(&[("a", ONE), ("b", TWO)]);
        let twice = vec![Discrepancy::Twice {
            tensor: "a".to_owned(),
            first: ONE.to_owned(),
            second: TWO.to_owned(),
        }];
        assert_eq!(compare(&by_last, shards, false), Ok(twice.clone()));
        assert_eq!(compare(&by_first, shards, true), Ok(twice));
        let error = compare(&by_first, shards, false);
        assert!(
            matches!(error, Err(IndexError::TwoShards { .. })),
            "{error:?}"
        );
    }
}
