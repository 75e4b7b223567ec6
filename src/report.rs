//! The report: everything needed to repeat a run and to judge it, as data. The command line prints it; `--json` and
//! `--report` write it as it is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::counts::Counts;
use crate::device::DeviceInfo;
use crate::evaluation::Evaluation;
use crate::plan::{Action, Plan};
use crate::prune::Outcome;
use crate::selection::{Ewma, Selection};
use crate::text::Text;

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
    pub kinds: Vec<Row>,
    /// Sum over all pruned tensors.
    pub prunable: Row,
    /// Sum over all tensors, counting zeros in the pruned ones only.
    pub all_weights: Row,
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
    /// What the user was warned of.
    pub warnings: Vec<String>,
}

/// The rule, with its constants; what a rule does not have is left out.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct SelectionReport {
    /// `ewma`, `exact`, `lambda` or `pattern`.
    pub rule: &'static str,
    /// Fraction of each row asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sparsity: Option<f64>,
    /// The open loop's lambda.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lambda: Option<f64>,
    /// `N:M`, N kept of M.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pattern: Option<String>,
    /// Columns an EWMA block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub block_size: Option<usize>,
    /// The EWMA's gain, as a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<String>,
}

impl From<&Selection> for SelectionReport {
    fn from(selection: &Selection) -> Self {
        let of_ewma = |ewma: Ewma| Self {
            block_size: Some(ewma.block_size()),
            gain: Some(format!("1/{}", 1 << ewma.gain_shift())),
            ..Self::default()
        };
        match *selection {
            Selection::Ewma { sparsity, ewma } => Self {
                rule: "ewma",
                sparsity: Some(sparsity),
                ..of_ewma(ewma)
            },
            Selection::Exact { sparsity } => Self {
                rule: "exact",
                sparsity: Some(sparsity),
                ..Self::default()
            },
            Selection::Lambda { lambda, ewma } => Self {
                rule: "lambda",
                lambda: Some(lambda),
                ..of_ewma(ewma)
            },
            Selection::Pattern(pattern) => Self {
                rule: "pattern",
                pattern: Some(pattern.to_string()),
                ..Self::default()
            },
        }
    }
}

/// Where the norms came from.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct NormsReport {
    /// The file.
    pub path: PathBuf,
    /// Its format.
    pub format: String,
    /// Calibration tokens, if the file says.
    pub tokens: Option<u64>,
    /// What else the file says.
    pub metadata: BTreeMap<String, String>,
}

/// Perplexity, with everything it depends on.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct EvaluationReport {
    /// The text.
    pub text: String,
    /// SHA-256 of the text.
    pub text_sha256: String,
    /// Tokens a window.
    pub context: usize,
    /// Windows.
    pub windows: usize,
    /// Tokens that were predicted: all but the first of each window.
    pub tokens: usize,
    /// `exp` of the mean loss.
    pub perplexity: f64,
    /// Mean loss, in nats per token.
    pub loss: f64,
    /// Where the forward pass ran.
    pub device: DeviceInfo,
    /// Tokens a second of the forward pass.
    pub tokens_per_second: f64,
    /// Of the second checkpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub against: Option<AgainstReport>,
}

/// Perplexity of a second checkpoint on the same windows.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct AgainstReport {
    /// `exp` of the mean loss.
    pub perplexity: f64,
    /// Mean loss, in nats per token.
    pub loss: f64,
    /// Tokens a second of the forward pass.
    pub tokens_per_second: f64,
    /// The second's loss less the first's, in nats per token; none if their tokenizers differ.
    pub difference: Option<f64>,
    /// Its standard error over windows; none for a single window.
    pub standard_error: Option<f64>,
}

impl EvaluationReport {
    /// One evaluation, or two on the same text.
    #[must_use]
    pub fn new(text: &Text, first: &Evaluation, second: Option<&Evaluation>) -> Self {
        let against = |second: &Evaluation| {
            let difference = first.difference(second);
            AgainstReport {
                perplexity: second.perplexity(),
                loss: second.mean_loss(),
                tokens_per_second: second.tokens_per_second(),
                difference: difference.map(|d| d.mean),
                standard_error: difference.and_then(|d| d.standard_error),
            }
        };
        Self {
            text: text.name.clone(),
            text_sha256: text.sha256(),
            context: first.context,
            windows: first.losses.len(),
            tokens: first.tokens(),
            perplexity: first.perplexity(),
            loss: first.mean_loss(),
            device: first.device.clone(),
            tokens_per_second: first.tokens_per_second(),
            against: second.map(against),
        }
    }
}

/// Counts over some tensors.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct Row {
    /// What they have in common.
    pub kind: String,
    /// How many tensors.
    pub tensors: usize,
    /// How many weights.
    pub weights: u64,
    /// Zeros afterwards.
    pub zeros: u64,
    /// Zeros before.
    pub zeros_before: u64,
    /// NaN and infinities that were left alone.
    pub non_finite: u64,
    /// Zeros over weights.
    pub sparsity: f64,
    /// What was asked for over these weights; none for the open loop.
    pub asked: Option<f64>,
    /// `sum dW^2 / sum W^2`.
    pub squared_error: Option<f64>,
    #[serde(skip)]
    counts: Counts,
    #[serde(skip)]
    asked_zeros: f64,
}

impl Row {
    fn add(&mut self, counts: Counts, asked: Option<f64>) {
        self.tensors += 1;
        self.counts += counts;
        self.asked_zeros += asked.unwrap_or(f64::NAN) * counts.weights as f64;
    }

    fn finish(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self.weights = self.counts.weights;
        self.zeros = self.counts.zeros;
        self.zeros_before = self.counts.zeros_before;
        self.non_finite = self.counts.non_finite;
        self.sparsity = self.counts.sparsity();
        self.asked =
            Some(self.asked_zeros / self.weights.max(1) as f64).filter(|asked| asked.is_finite());
        self.squared_error = self.counts.squared_error();
        self
    }
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
    pub pruned: Option<Row>,
}

/// The report of a finished run.
#[must_use]
pub fn report(plan: &Plan, device: &DeviceInfo, outcome: &Outcome, command: Vec<String>) -> Report {
    let mut kinds: BTreeMap<String, Row> = BTreeMap::new();
    let (mut prunable, mut all) = (Row::default(), Row::default());
    let mut tensors = Vec::with_capacity(plan.tensors.len());
    for (tensor, counts) in plan.tensors.iter().zip(&outcome.counts) {
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
                let asked = plan.options.selection.target(target.in_features);
                kinds
                    .entry(target.kind.clone())
                    .or_default()
                    .add(counts, asked);
                prunable.add(counts, asked);
                all.add(counts, asked);
                let mut row = Row::default();
                row.add(counts, asked);
                record.pruned = Some(row.finish(target.kind.clone()));
            }
        }
        tensors.push(record);
    }
    let stages = outcome.stages;
    Report {
        version: env!("CARGO_PKG_VERSION"),
        command,
        input: plan.checkpoint.source.weights().path().to_owned(),
        output: outcome.finished.path.clone(),
        device: device.clone(),
        score: plan.score.name,
        selection: (&plan.options.selection).into(),
        norms: plan
            .options
            .norms
            .as_ref()
            .filter(|_| plan.uses_norms())
            .map(|norms| NormsReport {
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
        warnings: plan.warnings.clone(),
    }
}

/// The SHA-256 of every weight file of an output, by file name.
///
/// # Errors
/// When one cannot be read.
pub fn checksums(plan: &Plan, output: &Path) -> std::io::Result<BTreeMap<String, String>> {
    use sha2::Digest as _;
    let is_directory = output.is_dir();
    let mut sums = BTreeMap::new();
    for shard in &plan.checkpoint.shards {
        let path = if is_directory {
            output.join(&shard.file_name)
        } else {
            output.to_owned()
        };
        let mut hash = sha2::Sha256::new();
        let mut file = std::fs::File::open(&path)?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            let read = std::io::Read::read(&mut file, &mut buffer)?;
            if read == 0 {
                break;
            }
            hash.update(&buffer[..read]);
        }
        let hex = hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let name = path
            .file_name()
            .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
        sums.insert(name, hex);
    }
    Ok(sums)
}

/// The high-water mark of this process's resident memory; Linux only.
#[must_use]
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}
