//! The JSON of a report, as a page reads it. What an older report does not have is missing, and so is its picture.

use std::collections::BTreeMap;
use std::io;

use serde::{Deserialize, Serialize};

use crate::device::DeviceInfo;
use crate::report::schema::REPORT_SCHEMA_VERSION;
use crate::report::sweep::{SWEEP_SCHEMA_VERSION, SweepReport};
use crate::untrusted::shown;

/// Why a file cannot be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PageError {
    /// It is not JSON, or not of this program.
    #[error("it is not a report that `prune` or `sweep` wrote: {0}")]
    NoReport(
        /// What is wrong with it.
        String,
    ),
    /// Its form is one that this version does not know.
    #[error(
        "it was written by a newer version: its form has number {found}, and this program knows up to {known}"
    )]
    Newer {
        /// The number of its form.
        found: u64,
        /// The last one that is known here.
        known: u32,
    },
}

/// What a file of this program's JSON is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Document {
    /// A run of `prune`.
    Run(Box<Run>),
    /// A `sweep`.
    Sweep(Box<SweepReport>),
}

/// One run, as a page shows it.
#[derive(Clone, Debug, Deserialize)]
#[non_exhaustive]
pub struct Run {
    /// Version of the program that ran.
    #[serde(default)]
    pub version: String,
    /// Its command line.
    #[serde(default)]
    pub command: Vec<String>,
    /// What was read.
    #[serde(default)]
    pub input: String,
    /// What was written.
    #[serde(default)]
    pub output: String,
    pub(super) device: Option<DeviceInfo>,
    #[serde(default)]
    pub(super) score: String,
    pub(super) selection: RunSelection,
    pub(super) compensation: Option<RunCompensation>,
    pub(super) norms: Option<RunNorms>,
    pub(super) prunable: Option<RunTotals>,
    pub(super) all_weights: Option<RunTotals>,
    pub(super) tensors: Vec<RunTensor>,
    #[serde(default)]
    pub(super) bytes: u64,
    #[serde(default)]
    pub(super) seconds: f64,
    #[serde(default)]
    pub(super) stages: BTreeMap<String, f64>,
    #[serde(default)]
    pub(super) phases: BTreeMap<String, f64>,
    pub(super) plain_copy: Option<RunCopy>,
    pub(super) peak_memory_bytes: Option<u64>,
    pub(super) evaluation: Option<RunEvaluation>,
    #[serde(default)]
    pub(super) warnings: Vec<String>,
    #[serde(default)]
    pub(super) rows: Vec<RunRow>,
    pub(super) histogram: Option<RunHistogram>,
    #[serde(default)]
    pub(super) inputs: Vec<RunInput>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunSelection {
    pub(super) rule: String,
    pub(super) sparsity: Option<f64>,
    pub(super) lambda: Option<f64>,
    pub(super) pattern: Option<String>,
    pub(super) block_size: Option<usize>,
    pub(super) gain: Option<String>,
    pub(super) allocation: Option<String>,
    pub(super) spread: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunCompensation {
    pub(super) rank: usize,
    pub(super) ridge: f64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunNorms {
    pub(super) path: String,
    pub(super) format: String,
    pub(super) tokens: Option<u64>,
    pub(super) metadata: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct RunTotals {
    pub(super) weights: u64,
    pub(super) zeros: u64,
    pub(super) sparsity: f64,
    pub(super) asked: Option<f64>,
    pub(super) squared_error: Option<f64>,
    pub(super) output_error: Option<f64>,
    pub(super) output_error_left: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunTensor {
    pub(super) name: String,
    pub(super) block: Option<String>,
    #[serde(default)]
    pub(super) dtype: String,
    #[serde(default)]
    pub(super) shape: Vec<u64>,
    pub(super) copied_because: Option<String>,
    #[serde(default)]
    pub(super) kind: String,
    #[serde(flatten)]
    pub(super) totals: RunTotals,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunCopy {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunEvaluation {
    pub(super) text: String,
    #[serde(default)]
    pub(super) prefix: String,
    pub(super) context: usize,
    pub(super) windows: usize,
    pub(super) tokens: usize,
    pub(super) perplexity: f64,
    pub(super) loss_standard_error: Option<f64>,
    pub(super) against: Option<RunAgainst>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunAgainst {
    pub(super) perplexity: f64,
    pub(super) loss_standard_error: Option<f64>,
    pub(super) difference: Option<f64>,
    pub(super) standard_error: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunRow {
    pub(super) tensor: String,
    pub(super) row: usize,
    pub(super) in_features: usize,
    pub(super) scores: Vec<Option<f64>>,
    pub(super) pruned: Vec<usize>,
    pub(super) block_size: Option<usize>,
    pub(super) averages: Vec<[f64; 2]>,
    pub(super) lambda: Option<f64>,
    pub(super) threshold: Option<f64>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunHistogram {
    pub(super) rows: usize,
    pub(super) from: f64,
    pub(super) to: f64,
    pub(super) counts: Vec<u64>,
    pub(super) lambda: [f64; 3],
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct RunInput {
    pub(super) kind: String,
    pub(super) block: Option<String>,
    pub(super) largest: f64,
    pub(super) percentile_99: f64,
    pub(super) outlier_count: usize,
    pub(super) outliers: Vec<(usize, f64)>,
}

impl Run {
    /// Of a report that is not written yet.
    ///
    /// # Errors
    /// None but a defect of this program: a report that its own page cannot read.
    pub(crate) fn of(report: &impl Serialize) -> io::Result<Self> {
        Ok(serde_json::from_value(serde_json::to_value(report)?)?)
    }
}

/// Which of the two a file is, and its form.
#[derive(Deserialize)]
struct Versions {
    sweep_schema_version: Option<u64>,
    report_schema_version: Option<u64>,
}

/// Reads a report of `prune` or of `sweep`.
///
/// # Errors
/// Every variant of [`PageError`].
pub fn parse(json: &[u8]) -> Result<Document, PageError> {
    let refused =
        |error: serde_json::Error| PageError::NoReport(shown(&error.to_string()).to_string());
    // Not as a tree of values, which takes thirty times the length of the file.
    let versions: Versions = serde_json::from_slice(json).map_err(refused)?;
    let newer = |found, known| {
        if found > u64::from(known) {
            Err(PageError::Newer { found, known })
        } else {
            Ok(())
        }
    };
    if let Some(found) = versions.sweep_schema_version {
        newer(found, SWEEP_SCHEMA_VERSION)?;
        let sweep = serde_json::from_slice(json).map_err(refused)?;
        return Ok(Document::Sweep(Box::new(sweep)));
    }
    // Reports of before there were numbers have none.
    newer(
        versions.report_schema_version.unwrap_or(0),
        REPORT_SCHEMA_VERSION,
    )?;
    let run = serde_json::from_slice(json).map_err(refused)?;
    Ok(Document::Run(Box::new(run)))
}
