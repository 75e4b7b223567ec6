//! The flags of `sweep`.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use clap::builder::PossibleValuesParser;
use swiftprune_wgpu::calibration::MAX_RANK;
use swiftprune_wgpu::plan::{Pattern, SCORES};

use super::no_effect::{self, NoEffect};
use super::values::{
    AllocationName, DeviceArgs, NormsFlags, RuleName, TextChoice, pattern, ridge, sparsity, tokens,
};

/// Measure the quality of many ways to prune, without writing any checkpoint.
///
/// There is a cell for each combination of --score, --compensate, --allocate and of --sparsity and --pattern: its perplexity with
/// standard error, and the difference from the dense model, paired window by window. The perplexity is that of the checkpoint
/// which `prune` would write. The table goes to stdout.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu sweep ./SmolLM2-135M --sparsity 0.3,0.4,0.5,0.6 -o sweep.csv -o sweep.html
  swiftprune-wgpu sweep ./SmolLM2-135M --sparsity 50% --pattern 2:4 --score swiftprune,wanda --compensate off,on
  swiftprune-wgpu sweep ./SmolLM2-135M --allocate uniform,atp --eval-text my.txt")]
pub(super) struct Sweep {
    /// A model directory, or its weights with config.json and tokenizer.json beside them
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Files for the table, by their names' ends: .csv, .json, .html (can be repeated). Finished cells are kept in FILE.state
    /// beside the first: the same command goes on after a stop
    #[arg(short, long, value_name = "FILE", value_parser = output)]
    pub output: Vec<PathBuf>,
    /// Where finished cells are kept [default: the first --output with `.state` added; without --output, nowhere]
    #[arg(long, value_name = "FILE")]
    pub state: Option<PathBuf>,
    /// Replace existing files of --output
    #[arg(long, requires = "output")]
    pub force: bool,

    /// Sparsities, as fractions or percentages [default, without --pattern: 0.3,0.4,0.5,0.6,0.7]
    #[arg(long, value_name = "P,...", value_parser = sparsity, value_delimiter = ',', help_heading = "Cells")]
    pub sparsity: Vec<f64>,
    /// Patterns: N of every M consecutive weights are kept
    #[arg(long, value_name = "N:M,...", value_parser = pattern, value_delimiter = ',', help_heading = "Cells")]
    pub pattern: Vec<Pattern>,
    /// Scores [default: swiftprune, or ria without norms]
    #[arg(long, value_name = "SCORE,...", value_parser = PossibleValuesParser::new(SCORES.iter().map(|score| score.name)), value_delimiter = ',', help_heading = "Cells")]
    pub score: Vec<String>,
    /// Whether kept weights are compensated: off, on, or the rank of the sketch [default: off; on, if no value is given]
    #[arg(
        long,
        value_name = "C,...",
        num_args = 0..=1,
        default_missing_value = "on",
        value_delimiter = ',',
        value_parser = compensate,
        help_heading = "Cells"
    )]
    pub compensate: Vec<CompensateChoice>,
    /// What compensation adds to every column norm, relative to their mean [default: 0.03]
    #[arg(long, value_name = "X", value_parser = ridge, requires = "compensate", help_heading = "Cells")]
    pub ridge: Option<f64>,
    /// How a sparsity is shared out over the decoder blocks; patterns are not shared out [default: uniform]
    #[arg(
        long,
        value_name = "RULE,...",
        value_delimiter = ',',
        help_heading = "Cells"
    )]
    pub allocate: Vec<AllocationName>,
    /// Half of the distance between the least and the most pruned block, of all rules but uniform
    #[arg(long, value_name = "S", value_parser = sparsity, requires = "allocate", help_heading = "Cells")]
    pub spread: Option<f64>,
    /// Compare scores with a moving average along their row (ewma), or take the lowest scores of the row (exact) [default: ewma]
    #[arg(long, value_name = "RULE", help_heading = "Cells")]
    pub selection: Option<RuleName>,
    /// Prune tensors whose names match, instead of the linear weights of the decoder blocks (can be repeated)
    #[arg(long, value_name = "GLOB", help_heading = "Cells")]
    pub include: Vec<String>,
    /// Do not prune tensors whose names match (can be repeated)
    #[arg(long, value_name = "GLOB", help_heading = "Cells")]
    pub exclude: Vec<String>,
    /// Leave NaN and infinite weights unchanged, instead of stopping with an error
    #[arg(long, help_heading = "Cells")]
    pub keep_non_finite: bool,

    /// Text to measure perplexity on [default: the built-in held-out text]
    #[arg(long, value_name = "FILE", help_heading = "Texts")]
    pub eval_text: Option<PathBuf>,
    /// Maximum number of tokens to measure on [default: all whole windows of the text]
    #[arg(long, value_name = "N", value_parser = tokens, help_heading = "Texts")]
    pub eval_tokens: Option<usize>,
    /// Window length in tokens, of calibration and evaluation [default: 512, or the model's maximum if that is less]
    #[arg(long, value_name = "N", value_parser = tokens, help_heading = "Texts")]
    pub context: Option<usize>,
    /// Read column norms from a file: one from `calibrate`, or a llama.cpp importance matrix (.gguf, .dat)
    #[arg(long, value_name = "FILE", help_heading = "Texts", conflicts_with_all = ["calibration", "tokens"])]
    pub norms: Option<PathBuf>,
    /// Text to calibrate on when there is no --norms: a file, `builtin`, or `none` to prune by the weights alone [default:
    /// builtin]
    #[arg(long, value_name = "TEXT", help_heading = "Texts")]
    pub calibration: Option<TextChoice>,
    /// Number of calibration tokens [default: 4096]
    #[arg(long, value_name = "N", value_parser = tokens, help_heading = "Texts")]
    pub tokens: Option<usize>,

    #[command(flatten, next_help_heading = "Running")]
    pub on: DeviceArgs,
    /// Write JSON to stdout in place of the table
    #[arg(long, help_heading = "Running")]
    pub json: bool,
}

impl Sweep {
    /// What the flags say of column norms.
    pub(super) fn norms_flags(&self) -> NormsFlags<'_> {
        let is_compensated = |choice: &CompensateChoice| *choice != CompensateChoice::Off;
        let needs_scores = |name: &AllocationName| name.rule(None).needs_scores();
        NormsFlags {
            norms: self.norms.as_ref(),
            calibration: self.calibration.as_ref(),
            tokens: self.tokens,
            // The evaluation takes it in any case.
            context: None,
            scores: &self.score,
            is_used_by_others: self.compensate.iter().any(is_compensated)
                || self.allocate.iter().any(needs_scores),
        }
    }

    /// Refuses flags that would do nothing beside the others, whatever the model.
    pub(super) fn check(&self) -> Result<(), NoEffect> {
        let is_patterns_alone = !self.pattern.is_empty() && self.sparsity.is_empty();
        let patterns = is_patterns_alone.then(|| "with --pattern and no --sparsity".to_owned());
        let is_uniform = self
            .allocate
            .iter()
            .all(|name| *name == AllocationName::Uniform);
        let uniform = is_uniform.then(|| "with --allocate uniform".to_owned());
        let is_off = (self.compensate.iter()).all(|choice| *choice == CompensateChoice::Off);
        let off = is_off.then(|| "with --compensate off".to_owned());
        no_effect::check(
            [
                ("--selection", self.selection.is_some(), patterns.clone()),
                ("--allocate", !self.allocate.is_empty(), patterns),
                ("--spread", self.spread.is_some(), uniform),
                ("--ridge", self.ridge.is_some(), off),
            ]
            .into_iter()
            .chain(self.norms_flags().flags()),
        )
    }
}

/// Whether kept weights are compensated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum CompensateChoice {
    Off,
    On,
    Rank(usize),
}

fn compensate(text: &str) -> Result<CompensateChoice, String> {
    match text {
        "off" => Ok(CompensateChoice::Off),
        "on" => Ok(CompensateChoice::On),
        _ => {
            let rank = text.parse().ok().filter(|n| (1..=MAX_RANK).contains(n));
            rank.map(CompensateChoice::Rank).ok_or_else(|| {
                format!("give off, on, or a rank from 1 to {MAX_RANK}, as in off,on")
            })
        }
    }
}

/// What a file of `sweep` may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableFormat {
    Csv,
    Json,
    Html,
}

impl TableFormat {
    /// By the end of the file's name.
    pub(super) fn of(path: &std::path::Path) -> Option<Self> {
        let end = path.extension()?.to_str()?.to_ascii_lowercase();
        Some(match end.as_str() {
            "csv" => Self::Csv,
            "json" => Self::Json,
            "html" => Self::Html,
            _ => return None,
        })
    }
}

fn output(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match TableFormat::of(&path) {
        Some(_) => Ok(path),
        None => Err("the name must end in .csv, .json or .html".to_owned()),
    }
}
