//! What decides the bytes of a shard, beside the shard itself: the same settings and the same input make the same output.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::compensation::Compensation;
use crate::plan::{Allocation, Draft, Options};
use crate::scores::Score;
use crate::selection::{Ewma, Pattern, Selection};
use crate::targets::NameFilter;
use crate::untrusted::shown;

/// Version, options and norms of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    /// Of this program.
    version: String,
    score: String,
    selection: SelectionRecord,
    allocation: AllocationRecord,
    include: Vec<String>,
    exclude: Vec<String>,
    /// The names that were asked for in place of globs.
    names: Option<Vec<String>>,
    keep_non_finite: bool,
    compensation: Option<Compensation>,
    /// SHA-256 of the file of norms; none for a run without.
    pub norms_sha256: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase")]
enum SelectionRecord {
    Ewma {
        sparsity: f64,
        block_size: usize,
        gain_shift: u32,
    },
    Exact {
        sparsity: f64,
    },
    Lambda {
        lambda: f64,
        block_size: usize,
        gain_shift: u32,
    },
    Pattern {
        n: u32,
        m: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rule", rename_all = "lowercase")]
enum AllocationRecord {
    Uniform,
    Owl { spread: f64 },
    Dlp { spread: f64 },
    Atp { spread: f64 },
    Given { sparsities: BTreeMap<String, f64> },
}

impl Settings {
    /// Those of a run, whose norms file has this SHA-256.
    pub(crate) fn of(draft: &Draft, norms_sha256: Option<String>) -> Self {
        let options = draft.options();
        let (include, exclude) = options.targets.globs();
        let names = options.targets.names();
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            score: draft.score().name.to_owned(),
            selection: selection_record(&options.selection),
            allocation: match &options.allocation {
                Allocation::Uniform => AllocationRecord::Uniform,
                Allocation::Owl { spread } => AllocationRecord::Owl { spread: *spread },
                Allocation::Dlp { spread } => AllocationRecord::Dlp { spread: *spread },
                Allocation::Atp { spread } => AllocationRecord::Atp { spread: *spread },
                Allocation::Given(table) => AllocationRecord::Given {
                    sparsities: table.as_ref().clone(),
                },
            },
            include,
            exclude,
            names: names.map(|names| names.iter().cloned().collect()),
            keep_non_finite: options.keep_non_finite,
            compensation: options.compensation,
            norms_sha256,
        }
    }

    /// The options of the run; `None` if they are none that this version has.
    pub(crate) fn options(&self) -> Option<Options> {
        let selection = match self.selection {
            SelectionRecord::Ewma {
                sparsity,
                block_size,
                gain_shift,
            } => Selection::Ewma {
                sparsity,
                ewma: Ewma::new(block_size, gain_shift)?,
            },
            SelectionRecord::Exact { sparsity } => Selection::Exact { sparsity },
            SelectionRecord::Lambda {
                lambda,
                block_size,
                gain_shift,
            } => Selection::Lambda {
                lambda,
                ewma: Ewma::new(block_size, gain_shift)?,
            },
            SelectionRecord::Pattern { n, m } => Selection::Pattern(Pattern::new(n, m)?),
        };
        let mut options = Options::new(selection);
        options.allocation = match &self.allocation {
            AllocationRecord::Uniform => Allocation::Uniform,
            AllocationRecord::Owl { spread } => Allocation::Owl { spread: *spread },
            AllocationRecord::Dlp { spread } => Allocation::Dlp { spread: *spread },
            AllocationRecord::Atp { spread } => Allocation::Atp { spread: *spread },
            AllocationRecord::Given { sparsities } => {
                Allocation::Given(Arc::new(sparsities.clone()))
            }
        };
        options.score = Some(Score::by_name(&self.score)?);
        options.targets = match &self.names {
            Some(names) => NameFilter::of_names(names.iter().cloned()),
            None => NameFilter::new(&self.include, &self.exclude).ok()?,
        };
        options.keep_non_finite = self.keep_non_finite;
        options.compensation = self.compensation;
        options.squared_error = true;
        Some(options)
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

fn selection_record(selection: &Selection) -> SelectionRecord {
    match *selection {
        Selection::Ewma { sparsity, ewma } => SelectionRecord::Ewma {
            sparsity,
            block_size: ewma.block_size(),
            gain_shift: ewma.gain_shift(),
        },
        Selection::Exact { sparsity } => SelectionRecord::Exact { sparsity },
        Selection::Lambda { lambda, ewma } => SelectionRecord::Lambda {
            lambda,
            block_size: ewma.block_size(),
            gain_shift: ewma.gain_shift(),
        },
        Selection::Pattern(pattern) => SelectionRecord::Pattern {
            n: pattern.n(),
            m: pattern.m(),
        },
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
    use crate::plan::NormsSource;

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
        let shares = settings(|_| ()).options().unwrap();
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
            let again = settings(|options| *options = read.options().unwrap());
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
