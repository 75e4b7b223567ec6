//! The flags: parsed and checked for form here, acted on elsewhere.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use swiftprune_wgpu::device::DeviceChoice;
use swiftprune_wgpu::passes::ewma::Ewma;
use swiftprune_wgpu::passes::n_of_m::Pattern;
use swiftprune_wgpu::scores::SCORES;

/// Prune large language models on any device: Vulkan, Metal, DX12, GL or no GPU at all. The same bytes come out on each.
#[derive(Debug, Parser)]
#[command(
    name = "swiftprune-wgpu",
    version,
    max_term_width = 100,
    disable_help_subcommand = true
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Print errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print a line for every tensor, and what wgpu has to say
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub verbose: bool,
    /// When to use colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto")]
    pub color: When,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Zero the weights that matter least, and write the checkpoint anew
    Prune(Box<Prune>),
    /// List the adapters this machine has, and which one `auto` takes
    Devices(Devices),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Devices {
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
}

/// Zero the weights that matter least, and write the checkpoint anew.
///
/// The output has the same tensors, dtypes and shapes; every weight that is kept keeps its bits. The input is never
/// written to, and the output appears whole or not at all.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu prune model.safetensors
  swiftprune-wgpu prune ./SmolLM2-135M --norms norms.safetensors --pattern 2:4
  swiftprune-wgpu prune ./Llama-3-8B --norms imatrix.gguf --sparsity 0.3 -o ./out")]
pub(super) struct Prune {
    /// A .safetensors file, a .safetensors.index.json, a model directory, or org/name in the local Hugging Face cache
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Where to write; beside MODEL with `-pruned` in the name if not given
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Fraction of each row to zero, exactly: 0.5 or 50% [default: 0.5]
    #[arg(long, value_name = "P", value_parser = sparsity, help_heading = "How much", conflicts_with_all = ["pattern", "lambda"])]
    pub sparsity: Option<f64>,
    /// N kept of every M weights along the input, such as 2:4 (some tools count the zeros instead)
    #[arg(long, value_name = "N:M", value_parser = pattern, help_heading = "How much", conflicts_with = "lambda")]
    pub pattern: Option<Pattern>,
    /// Open loop: zero what scores below this many deviations from the moving average; sparsity falls where it falls
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "How much"
    )]
    pub lambda: Option<f64>,

    /// What a weight is worth [default: swiftprune; ria when there are no norms]
    #[arg(long, value_name = "SCORE", value_parser = PossibleValuesParser::new(SCORES.iter().map(|score| score.name)), help_heading = "Which weights")]
    pub score: Option<String>,
    /// Compare scores with the block-wise moving average of the row, or exactly as they are
    #[arg(
        long,
        value_name = "RULE",
        default_value = "ewma",
        help_heading = "Which weights"
    )]
    pub selection: Rule,
    /// Columns a block of the moving average: a power of two from 16 to 4096
    #[arg(
        long,
        value_name = "B",
        value_parser = block_size,
        default_value = "128",
        help_heading = "Which weights"
    )]
    pub block_size: usize,
    /// Gain of the moving average: 1, 1/2, 1/4 ... 1/128
    #[arg(long, value_name = "G", value_parser = gain_shift, default_value = "1/8", help_heading = "Which weights")]
    pub gain: u32,
    /// Column norms of the activations: a norms file, or a llama.cpp importance matrix (.gguf, .dat)
    #[arg(long, value_name = "FILE", help_heading = "Which weights")]
    pub norms: Option<PathBuf>,

    /// Prune tensors whose names match, instead of the decoder blocks' linear weights; repeatable
    #[arg(long, value_name = "GLOB", help_heading = "Which tensors")]
    pub include: Vec<String>,
    /// Leave tensors alone whose names match; repeatable
    #[arg(long, value_name = "GLOB", help_heading = "Which tensors")]
    pub exclude: Vec<String>,
    /// Leave NaN and infinities alone and count them, instead of refusing them
    #[arg(long, help_heading = "Which tensors")]
    pub keep_non_finite: bool,

    /// auto, cpu, gpu, or an adapter's index or part of its name (see `devices`)
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        help_heading = "Running"
    )]
    pub device: DeviceChoice,
    /// Threads of the CPU device [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024), help_heading = "Running")]
    pub threads: Option<u16>,
    /// Print what would happen to every tensor, and write nothing
    #[arg(long, help_heading = "Running")]
    pub dry_run: bool,
    /// Replace an existing output (never the input)
    #[arg(long, help_heading = "Running")]
    pub force: bool,
    /// Flush the output to the disk before it gets its name
    #[arg(long, help_heading = "Running")]
    pub sync: bool,

    /// Write the report to a .json file
    #[arg(long, value_name = "FILE", value_parser = report_path, help_heading = "Reporting")]
    pub report: Option<PathBuf>,
    /// Write the report (with --dry-run, the plan) as JSON to stdout
    #[arg(long, help_heading = "Reporting")]
    pub json: bool,
    /// Also print the SHA-256 of the output (hashing takes longer than pruning)
    #[arg(long, help_heading = "Reporting")]
    pub checksum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Rule {
    /// Against the block-wise moving average
    Ewma,
    /// The lowest scores of each row
    Exact,
}

impl Prune {
    /// The moving average's constants; each was checked when it was parsed.
    pub(super) fn ewma(&self) -> Ewma {
        Ewma::new(self.block_size, self.gain).unwrap_or_default()
    }
}

fn sparsity(text: &str) -> Result<f64, String> {
    let (number, scale) = text
        .strip_suffix('%')
        .map_or((text, 1.0), |number| (number, 100.0));
    let value: f64 = number
        .trim()
        .parse()
        .map_err(|_| "give a fraction such as 0.5, or 50%".to_owned())?;
    if (0.0..=scale).contains(&value) {
        Ok(value / scale)
    } else if scale == 1.0 && (1.0..=100.0).contains(&value) {
        Err(format!(
            "a fraction of each row lies between 0 and 1; for percent write {text}%"
        ))
    } else {
        Err("a fraction of each row lies between 0 and 1".to_owned())
    }
}

fn pattern(text: &str) -> Result<Pattern, String> {
    let wrong = || {
        format!(
            "give N:M with 1 <= N < M <= {}, such as 2:4: N kept of every M",
            Pattern::MAX_M
        )
    };
    let (n, m) = text.split_once(':').ok_or_else(wrong)?;
    let (Ok(n), Ok(m)) = (n.parse(), m.parse()) else {
        return Err(wrong());
    };
    Pattern::new(n, m).ok_or_else(wrong)
}

fn block_size(text: &str) -> Result<usize, String> {
    let size = text
        .parse()
        .ok()
        .filter(|&size| Ewma::new(size, 0).is_some());
    size.ok_or_else(|| "give a power of two from 16 to 4096".to_owned())
}

fn gain_shift(text: &str) -> Result<u32, String> {
    let wrong = || "give 1 or a power of two such as 1/8, down to 1/128".to_owned();
    let divisor: u32 = match text.strip_prefix("1/") {
        Some(divisor) => divisor.parse().map_err(|_| wrong())?,
        None if text == "1" => 1,
        None => return Err(wrong()),
    };
    if divisor.is_power_of_two() && divisor <= 128 {
        Ok(divisor.ilog2())
    } else {
        Err(wrong())
    }
}

fn report_path(text: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(text);
    match path.extension() {
        Some(extension) if extension.eq_ignore_ascii_case("json") => Ok(path),
        _ => Err("the report is JSON: give a name that ends in .json".to_owned()),
    }
}
