//! What decides the bytes of a shard, beside the shard itself: the same settings and the same input make the same output.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::plan::{Draft, Options};
use crate::untrusted::shown;

/// Version, options and norms of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Of this program.
    version: String,
    /// With the score that is taken.
    #[serde(flatten)]
    options: Options,
    /// SHA-256 of the file of norms; none for a run without.
    pub norms_sha256: Option<String>,
}

impl Settings {
    /// Those of a run, whose norms file has this SHA-256.
    pub(crate) fn of(draft: &Draft, norms_sha256: Option<String>) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            options: Options {
                score: Some(draft.score()),
                squared_error: false,
                ..draft.options().clone()
            },
            norms_sha256,
        }
    }

    /// The options of the run, whose report has all numbers.
    pub(crate) fn options(&self) -> Options {
        Options {
            squared_error: true,
            ..self.options.clone()
        }
    }

    /// In what these settings differ from others, one by one: `selection.sparsity is 0.5, not 0.3`.
    pub(crate) fn differences(&self, others: &Self) -> Vec<String> {
        let flat = |settings: &Self| {
            let mut flat = BTreeMap::new();
            if let Ok(value) = serde_json::to_value(settings) {
                flatten("", &value, &mut flat);
            }
            flat
        };
        let (ours, theirs) = (flat(self), flat(others));
        let text = |value: Option<&String>| {
            value.map_or_else(|| "not set".to_owned(), |text| shown(text).to_string())
        };
        let mut keys: Vec<&String> = ours.keys().chain(theirs.keys()).collect();
        keys.sort();
        keys.dedup();
        keys.into_iter()
            .filter(|key| ours.get(*key) != theirs.get(*key))
            .map(|key| {
                let (ours, theirs) = (text(ours.get(key)), text(theirs.get(key)));
                format!("{} is {ours}, not {theirs}", shown(key))
            })
            .collect()
    }
}

/// Every value that is not an object, by the path of keys that leads to it; nulls are left out.
fn flatten(path: &str, value: &Value, flat: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map {
                let path = match path {
                    "" => key.clone(),
                    path => format!("{path}.{key}"),
                };
                flatten(&path, value, flat);
            }
        }
        Value::String(text) => {
            flat.insert(path.to_owned(), text.clone());
        }
        other => {
            flat.insert(path.to_owned(), other.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::Checkpoint;
    use crate::plan::{Allocation, NormsSource};
    use crate::scores::Score;
    use crate::selection::{Ewma, Pattern, Selection};
    use crate::targets::NameFilter;

    fn settings(edit: impl FnOnce(&mut Options)) -> Settings {
        let mut options = Options::new(Selection::Exact { sparsity: 0.3 });
        options.score = Score::by_name("magnitude");
        edit(&mut options);
        let checkpoint = Checkpoint::open("examples/tiny-llama").unwrap();
        let draft = Draft::new(checkpoint, options, NormsSource::None).unwrap();
        Settings::of(&draft, None)
    }

    #[test]
    fn options_survive_their_record() {
        let shares = settings(|_| ()).options();
        assert_eq!(shares.selection, Selection::Exact { sparsity: 0.3 });
        let edits: [fn(&mut Options); 7] = [
            |_| (),
            |options| options.selection = Selection::Pattern(Pattern::new(2, 4).unwrap()),
            |options| {
                options.selection = Selection::Lambda {
                    lambda: -0.1,
                    ewma: Ewma::new(64, 2).unwrap(),
                };
            },
            |options| {
                options.selection = Selection::Ewma {
                    sparsity: 1.0 / 3.0,
                    ewma: Ewma::default(),
                };
                options.keep_non_finite = true;
            },
            |options| options.allocation = Allocation::Atp { spread: 0.07 },
            |options| {
                let exclude = ["*.0.*".to_owned(), "*q_proj*".to_owned()];
                options.targets = NameFilter::new(&[], &exclude).unwrap();
            },
            |options| {
                let name = "model.layers.0.mlp.up_proj.weight".to_owned();
                options.targets = NameFilter::of_names([name]);
            },
        ];
        for edit in edits {
            let before = settings(edit);
            let json = serde_json::to_string(&before).unwrap();
            let read: Settings = serde_json::from_str(&json).unwrap();
            let again = settings(|options| *options = read.options());
            assert_eq!(before, again);
            assert!(before.differences(&again).is_empty());
        }
    }

    #[test]
    fn what_differs_is_named() {
        let ours = settings(|_| ());
        let theirs = settings(|options| {
            options.selection = Selection::Exact { sparsity: 0.5 };
            options.keep_non_finite = true;
        });
        assert_eq!(
            ours.differences(&theirs),
            [
                "keep_non_finite is false, not true",
                "selection.sparsity is 0.3, not 0.5"
            ]
        );
    }
}
