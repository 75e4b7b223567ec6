//! The report: everything needed to repeat a run and to judge it, as data. The command line prints it as a table or as
//! JSON.

mod asked;
mod checksums;
mod evaluation;
mod file;
mod memory;
mod selection;
mod totals;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

pub use asked::{Asked, AskedError, asked};
pub(crate) use checksums::checksums;
pub use evaluation::{AgainstReport, EvaluationReport};
pub(crate) use file::ReportFile;
pub use memory::peak_memory;
pub use selection::SelectionReport;
pub use totals::Totals;

use crate::counts::Counts;
use crate::device::DeviceInfo;
use crate::plan::{Action, LeftDense, Plan};
use crate::prune::{Outcome, Verified};

/// One run.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// Version of this program.
    pub version: &'static str,
    /// The command line.
    pub command: Vec<String>,
    /// What was read.
    pub input: PathBuf,
    /// What was written.
    pub output: PathBuf,
    /// Where it ran.
    pub device: DeviceInfo,
    /// The score's name.
    pub score: &'static str,
    /// The rule, with its constants.
    pub selection: SelectionReport,
    /// Where the norms came from; none for a score that went without.
    pub norms: Option<NormsReport>,
    /// Sums over the tensors of each kind of layer, in the order of their names.
    pub kinds: Vec<Totals>,
    /// Sum over all pruned tensors.
    pub prunable: Totals,
    /// What stays dense of the decoder without anybody's decision, by reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_dense: Vec<LeftDense>,
    /// Sum over all tensors, counting zeros in the pruned ones only.
    pub all_weights: Totals,
    /// Every tensor.
    pub tensors: Vec<TensorReport>,
    /// Bytes of the output's weight files.
    pub bytes: u64,
    /// Wall time in seconds.
    pub seconds: f64,
    /// Seconds per stage, summed over threads.
    pub stages: BTreeMap<&'static str, f64>,
    /// The most memory the process held, where the system tells.
    pub peak_memory_bytes: Option<u64>,
    /// Files that came along unchanged.
    pub copied: Vec<String>,
    /// Files that did not, and why.
    pub left_out: Vec<(String, &'static str)>,
    /// SHA-256 of each weight file, when asked for.
    pub sha256: Option<BTreeMap<String, String>>,
    /// Perplexity before and after, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evaluation: Option<EvaluationReport>,
    /// What verifying the output found, when asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// What the user was warned of.
    pub warnings: Vec<String>,
}

/// Where the norms came from.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NormsReport {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: String,
    /// Number of calibration tokens, if the file says.
    pub tokens: Option<u64>,
    /// What else the file says.
    pub metadata: BTreeMap<String, String>,
}

/// One tensor.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct TensorReport {
    /// Its name, as the checkpoint has it.
    pub name: String,
    /// Its dtype.
    pub dtype: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Why it was copied; none for a pruned one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_because: Option<String>,
    /// What pruning did; none for a copied one.
    #[serde(flatten)]
    pub pruned: Option<Totals>,
}

/// The report of a finished run.
#[must_use]
pub fn report(plan: &Plan, device: &DeviceInfo, outcome: &Outcome) -> Report {
    let mut kinds: BTreeMap<String, Totals> = BTreeMap::new();
    let (mut prunable, mut all) = (Totals::default(), Totals::default());
    let mut tensors = Vec::with_capacity(plan.tensors().len());
    for (tensor, counts) in plan.tensors().iter().zip(&outcome.counts) {
        let mut record = TensorReport {
            name: tensor.name.clone(),
            dtype: format!("{:?}", tensor.dtype),
            shape: tensor.shape.clone(),
            copied_because: None,
            pruned: None,
        };
        match &tensor.action {
            Action::Copy(reason) => {
                record.copied_because = Some(reason.to_string());
                let weights = tensor.shape.iter().product::<usize>() as u64;
                all.add(
                    Counts {
                        weights,
                        ..Counts::default()
                    },
                    Some(0.0),
                );
            }
            Action::Prune { target, .. } => {
                let counts = counts.unwrap_or_default();
                let asked = tensor.asked();
                kinds
                    .entry(target.kind.clone())
                    .or_default()
                    .add(counts, asked);
                prunable.add(counts, asked);
                all.add(counts, asked);
                let mut row = Totals::default();
                row.add(counts, asked);
                record.pruned = Some(row.finish(target.kind.clone()));
            }
        }
        tensors.push(record);
    }
    let stages = outcome.stages;
    Report {
        version: env!("CARGO_PKG_VERSION"),
        command: Vec::new(),
        input: plan.checkpoint().source.weights().path().to_owned(),
        output: outcome.finished.path.clone(),
        device: device.clone(),
        score: plan.score().name,
        selection: (&plan.options().selection).into(),
        norms: plan.norms().map(|norms| NormsReport {
            path: norms.source.path.clone(),
            format: norms.source.format.to_string(),
            tokens: norms.source.tokens,
            metadata: norms.source.metadata.clone(),
        }),
        kinds: kinds
            .into_iter()
            .map(|(kind, row)| row.finish(kind))
            .collect(),
        prunable: prunable.finish("prunable"),
        left_dense: plan.left_dense().to_vec(),
        all_weights: all.finish("all weights"),
        tensors,
        bytes: plan.bytes_total(),
        seconds: outcome.elapsed.as_secs_f64(),
        stages: [
            ("read", stages.read),
            ("upload", stages.upload),
            ("wait", stages.wait),
            ("prune", stages.prune),
            ("write", stages.write),
            ("copy", stages.copy),
        ]
        .into_iter()
        .map(|(stage, time)| (stage, time.as_secs_f64()))
        .collect(),
        peak_memory_bytes: peak_memory(),
        copied: outcome.finished.copied.clone(),
        left_out: outcome.finished.left_out.clone(),
        sha256: None,
        evaluation: None,
        verified: None,
        warnings: plan.warnings().to_vec(),
    }
}
