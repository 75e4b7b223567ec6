//! What a report says was asked of its run, to verify the output by it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::plan::Allocation;
use crate::selection::{Ewma, Pattern, Selection};
use crate::untrusted::{self, ReadError};

/// The longest report that is read, in bytes.
const MAX_REPORT: u64 = 128 << 20;

/// The selection of a run and the tensors that it pruned.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Asked {
    /// How many weights went, and by which rule.
    pub selection: Selection,
    /// How that was shared out: uniformly, or as the report has it for each tensor.
    pub allocation: Allocation,
    /// Whether the weights that stayed were corrected.
    pub compensated: bool,
    /// The names of the tensors that were pruned.
    pub pruned: Vec<String>,
}

/// Why a report cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AskedError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// It is not a report of this program.
    #[error("it is not a report that `prune` wrote: {_0}")]
    NoReport(String),
}

/// Reads what a report in JSON says was asked for.
///
/// # Errors
/// Every variant of [`AskedError`].
pub fn asked(path: &Path) -> Result<Asked, AskedError> {
    let json = untrusted::read(path, MAX_REPORT)?;
    let report: Value = serde_json::from_slice(&json)
        .map_err(|error| AskedError::NoReport(untrusted::shown(&error.to_string()).to_string()))?;
    parse(&report).ok_or_else(|| {
        AskedError::NoReport("it has no selection, or no list of tensors".to_owned())
    })
}

fn parse(report: &Value) -> Option<Asked> {
    let rule = &report["selection"];
    let sparsity = rule["sparsity"].as_f64();
    let selection = match rule["rule"].as_str()? {
        // The constants of the moving average choose weights; they do not change how many.
        "ewma" => Selection::Ewma {
            sparsity: sparsity?,
            ewma: Ewma::default(),
        },
        "exact" => Selection::Exact {
            sparsity: sparsity?,
        },
        "lambda" => Selection::Lambda {
            lambda: rule["lambda"].as_f64()?,
            ewma: Ewma::default(),
        },
        "pattern" => {
            let (n, m) = rule["pattern"].as_str()?.split_once(':')?;
            Selection::Pattern(Pattern::new(n.parse().ok()?, m.parse().ok()?)?)
        }
        _ => return None,
    };
    let is_uniform = rule.get("allocation").is_none_or(Value::is_null);
    let (mut pruned, mut shares) = (Vec::new(), BTreeMap::new());
    for tensor in report["tensors"].as_array()? {
        if tensor.get("copied_because").is_none_or(Value::is_null) {
            let name = tensor["name"].as_str()?.to_owned();
            if !is_uniform {
                shares.insert(name.clone(), tensor["asked"].as_f64()?);
            }
            pruned.push(name);
        }
    }
    let allocation = if is_uniform {
        Allocation::Uniform
    } else {
        Allocation::Given(Arc::new(shares))
    };
    Some(Asked {
        selection,
        allocation,
        compensated: report
            .get("compensation")
            .is_some_and(|value| !value.is_null()),
        pruned,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Asked, AskedError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("report.json");
        std::fs::write(&path, json).unwrap();
        asked(&path)
    }

    #[test]
    fn a_report_says_how_much_and_of_which_tensors() {
        let report = of(r#"{"selection":{"rule":"pattern","pattern":"2:4"},
            "tensors":[{"name":"a","copied_because":"a norm"},{"name":"b","zeros":2}]}"#)
        .unwrap();
        assert_eq!(
            report.selection,
            Selection::Pattern(Pattern::new(2, 4).unwrap())
        );
        assert_eq!(report.pruned, ["b"]);
        assert_eq!(report.allocation, Allocation::Uniform);
    }

    #[test]
    fn a_report_of_shares_says_what_was_asked_of_each_tensor() {
        let report = of(
            r#"{"selection":{"rule":"exact","sparsity":0.5,"allocation":"owl"},
            "tensors":[{"name":"a","copied_because":"a norm"},{"name":"b","asked":0.25}]}"#,
        )
        .unwrap();
        let shares = BTreeMap::from([("b".to_owned(), 0.25)]);
        assert_eq!(report.allocation, Allocation::Given(Arc::new(shares)));
        let without = r#"{"selection":{"rule":"exact","sparsity":0.5,"allocation":"owl"},"tensors":[{"name":"b"}]}"#;
        assert!(matches!(of(without), Err(AskedError::NoReport(_))));
    }

    #[test]
    fn what_is_no_report_says_so() {
        for json in [
            "",
            "{}",
            r#"{"selection":{"rule":"pattern","pattern":"4:2"},"tensors":[]}"#,
        ] {
            assert!(matches!(of(json), Err(AskedError::NoReport(_))), "{json}");
        }
    }
}
