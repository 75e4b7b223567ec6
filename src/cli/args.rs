//! The flags: parsed and checked for form here, acted on elsewhere.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::calibration::DEFAULT_TOKENS;
use swiftprune_wgpu::device::DeviceChoice;
use swiftprune_wgpu::plan::SCORES;
use swiftprune_wgpu::plan::{Ewma, Pattern};

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
    /// Measure the column norms of the activations, to prune with them later
    Calibrate(Calibrate),
    /// Measure perplexity, of one checkpoint or of two
    Eval(Eval),
    /// List the adapters this machine has, and which one `auto` takes
    Devices(Devices),
    /// Check that a device gives the bits that every device must
    Selftest(Selftest),
    /// Measure what a device reaches, or compare two measurements
    Bench(Bench),
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
  swiftprune-wgpu prune ./SmolLM2-135M
  swiftprune-wgpu prune ./SmolLM2-135M --pattern 2:4 --calibration my.txt --eval
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
    pub selection: RuleName,
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

    /// Text to calibrate on when there is no --norms: a file, `builtin`, or `none` to prune by the weights alone [default:
    /// builtin]
    #[arg(long, value_name = "TEXT", help_heading = "Which weights")]
    pub calibration: Option<TextChoice>,
    /// Calibration tokens
    #[arg(long, value_name = "N", value_parser = tokens, default_value_t = DEFAULT_TOKENS, help_heading = "Which weights")]
    pub tokens: usize,
    /// Tokens a window of calibration and of --eval [default: 512, or what the model was made for]
    #[arg(long, value_name = "N", value_parser = tokens, help_heading = "Which weights")]
    pub context: Option<usize>,

    /// Prune tensors whose names match, instead of the decoder blocks' linear weights; repeatable
    #[arg(long, value_name = "GLOB", help_heading = "Which tensors")]
    pub include: Vec<String>,
    /// Leave tensors alone whose names match; repeatable
    #[arg(long, value_name = "GLOB", help_heading = "Which tensors")]
    pub exclude: Vec<String>,
    /// Leave NaN and infinities alone and count them, instead of refusing them
    #[arg(long, help_heading = "Which tensors")]
    pub keep_non_finite: bool,

    #[command(flatten, next_help_heading = "Running")]
    pub on: DeviceArgs,
    /// Print what would happen to every tensor, and write nothing
    #[arg(long, help_heading = "Running")]
    pub dry_run: bool,
    /// Replace an existing output (never the input)
    #[arg(long, help_heading = "Running")]
    pub force: bool,
    /// Flush the output to the disk before it gets its name
    #[arg(long, help_heading = "Running")]
    pub sync: bool,

    /// Measure the perplexity of the model before and after
    #[arg(long, conflicts_with = "dry_run", help_heading = "Reporting")]
    pub eval: bool,
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

/// Measure the column norms of the activations, to prune with them later.
///
/// The norms are a safetensors file: one vector for each linear weight of the decoder blocks, and the text, tokens and
/// window in its metadata. `prune --norms` takes it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu calibrate ./SmolLM2-135M -o norms.safetensors
  swiftprune-wgpu calibrate ./SmolLM2-135M --text my.txt --tokens 32768 -o norms.safetensors")]
pub(super) struct Calibrate {
    /// A model directory, or its weights with config.json and tokenizer.json beside them
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Where to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Text to calibrate on [default: the built-in one]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Calibration tokens
    #[arg(long, value_name = "N", value_parser = tokens, default_value_t = DEFAULT_TOKENS)]
    pub tokens: usize,
    /// Tokens a window [default: 512, or what the model was made for]
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub context: Option<usize>,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

/// Measure perplexity, of one checkpoint or of two.
///
/// Perplexity is exp of the mean loss per token, over windows that do not overlap; the first token of each is not
/// predicted. Numbers compare only on the same text with the same window and tokenizer.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu eval ./SmolLM2-135M
  swiftprune-wgpu eval ./SmolLM2-135M --against ./SmolLM2-135M-pruned --text my.txt")]
pub(super) struct Eval {
    /// A model directory, or its weights with config.json and tokenizer.json beside them
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// A second checkpoint, measured on the same windows
    #[arg(long, value_name = "MODEL")]
    pub against: Option<String>,
    /// Text to measure on [default: the built-in held-out one]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Tokens to measure on, at most [default: all whole windows of the text]
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub tokens: Option<usize>,
    /// Tokens a window [default: 512, or what the model was made for]
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub context: Option<usize>,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
}

/// Check that a device gives the bits that every device must.
///
/// Every pass by itself and all joined, every dtype, score and rule, on awkward shapes, then a small model from file to
/// file: the SHA-256 of each must be the one in this program. A line for each device, then a text to paste into a report.
/// Exit code 3 says that a device differs.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu selftest
  swiftprune-wgpu selftest --device vulkan --json")]
pub(super) struct Selftest {
    /// all, cpu, gpu, or an adapter's index or part of its name (see `devices`)
    #[arg(long, value_name = "DEVICE", default_value = "all")]
    pub device: DeviceChoice,
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
    /// Print one device's sums, as sha256sum does, and compare nothing
    #[arg(long, conflicts_with = "json")]
    pub sums: bool,
}

/// Measure what a device reaches: its own copy, every pass, the passes joined, a whole file, a calibration.
///
/// Medians with the distance of their quartiles, and outliers as multiples of the median. Times are the device's own where it
/// has a clock.
/// Records say the device, driver, back end, processor, operating system and version.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu bench
  swiftprune-wgpu bench --device all --json > mine.json
  swiftprune-wgpu bench --compare mine.json theirs.json")]
pub(super) struct Bench {
    /// A small part of every matrix, one layer and few tokens
    #[arg(long)]
    pub quick: bool,
    /// Samples a case
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub samples: u16,
    /// How weights are stored; more than once for more
    #[arg(long, value_name = "DTYPE", value_parser = dtype, default_value = "bf16")]
    pub dtype: Vec<Dtype>,
    /// Where to put a temporary checkpoint of 0.6 GB and its copies [default: the system's place]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Leave out what needs the temporary checkpoint: whole files and calibration
    #[arg(long, conflicts_with = "dir")]
    pub no_files: bool,
    /// Write the records as JSON to stdout
    #[arg(long, conflicts_with = "markdown")]
    pub json: bool,
    /// Write tables for a Markdown document to stdout
    #[arg(long)]
    pub markdown: bool,
    /// Compare two files of records instead
    #[arg(long, value_names = ["A", "B"], num_args = 2)]
    pub compare: Vec<PathBuf>,
    #[command(flatten)]
    pub on: DeviceArgs,
}

fn dtype(name: &str) -> Result<Dtype, String> {
    let found = Dtype::ALL
        .into_iter()
        .find(|dtype| dtype.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| "bf16, f16 or f32".to_owned())
}

/// Where to compute.
#[derive(Debug, ClapArgs)]
pub struct DeviceArgs {
    /// auto, cpu, gpu, or an adapter's index or part of its name (see `devices`)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Threads of the CPU device [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Which text to calibrate on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TextChoice {
    Builtin,
    None,
    File(PathBuf),
}

impl std::str::FromStr for TextChoice {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "builtin" => Self::Builtin,
            "none" => Self::None,
            file => Self::File(file.into()),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RuleName {
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

fn tokens(text: &str) -> Result<usize, String> {
    let tokens = text.parse().ok().filter(|n| (1..=1 << 24).contains(n));
    tokens.ok_or_else(|| format!("give a number from 1 to {}", 1 << 24))
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
