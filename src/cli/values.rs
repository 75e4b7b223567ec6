//! Values that several commands take.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use swiftprune_wgpu::device::DeviceChoice;
use swiftprune_wgpu::plan::{Allocation, Pattern};

/// Where to compute.
#[derive(Debug, ClapArgs)]
pub struct DeviceArgs {
    /// auto, cpu, gpu, or an adapter's index or part of its name (see `devices`)
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,
    /// Number of CPU threads [default: all cores]
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
pub(super) enum AllocationName {
    /// The same for every block
    Uniform,
    /// Less for a block with many outliers among its scores
    Owl,
    /// More for a block whose scores are high
    Dlp,
    /// More from block to block
    Atp,
}

impl AllocationName {
    /// The rule, with this spread if it has one.
    pub(super) fn rule(self, spread: Option<f64>) -> Allocation {
        let rule = match self {
            Self::Uniform => Allocation::Uniform,
            Self::Owl => Allocation::OWL,
            Self::Dlp => Allocation::DLP,
            Self::Atp => Allocation::ATP,
        };
        match spread {
            Some(spread) => rule.with_spread(spread),
            None => rule,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum RuleName {
    /// Compare each score with a moving average along its row
    Ewma,
    /// Zero the lowest scores of each row
    Exact,
}

pub(super) fn sparsity(text: &str) -> Result<f64, String> {
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
            "a fraction must be between 0 and 1; to give a percentage, write {text}%"
        ))
    } else {
        Err("must be between 0 and 1, or between 0% and 100%".to_owned())
    }
}

pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    let wrong = || {
        format!(
            "use N:M with 1 <= N < M <= {}, for example 2:4 to keep 2 of every 4",
            Pattern::MAX_M
        )
    };
    let (n, m) = text.split_once(':').ok_or_else(wrong)?;
    let (Ok(n), Ok(m)) = (n.parse(), m.parse()) else {
        return Err(wrong());
    };
    Pattern::new(n, m).ok_or_else(wrong)
}

pub(super) fn tokens(text: &str) -> Result<usize, String> {
    let tokens = text.parse().ok().filter(|n| (1..=1 << 24).contains(n));
    tokens.ok_or_else(|| format!("give a number from 1 to {}", 1 << 24))
}

pub(super) fn ridge(text: &str) -> Result<f64, String> {
    let ridge = text.parse().ok().filter(|x| (1e-6..=1e3).contains(x));
    ridge.ok_or_else(|| "give a number from 0.000001 to 1000".to_owned())
}
