//! The report: everything needed to repeat a run and to judge it, as data. The command line prints it as a table or as
//! JSON.

mod asked;
mod card;
mod checksums;
mod column_norms;
mod evaluation;
mod file;
mod memory;
pub mod page;
mod plain_copy;
mod schema;
mod selection;
mod sweep;
mod totals;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

pub use asked::{Asked, AskedError, Known, asked};
pub(crate) use card::{Card, REPORT_JSON};
pub(crate) use checksums::checksums;
pub use column_norms::{InputReport, OUTLIER_FEATURE};
pub use evaluation::{AgainstReport, EvaluationReport};
pub(crate) use file::ReportFile;
pub use memory::peak_memory;
pub use plain_copy::CopyReport;
pub(crate) use plain_copy::plain_copy;
pub use schema::REPORT_SCHEMA_VERSION;
pub use selection::SelectionReport;
#[cfg(test)]
pub(crate) use sweep::tests as sweep_tests;
pub use sweep::{Quality, SWEEP_SCHEMA_VERSION, SweepCell, SweepReport};
pub use totals::Totals;
pub(crate) use totals::sparser;

use crate::compensation::Compensation;
use crate::counts::Counts;
use crate::device::DeviceInfo;
use crate::names::grammar::{block, stack};
use crate::plan::{Action, Allocation, LeftDense, Plan, PlannedBlock};
use crate::prune::{Histogram, Outcome, SampleRow, Samples, Verified};
use crate::untrusted::named;

/// One run.
#[derive(Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// [`REPORT_SCHEMA_VERSION`].
    pub report_schema_version: u32,
    /// Version of this program.
    pub version: &'static str,
    /// The command line.
    pub command: Vec<String>,
    /// What was read.
    #[serde(serialize_with = "as_text")]
    pub input: PathBuf,
    /// What was written.
    #[serde(serialize_with = "as_text")]
    pub output: PathBuf,
    /// Where it ran.
    pub device: DeviceInfo,
    /// The score's name.
    pub score: &'static str,
    /// The rule, with its constants.
    pub selection: SelectionReport,
    /// The globs of tensors that were chosen by name; none where the default set was.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// The globs of tensors that were left out by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// How the weights that stay were compensated; none where they keep their bits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<Compensation>,
    /// Where the norms came from; none for a score that went without.
    pub norms: Option<NormsReport>,
    /// Sums over the tensors of each kind of layer, in the order of their names.
    pub kinds: Vec<Totals>,
    /// Sums over the tensors of each decoder block, where these did not all get the same share.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Totals>,
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
    /// Seconds per phase of the run, which follow one another: `calibrate`, `allocate`, `prune`, `verify`, `checksum`,
    /// `evaluate`; those that there were.
    pub phases: BTreeMap<&'static str, f64>,
    /// A plain copy to the place of the output, to compare with; with a report file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_copy: Option<CopyReport>,
    /// A few rows with their scores; with a report file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<SampleRow>,
    /// How normalised scores are spread; with a report file, for the rules that normalise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub histogram: Option<Histogram>,
    /// The inputs by their column norms; with a report file, for a score with norms.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputReport>,
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
    /// What the device failed at, so that the CPU did it in its place; the bytes of the output are the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub device_failures: Vec<String>,
    /// What the user was warned of.
    pub warnings: Vec<String>,
}

/// Where the norms came from.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NormsReport {
    /// The file.
    #[serde(serialize_with = "as_text")]
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
    /// Its decoder block; none outside of blocks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block: Option<String>,
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

/// A path as JSON can hold it: what is not Unicode in it is replaced by U+FFFD.
fn as_text<S: serde::Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
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
            block: (stack(&tensor.name).zip(block(&tensor.name)))
                .map(|(stack, block)| format!("{stack}.{}", block.number)),
            dtype: format!("{:?}", tensor.dtype),
            shape: tensor.shape.clone(),
            copied_because: None,
            pruned: None,
        };
        match &tensor.action {
            Action::Copy(reason) => {
                record.copied_because = Some(reason.to_string());
                let weights = tensor.elements();
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
    let of_rows = not_compensated(&tensors)
        .into_iter()
        .chain(of_sparser(&tensors));
    let warnings = plan.warnings().iter().cloned().chain(of_rows).collect();
    let stages = outcome.stages;
    let (include, exclude) = plan.options().targets.globs();
    Report {
        report_schema_version: REPORT_SCHEMA_VERSION,
        version: env!("CARGO_PKG_VERSION"),
        command: Vec::new(),
        input: plan.checkpoint().source.weights().path().to_owned(),
        output: outcome.finished.path.clone(),
        device: device.clone(),
        score: plan.score().name,
        selection: SelectionReport::allocated(
            &plan.options().selection,
            &plan.options().allocation,
        ),
        include,
        exclude,
        compensation: plan.options().compensation,
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
        blocks: blocks(plan, outcome),
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
        phases: BTreeMap::new(),
        plain_copy: None,
        rows: Vec::new(),
        histogram: None,
        inputs: Vec::new(),
        peak_memory_bytes: peak_memory(),
        copied: outcome.finished.copied.clone(),
        left_out: outcome.finished.left_out.clone(),
        sha256: None,
        evaluation: None,
        verified: None,
        device_failures: Vec::new(),
        warnings,
    }
}

impl Report {
    /// Adds what a report file has beside the numbers: what its pictures are drawn of.
    pub(crate) fn add_details(&mut self, plan: &Plan, samples: Samples, copy: CopyReport) {
        self.rows = samples.rows;
        self.histogram = samples.histogram;
        self.inputs = column_norms::inputs(plan);
        self.plain_copy = Some(copy);
    }
}

/// What is to be said of rows that were to be compensated and could not be.
fn not_compensated(tensors: &[TensorReport]) -> Option<String> {
    let rows = |tensor: &TensorReport| {
        tensor
            .pruned
            .as_ref()
            .map_or(0, |row| row.rows_not_compensated)
    };
    let some: Vec<&TensorReport> = tensors.iter().filter(|tensor| rows(tensor) > 0).collect();
    let total: u64 = some.iter().map(|tensor| rows(tensor)).sum();
    let names = named(some.iter().map(|tensor| &tensor.name));
    (total > 0).then(|| {
        format!(
            "{total} rows of {} tensors are pruned alone, since their kept weights could not be compensated (no sketch that can \
             be used, or a value that the dtype has no room for): {names}",
            some.len()
        )
    })
}

/// What is to be said of tensors that have more zeros than were asked for.
fn of_sparser(tensors: &[TensorReport]) -> Option<String> {
    let pruned = tensors.iter().filter_map(|tensor| tensor.pruned.as_ref());
    let mut all = Totals::default();
    for tensor in pruned.clone().filter(|tensor| tensor.is_sparser()) {
        all.join(tensor);
    }
    all.sparser(&format!("{} of {} tensors", all.tensors, pruned.count()))
}

/// What pruning did to each block, where they did not all get the same share.
fn blocks(plan: &Plan, outcome: &Outcome) -> Vec<Totals> {
    if plan.options().allocation == Allocation::Uniform {
        return Vec::new();
    }
    let of_block = |block: &PlannedBlock| {
        let mut row = Totals::default();
        for &index in &block.tensors {
            let counts = outcome.counts[index].unwrap_or_default();
            row.add(counts, plan.tensors()[index].asked());
        }
        row.finish(block.name.clone())
    };
    plan.blocks().iter().map(of_block).collect()
}
