//! The flags: parsed and checked for form here, acted on elsewhere.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};
use swiftprune_wgpu::Dtype;
use swiftprune_wgpu::calibration::{DEFAULT_TOKENS, MAX_RANK};
use swiftprune_wgpu::device::DeviceChoice;
use swiftprune_wgpu::parts::Part;
use swiftprune_wgpu::plan::{Allocation, Ewma, Pattern, SCORES};

use super::no_effect::{self, NoEffect};
use super::sweep_args::Sweep;
use super::values::{
    AllocationName, DeviceArgs, NormsFlags, RuleName, TextChoice, pattern, ridge, sparsity, tokens,
};

/// Prune large language models on a GPU (Vulkan, Metal, DX12, GL) or on the CPU. Every device gives the same bytes.
#[derive(Debug, Parser)]
#[command(
    name = "swiftprune-wgpu",
    version,
    max_term_width = 100,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    after_help = "Examples:
  swiftprune-wgpu sweep ./SmolLM2-135M --sparsity 0.3,0.4,0.5,0.6    what each sparsity costs
  swiftprune-wgpu prune ./SmolLM2-135M --sparsity 0.4 --report run.html    prune, and look
  swiftprune-wgpu verify ./SmolLM2-135M ./SmolLM2-135M-pruned --sparsity 0.4"
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Print results and errors only
    #[arg(short, long, global = true)]
    pub quiet: bool,
    /// Print a line for every tensor, and wgpu's log messages
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
    /// Set the least important weights to zero and write a new checkpoint
    Prune(Box<Prune>),
    /// Measure column norms (sums of squares of each layer's inputs) and write them to a file
    Calibrate(Calibrate),
    /// Measure the perplexity of one checkpoint, or compare two
    Eval(Eval),
    /// Measure the quality of many ways to prune, without writing any checkpoint
    Sweep(Box<Sweep>),
    /// Show what a checkpoint holds, and what `prune` would do to each tensor
    Inspect(Inspect),
    /// Put the parts of a run together (`prune --part`)
    Merge(Merge),
    /// Make a page of reports that `prune` and `sweep` wrote as JSON
    Report(Report),
    /// Check a pruned checkpoint against its original, byte by byte
    Verify(Verify),
    /// List the devices of this machine, and which one `auto` uses
    Devices(Devices),
    /// Check that a device computes exactly what every device must compute
    Selftest(Selftest),
    /// Measure the speed of a device, or compare two measurements
    Bench(Bench),
    /// Print completions for a shell
    Completions(Completions),
    /// Print the manual page of the program or of a command, for `man`
    Man(Man),
}

/// Print completions for a shell.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu completions bash > ~/.local/share/bash-completion/completions/swiftprune-wgpu
  swiftprune-wgpu completions zsh > ~/.zfunc/_swiftprune-wgpu
  swiftprune-wgpu completions fish > ~/.config/fish/completions/swiftprune-wgpu.fish")]
pub(super) struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// Print the manual page of the program or of a command, for `man`.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu man > ~/.local/share/man/man1/swiftprune-wgpu.1
  swiftprune-wgpu man prune > ~/.local/share/man/man1/swiftprune-wgpu-prune.1")]
pub(super) struct Man {
    /// A command, for example `prune`
    #[arg(value_parser = command_name)]
    pub command: Option<String>,
}

/// The name of a command that has a page.
fn command_name(text: &str) -> Result<String, String> {
    let program = <Args as clap::CommandFactory>::command();
    let mut names = program.get_subcommands().map(clap::Command::get_name);
    if names.any(|name| name == text) {
        return Ok(text.to_owned());
    }
    Err("there is no such command".to_owned())
}

#[derive(Debug, ClapArgs)]
pub(super) struct Devices {
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
}

/// Set the least important weights to zero and write a new checkpoint.
///
/// The output has the same tensors, dtypes and shapes. Weights that are not pruned keep their bits. The input is never
/// modified, and the output appears complete or not at all.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu prune ./SmolLM2-135M
  swiftprune-wgpu prune ./SmolLM2-135M --pattern 2:4 --calibration my.txt --eval
  swiftprune-wgpu prune ./Llama-3-8B --norms imatrix.gguf --sparsity 0.3 -o ./out")]
pub(super) struct Prune {
    /// A .safetensors file, a .safetensors.index.json, a model directory, or org/name in the local Hugging Face cache
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Output path [default: next to MODEL, with `-pruned` added to its name]
    #[arg(short, long, value_name = "PATH")]
    pub output: Option<PathBuf>,

    /// Set exactly this fraction of each row to zero: 0.5 or 50% [default: 0.5]
    #[arg(long, value_name = "P", value_parser = sparsity, help_heading = "How much", conflicts_with_all = ["pattern", "lambda"])]
    pub sparsity: Option<f64>,
    /// Keep N of every M consecutive weights along the input, for example 2:4 (some tools count the zeros instead)
    #[arg(long, value_name = "N:M", value_parser = pattern, help_heading = "How much", conflicts_with = "lambda")]
    pub pattern: Option<Pattern>,
    /// Fixed threshold: zero every weight whose score is below the moving average plus X deviations (a negative X
    /// prunes less); the sparsity varies
    #[arg(
        long,
        value_name = "X",
        allow_negative_numbers = true,
        help_heading = "How much"
    )]
    pub lambda: Option<f64>,

    /// How the sparsity is shared out over the decoder blocks: uniform, owl (less where there are many outliers), dlp (more where
    /// scores are high) or atp (more from block to block). The total stays the same [default: uniform]
    #[arg(
        long,
        value_name = "RULE",
        help_heading = "How much",
        conflicts_with_all = ["pattern", "lambda"]
    )]
    pub allocate: Option<AllocationName>,
    /// Half of the distance between the least and the most pruned block, as a fraction [default: 0.08 for owl, 0.15 for dlp, 0.1
    /// for atp]
    #[arg(
        long,
        value_name = "S",
        value_parser = sparsity,
        help_heading = "How much",
        requires = "allocate",
        // What is required is waived where that conflicts with another flag.
        conflicts_with_all = ["pattern", "lambda"]
    )]
    pub spread: Option<f64>,

    /// How important a weight is [default: swiftprune, or ria without norms]
    #[arg(long, value_name = "SCORE", value_parser = PossibleValuesParser::new(SCORES.iter().map(|score| score.name)), help_heading = "Which weights")]
    pub score: Option<String>,
    /// Compare scores with a moving average along their row (ewma), or take the lowest scores of the row (exact) [default: ewma]
    #[arg(
        long,
        value_name = "RULE",
        help_heading = "Which weights",
        conflicts_with_all = ["pattern", "lambda"]
    )]
    pub selection: Option<RuleName>,
    /// Block size of the moving average in columns, a power of two from 16 to 4096 [default: 128]
    #[arg(
        long,
        value_name = "B",
        value_parser = block_size,
        help_heading = "Which weights",
        conflicts_with = "pattern"
    )]
    pub block_size: Option<usize>,
    /// Gain of the moving average: 1, 1/2, 1/4 ... 1/128 [default: 1/8]
    #[arg(long, value_name = "G", value_parser = gain_shift, help_heading = "Which weights", conflicts_with = "pattern")]
    pub gain: Option<u32>,
    /// Compensate the weights that stay for those that go, by a sketch of the activations of this rank [default rank: 128, or 192
    /// with --pattern]
    #[arg(
        long,
        value_name = "RANK",
        num_args = 0..=1,
        value_parser = rank,
        help_heading = "Which weights"
    )]
    pub compensate: Option<Option<usize>>,
    /// What compensation adds to every column norm, relative to their mean [default: 0.03]
    #[arg(long, value_name = "X", value_parser = ridge, requires = "compensate", help_heading = "Which weights")]
    pub ridge: Option<f64>,
    /// Calibrate each block on what the blocks before it give once they are pruned (and compensated); takes about twice as long
    #[arg(long, conflicts_with = "norms", help_heading = "Which weights")]
    pub sequential: bool,
    /// Read column norms from a file: one from `calibrate`, or a llama.cpp importance matrix (.gguf, .dat)
    #[arg(long, value_name = "FILE", help_heading = "Which weights", conflicts_with_all = ["calibration", "tokens"])]
    pub norms: Option<PathBuf>,

    /// Text to calibrate on when there is no --norms: a file, `builtin`, or `none` to prune by the weights alone [default:
    /// builtin]
    #[arg(long, value_name = "TEXT", help_heading = "Which weights")]
    pub calibration: Option<TextChoice>,
    /// Number of calibration tokens [default: 4096]
    #[arg(long, value_name = "N", value_parser = tokens, help_heading = "Which weights")]
    pub tokens: Option<usize>,
    /// Window length in tokens, also used by --eval [default: 512, or the model's maximum if that is less]
    #[arg(long, value_name = "N", value_parser = tokens, help_heading = "Which weights")]
    pub context: Option<usize>,

    /// Prune tensors whose names match, instead of the linear weights of the decoder blocks (can be repeated)
    #[arg(long, value_name = "GLOB", help_heading = "Which tensors")]
    pub include: Vec<String>,
    /// Do not prune tensors whose names match (can be repeated)
    #[arg(long, value_name = "GLOB", help_heading = "Which tensors")]
    pub exclude: Vec<String>,
    /// Leave NaN and infinite weights unchanged and count them, instead of stopping with an error
    #[arg(long, help_heading = "Which tensors")]
    pub keep_non_finite: bool,

    #[command(flatten, next_help_heading = "Running")]
    pub on: DeviceArgs,
    /// Print what would happen to every tensor, and write nothing
    #[arg(
        long,
        help_heading = "Running",
        conflicts_with_all = ["keep_non_finite", "force", "sync", "report", "no_card", "checksum"]
    )]
    pub dry_run: bool,
    /// Replace an existing output and existing reports (never the input)
    #[arg(long, help_heading = "Running")]
    pub force: bool,
    /// Flush the output to disk before moving it into place
    #[arg(long, help_heading = "Running")]
    pub sync: bool,
    /// Prune only the K-th of N shares of the files of weights, into OUTPUT.parts; `merge` makes OUTPUT of all parts. Needs
    /// --norms FILE or --calibration none
    #[arg(
        long,
        value_name = "K/N",
        help_heading = "Running",
        conflicts_with_all = ["dry_run", "sync", "eval", "verify", "checksum", "report", "no_card"]
    )]
    pub part: Option<Part>,
    /// Keep finished files of weights in OUTPUT.parts if the run is stopped, and go on with those that an earlier run kept
    #[arg(long, help_heading = "Running", conflicts_with = "dry_run")]
    pub resume: bool,

    /// Measure the perplexity of the model before and after
    #[arg(long, conflicts_with = "dry_run", help_heading = "Reporting")]
    pub eval: bool,
    /// Write the report to a file: a page to look at (.html), or data (.json) (can be repeated)
    #[arg(long, value_name = "FILE", value_parser = report_path, help_heading = "Reporting")]
    pub report: Vec<PathBuf>,
    /// Leave the README.md of the output as the original's, and write no report.json beside it
    #[arg(long, help_heading = "Reporting")]
    pub no_card: bool,
    /// Write the report (with --dry-run, the plan) as JSON to stdout
    #[arg(long, help_heading = "Reporting")]
    pub json: bool,
    /// Read the output back and compare it with the original: only the pruned weights may differ, and all that were asked for
    /// must be zero
    #[arg(long, conflicts_with = "dry_run", help_heading = "Reporting")]
    pub verify: bool,
    /// Also print the SHA-256 of the output (hashing takes longer than pruning)
    #[arg(long, help_heading = "Reporting")]
    pub checksum: bool,
}

/// Show what a checkpoint holds, and what `prune` would do to each tensor.
///
/// Reads every weight: zeros, N:M patterns that hold along the input, NaN and infinities, the least, mean and largest |w|. It
/// also opens checkpoints that `prune` refuses, and says why.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu inspect ./SmolLM2-135M
  swiftprune-wgpu inspect ./SmolLM2-135M-2-4 --include '*down_proj*' --json")]
pub(super) struct Inspect {
    /// A .safetensors file, a .safetensors.index.json, a model directory, or org/name in the local Hugging Face cache
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// Only tensors whose names match (can be repeated)
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Not the tensors whose names match (can be repeated)
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
    /// Number of threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Put the parts of a run together, to what a single run would have written.
///
/// Every part must be there, of the same input, options, norms and version. A file that the file system says to be unchanged
/// since it was hashed is not read again, any other is hashed. OUTPUT appears complete or not at all; then the parts are removed.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu prune ./Llama --norms norms.safetensors --part 1/2 -o ./out
  swiftprune-wgpu prune ./Llama --norms norms.safetensors --part 2/2 -o ./out
  swiftprune-wgpu merge ./out")]
pub(super) struct Merge {
    /// The output: what --output was when the parts were pruned
    #[arg(value_name = "OUTPUT")]
    pub output: PathBuf,
    /// Directories that hold the parts [default: OUTPUT.parts]
    #[arg(long, value_name = "DIR", num_args = 1..)]
    pub from: Vec<PathBuf>,
    /// The model that was pruned [default: where it was then]
    #[arg(long, value_name = "MODEL")]
    pub model: Option<String>,
    /// The file of norms [default: where it was then]
    #[arg(long, value_name = "FILE")]
    pub norms: Option<PathBuf>,
    /// Replace an existing output and an existing report (never the input)
    #[arg(long)]
    pub force: bool,
    /// Flush the output to disk before moving it into place, also with --keep (without, it always is)
    #[arg(long)]
    pub sync: bool,
    /// Leave the parts where they are
    #[arg(long)]
    pub keep: bool,
    /// Write the report to a .json file
    #[arg(long, value_name = "FILE", value_parser = report_path)]
    pub report: Option<PathBuf>,
    /// Leave the README.md of the output as the original's, and write no report.json beside it
    #[arg(long)]
    pub no_card: bool,
    /// Write the report as JSON to stdout
    #[arg(long)]
    pub json: bool,
    /// Also print the SHA-256 of the output, which is read back and compared with that of the parts
    #[arg(long)]
    pub checksum: bool,
    /// Number of CPU threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Measure column norms (sums of squares of each layer's inputs) and write them to a file.
///
/// The output is a safetensors file with one vector for each linear weight of the decoder blocks. The metadata names
/// the text, the number of tokens and the window. Pass the file to `prune --norms`.
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
    /// Text to measure on [default: the built-in calibration text]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Number of calibration tokens
    #[arg(long, value_name = "N", value_parser = tokens, default_value_t = DEFAULT_TOKENS)]
    pub tokens: usize,
    /// Window length in tokens [default: 512, or the model's maximum if that is less]
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub context: Option<usize>,
    /// Also write a sketch of every layer's input, of this rank, for `prune --compensate` [default rank: 128]
    #[arg(long, value_name = "RANK", num_args = 0..=1, default_missing_value = "128", value_parser = rank)]
    pub sketch: Option<usize>,
    /// Write the means of the inputs, too, which the score stade needs (a file twice as large)
    #[arg(long)]
    pub means: bool,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

/// Make a page of reports that `prune` and `sweep` wrote as JSON.
///
/// The page is one HTML file that loads nothing. Several runs stand side by side.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu report run.json -o run.html
  swiftprune-wgpu report a.json b.json sweep.json -o page.html")]
pub(super) struct Report {
    /// Reports in JSON, of `prune --report FILE.json` or `sweep -o FILE.json`
    #[arg(value_name = "FILE.json", required = true)]
    pub reports: Vec<PathBuf>,
    /// Where to write the page
    #[arg(short, long, value_name = "FILE.html")]
    pub output: PathBuf,
    /// Replace an existing file
    #[arg(long)]
    pub force: bool,
}

/// Check a pruned checkpoint against its original, byte by byte.
///
/// Headers and all tensors that are not pruned must be equal. In the others each weight is +0.0 or keeps its bits, NaN and
/// infinities stay, and each row (or group of N:M) has exactly the zeros that were asked for. The files beside the weights must be
/// those of the original, and no others.
///
/// What was asked for is said by the options or, without any, by the report.json that `prune` left in the output. A report is
/// held against the files: its tensors, which of them are pruned, their zeros, its sums. A warning tells what is taken on its
/// word. Exit code 3 and what is wrong, down to tensor, row and column, if anything is.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu verify ./SmolLM2-135M ./SmolLM2-135M-pruned
  swiftprune-wgpu verify ./SmolLM2-135M ./SmolLM2-135M-pruned --sparsity 0.5
  swiftprune-wgpu verify ./SmolLM2-135M ./SmolLM2-135M-2-4 --pattern 2:4
  swiftprune-wgpu verify ./SmolLM2-135M ./out --report run.json")]
pub(super) struct Verify {
    /// The checkpoint that was pruned
    #[arg(value_name = "ORIGINAL")]
    pub original: String,
    /// What pruning wrote
    #[arg(value_name = "PRUNED")]
    pub pruned: String,
    /// Fraction of each row that must be zero: 0.5 or 50%
    #[arg(long, value_name = "P", value_parser = sparsity, conflicts_with = "pattern")]
    pub sparsity: Option<f64>,
    /// N:M pattern that each row must have: N kept of every M
    #[arg(long, value_name = "N:M", value_parser = pattern)]
    pub pattern: Option<Pattern>,
    /// Tensors that were pruned by --include, whose names match (can be repeated)
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Tensors that were not pruned because of --exclude, whose names match (can be repeated)
    #[arg(long, value_name = "GLOB")]
    pub exclude: Vec<String>,
    /// The run was one with --compensate: kept weights may differ, but must be finite and not zero
    #[arg(long)]
    pub compensated: bool,
    /// Take what was asked for, and of which tensors, from the report of the run (prune --report) [default: PRUNED/report.json,
    /// if nothing else is said]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["sparsity", "pattern", "include", "exclude", "compensated"])]
    pub report: Option<PathBuf>,
    /// Number of threads [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
}

/// Measure the perplexity of one checkpoint, or compare two.
///
/// Perplexity is exp of the mean loss per token, over windows that do not overlap. The first token of each window is
/// not predicted. Compare numbers only for the same text, window and tokenizer.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu eval ./SmolLM2-135M
  swiftprune-wgpu eval ./SmolLM2-135M --against ./SmolLM2-135M-pruned --text my.txt")]
pub(super) struct Eval {
    /// A model directory, or its weights with config.json and tokenizer.json beside them
    #[arg(value_name = "MODEL")]
    pub model: String,
    /// A second checkpoint to compare with, on the same windows
    #[arg(long, value_name = "MODEL")]
    pub against: Option<String>,
    /// Text to measure on [default: the built-in held-out text]
    #[arg(long, value_name = "FILE")]
    pub text: Option<PathBuf>,
    /// Maximum number of tokens [default: all whole windows of the text]
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub tokens: Option<usize>,
    /// Window length in tokens [default: 512, or the model's maximum if that is less]
    #[arg(long, value_name = "N", value_parser = tokens)]
    pub context: Option<usize>,
    #[command(flatten)]
    pub on: DeviceArgs,
    /// Write JSON to stdout
    #[arg(long)]
    pub json: bool,
}

/// Check that a device computes exactly what every device must compute.
///
/// Runs every pass alone and the fused passes, with every dtype, score and selection rule, on difficult shapes, and
/// prunes a small model. The SHA-256 of each result must be the one built into this program. Prints a line for each
/// device, then a summary to paste into a bug report. Exit code 3 means that a device differs.
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
    /// Print the sums of one device in the format of sha256sum, without comparing them
    #[arg(long, conflicts_with = "json")]
    pub sums: bool,
}

/// Measure the speed of a device: a whole run, its own copy and matrix product, every pass, a whole file, a calibration.
///
/// The whole run calibrates, prunes, compensates and evaluates a model of random weights, and is held against the device's
/// own copy and matrix product.
///
/// Prints medians with the interquartile range, and outliers as multiples of the median. Times come from the device's
/// own clock if it has one. A record names the device, driver, back end, processor, operating system and version.
#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  swiftprune-wgpu bench
  swiftprune-wgpu bench --device all --json > mine.json
  swiftprune-wgpu bench --read mine.json --submit-text
  swiftprune-wgpu bench --compare mine.json theirs.json")]
pub(super) struct Bench {
    /// Measure less: a small part of every matrix, one layer, few tokens
    #[arg(long)]
    pub quick: bool,
    /// Number of samples per case
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(2..=1000))]
    pub samples: u16,
    /// Dtype of the weights (can be repeated)
    #[arg(long, value_name = "DTYPE", value_parser = dtype, default_value = "bf16")]
    pub dtype: Vec<Dtype>,
    /// Directory for a temporary checkpoint of 0.6 GB and its copies [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Skip the whole run, whole files and calibration, which need a temporary checkpoint
    #[arg(long, conflicts_with = "dir")]
    pub no_files: bool,
    /// Write the records as JSON to stdout (docs/bench.schema.json)
    #[arg(long, conflicts_with_all = ["markdown", "submit_text"])]
    pub json: bool,
    /// Write tables for a Markdown document to stdout, the devices side by side
    #[arg(long, conflicts_with = "submit_text")]
    pub markdown: bool,
    /// Write a short block to paste into an issue to stdout
    #[arg(long)]
    pub submit_text: bool,
    /// Show records that were written before, instead of measuring
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["compare", "quick", "samples", "dtype", "dir", "no_files", "device", "threads"])]
    pub read: Vec<PathBuf>,
    /// Compare two files of records instead
    #[arg(
        long,
        value_names = ["A", "B"],
        num_args = 2,
        conflicts_with_all = ["quick", "samples", "dtype", "dir", "no_files", "json", "markdown", "submit_text", "device", "threads"]
    )]
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

impl Args {
    /// Refuses flags that would do nothing beside the others.
    pub(super) fn check(&self) -> Result<(), NoEffect> {
        let (name, is_silent, has_no_details) = match &self.command {
            Command::Devices(devices) => {
                let json = devices.json.then(|| "with --json".to_owned());
                return no_effect::check([("--quiet", self.quiet, json)]);
            }
            Command::Prune(prune) => return prune.check(),
            Command::Sweep(sweep) => return sweep.check(),
            Command::Completions(_) => ("completions", true, true),
            Command::Man(_) => ("man", true, true),
            Command::Inspect(_) => ("inspect", false, true),
            Command::Merge(_) => ("merge", false, true),
            Command::Report(_) => ("report", false, true),
            Command::Verify(_) => ("verify", false, true),
            _ => return Ok(()),
        };
        let here = |is_so: bool| is_so.then(|| format!("on `{name}`"));
        no_effect::check([
            ("--quiet", self.quiet, here(is_silent)),
            ("--verbose", self.verbose, here(has_no_details)),
        ])
    }
}

impl Prune {
    /// Refuses flags that would do nothing beside the others, whatever the model.
    fn check(&self) -> Result<(), NoEffect> {
        let exact =
            (self.selection == Some(RuleName::Exact)).then(|| "with --selection exact".into());
        let uniform = (self.allocate == Some(AllocationName::Uniform))
            .then(|| "with --allocate uniform".into());
        no_effect::check(
            [
                ("--block-size", self.block_size.is_some(), exact.clone()),
                ("--gain", self.gain.is_some(), exact),
                ("--spread", self.spread.is_some(), uniform),
            ]
            .into_iter()
            .chain(self.norms_flags().flags()),
        )
    }

    /// What the flags say of column norms.
    pub(super) fn norms_flags(&self) -> NormsFlags<'_> {
        NormsFlags {
            norms: self.norms.as_ref(),
            calibration: self.calibration.as_ref(),
            tokens: self.tokens,
            context: self.context.filter(|_| !self.eval),
            scores: self.score.as_slice(),
            is_used_by_others: self.compensate.is_some() || self.allocation().needs_scores(),
        }
    }

    /// The rule of allocation with its spread.
    pub(super) fn allocation(&self) -> Allocation {
        let rule = self.allocate.unwrap_or(AllocationName::Uniform);
        rule.rule(self.spread)
    }

    /// The moving average's constants; each was checked when it was parsed.
    pub(super) fn ewma(&self) -> Ewma {
        let usual = Ewma::default();
        let block_size = self.block_size.unwrap_or(usual.block_size());
        Ewma::new(block_size, self.gain.unwrap_or(usual.gain_shift())).unwrap_or_default()
    }
}

fn rank(text: &str) -> Result<usize, String> {
    let rank = text.parse().ok().filter(|n| (1..=MAX_RANK).contains(n));
    rank.ok_or_else(|| {
        format!(
            "give a rank from 1 to {MAX_RANK}; for the default rank, write MODEL before this flag"
        )
    })
}

fn block_size(text: &str) -> Result<usize, String> {
    let size = text
        .parse()
        .ok()
        .filter(|&size| Ewma::new(size, 0).is_some());
    size.ok_or_else(|| "give a power of two from 16 to 4096".to_owned())
}

fn gain_shift(text: &str) -> Result<u32, String> {
    let wrong = || "use 1, 1/2, 1/4 ... 1/128".to_owned();
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
        Some(end) if end.eq_ignore_ascii_case("json") || end.eq_ignore_ascii_case("html") => {
            Ok(path)
        }
        _ => Err("the name must end in .html, for a page, or in .json".to_owned()),
    }
}
