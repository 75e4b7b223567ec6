//! A sweep as data: the quality of every cell, beside that of the dense model.

use serde::{Deserialize, Serialize};

/// The version of the form of a sweep's JSON: `docs/sweep.schema.json`.
pub const SWEEP_SCHEMA_VERSION: u32 = 1;

/// A sweep: one model, one text, many ways to prune.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// [`SWEEP_SCHEMA_VERSION`].
    pub sweep_schema_version: u32,
    /// Version of this program.
    pub version: String,
    /// The command line.
    pub command: Vec<String>,
    /// The model.
    pub model: String,
    /// Where the forward pass ran.
    pub device: String,
    /// Where the column norms came from, in a sentence; none where no cell uses any.
    pub norms: Option<String>,
    /// The text that the perplexity was measured on.
    pub text: String,
    /// Its SHA-256.
    pub text_sha256: String,
    /// What the tokenizer put before every window, or `none`.
    #[serde(default)]
    pub prefix: String,
    /// Tokens a window.
    pub context: usize,
    /// Windows.
    pub windows: usize,
    /// Tokens that were predicted: all of each window but the prefix, or but the first where there is none.
    pub tokens: usize,
    /// The model as it is.
    pub dense: Quality,
    /// The cells, in the order in which they were asked for.
    pub cells: Vec<SweepCell>,
    /// What the user was warned of.
    pub warnings: Vec<String>,
}

/// How well a model predicts the text.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Quality {
    /// `exp` of the mean loss; JSON has null for what is no finite number.
    #[serde(deserialize_with = "or_nan")]
    pub perplexity: f64,
    /// Its standard error over windows, to first order: perplexity times that of the mean loss; none for a single window.
    pub perplexity_standard_error: Option<f64>,
    /// Mean loss, in nats per token.
    #[serde(deserialize_with = "or_nan")]
    pub loss: f64,
    /// Its standard error over windows.
    pub loss_standard_error: Option<f64>,
}

impl Quality {
    /// Of a mean loss in nats per token, with its standard error.
    #[must_use]
    pub fn of_loss(loss: f64, standard_error: Option<f64>) -> Self {
        let perplexity = loss.exp();
        Self {
            perplexity,
            perplexity_standard_error: standard_error.map(|error| perplexity * error),
            loss,
            loss_standard_error: standard_error,
        }
    }
}

/// A number, or null in the place of one that is not finite.
fn or_nan<'de, D: serde::Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    Ok(Option::<f64>::deserialize(from)?.unwrap_or(f64::NAN))
}

/// One way to prune, and what is left of the model's quality.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SweepCell {
    /// The score's name.
    pub score: String,
    /// `ewma`, `exact` or `pattern`.
    pub rule: String,
    /// The fraction of each row that was asked for, or `N:M`.
    pub pruned: String,
    /// Rank of the sketch by which kept weights were compensated; none where they keep their bits.
    pub compensation_rank: Option<usize>,
    /// The ridge of that.
    pub ridge: Option<f64>,
    /// How the sparsity was shared out over the blocks.
    pub allocation: String,
    /// Half of the distance between the least and the most pruned block.
    pub spread: Option<f64>,
    /// Zeros over all prunable weights that the forward pass reads.
    pub sparsity: f64,
    /// How well the pruned model predicts the text.
    #[serde(flatten)]
    pub quality: Quality,
    /// Its mean loss less the dense model's, in nats per token.
    #[serde(deserialize_with = "or_nan")]
    pub difference: f64,
    /// The standard error of that difference, paired window by window; none for a single window.
    pub difference_standard_error: Option<f64>,
    /// The output error that compensation leaves, of that of pruning alone.
    pub output_error_left: Option<f64>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// The names of the columns, in their order.
const COLUMNS: [&str; 15] = [
    "score",
    "rule",
    "pruned",
    "compensation_rank",
    "ridge",
    "allocation",
    "spread",
    "sparsity",
    "perplexity",
    "perplexity_standard_error",
    "loss",
    "loss_standard_error",
    "difference",
    "difference_standard_error",
    "seconds",
];

impl SweepReport {
    /// The table as RFC 4180 has it: a line of names, the dense model, a line for each cell. What a line does not have is empty.
    #[must_use]
    pub fn to_csv(&self) -> String {
        let optional = |number: Option<f64>| number.map_or_else(String::new, |x| x.to_string());
        let of_quality = |quality: &Quality| {
            [
                quality.perplexity.to_string(),
                optional(quality.perplexity_standard_error),
                quality.loss.to_string(),
                optional(quality.loss_standard_error),
            ]
        };
        let mut lines = vec![COLUMNS.map(str::to_owned).to_vec()];
        let mut dense = vec!["dense".to_owned()];
        dense.resize(7, String::new());
        dense.push("0".to_owned());
        dense.extend(of_quality(&self.dense));
        dense.resize(COLUMNS.len(), String::new());
        lines.push(dense);
        lines.extend(self.cells.iter().map(|cell| {
            let mut line = vec![
                cell.score.clone(),
                cell.rule.clone(),
                cell.pruned.clone(),
                (cell.compensation_rank).map_or_else(String::new, |rank| rank.to_string()),
                optional(cell.ridge),
                cell.allocation.clone(),
                optional(cell.spread),
                cell.sparsity.to_string(),
            ];
            line.extend(of_quality(&cell.quality));
            line.push(cell.difference.to_string());
            line.push(optional(cell.difference_standard_error));
            line.push(cell.seconds.to_string());
            line
        }));
        // No field holds a comma, a quote or an end of line: names of this program, and numbers.
        let lines = lines.into_iter().map(|line| line.join(",") + "\r\n");
        lines.collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A sweep of one cell.
    pub(crate) fn example() -> SweepReport {
        SweepReport {
            sweep_schema_version: SWEEP_SCHEMA_VERSION,
            version: "0.1.0".to_owned(),
            command: vec!["swiftprune-wgpu".to_owned(), "sweep".to_owned()],
            model: "model".to_owned(),
            device: "CPU".to_owned(),
            norms: None,
            text: "a text".to_owned(),
            text_sha256: "00".to_owned(),
            prefix: "none".to_owned(),
            context: 512,
            windows: 8,
            tokens: 4088,
            dense: Quality::of_loss(3.0, Some(0.25)),
            cells: vec![SweepCell {
                score: "wanda".to_owned(),
                rule: "ewma".to_owned(),
                pruned: "0.5".to_owned(),
                compensation_rank: None,
                ridge: None,
                allocation: "uniform".to_owned(),
                spread: None,
                sparsity: 0.5,
                quality: Quality::of_loss(3.5, Some(0.25)),
                difference: 0.5,
                difference_standard_error: Some(0.0625),
                output_error_left: None,
                seconds: 1.5,
            }],
            warnings: Vec::new(),
        }
    }

    #[test]
    fn every_line_of_the_csv_has_a_field_for_every_column() {
        let csv = example().to_csv();
        let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| line.len() == COLUMNS.len()));
        assert_eq!(lines[1][0], "dense");
        let column = |name| COLUMNS.iter().position(|column| *column == name).unwrap();
        assert_eq!(lines[2][column("difference")], "0.5");
        assert_eq!(lines[2][column("perplexity")], 3.5_f64.exp().to_string());
        assert_eq!(lines[2][column("ridge")], "");
    }

    #[test]
    fn a_model_that_pruning_has_destroyed_is_read_again() {
        let mut sweep = example();
        sweep.cells[0].quality = Quality::of_loss(800.0, Some(1.0));
        let json = serde_json::to_string(&sweep).unwrap();
        let again: SweepReport = serde_json::from_str(&json).unwrap();
        assert!(again.cells[0].quality.perplexity.is_nan());
        assert_eq!(again.cells[0].quality.loss, 800.0);
    }

    #[test]
    fn the_error_of_a_perplexity_is_that_of_the_loss_times_its_slope() {
        let quality = Quality::of_loss(2.0, Some(1e-6));
        let above = Quality::of_loss(2.0 + 1e-6, None);
        let wanted = above.perplexity - quality.perplexity;
        assert!((quality.perplexity_standard_error.unwrap() / wanted - 1.0).abs() < 1e-5);
    }
}
