//! Values that several commands take.

use std::path::PathBuf;

use clap::{Args as ClapArgs, ValueEnum};
use swiftprune_wgpu::calibration::{Text, TextError};
use swiftprune_wgpu::device::DeviceChoice;
use swiftprune_wgpu::plan::{Allocation, NormsUse, Pattern, Score};
use swiftprune_wgpu::run::NormsRequest;

use super::no_effect::Flag;

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

/// What `prune` and `sweep` are told of column norms.
pub(super) struct NormsFlags<'a> {
    pub norms: Option<&'a PathBuf>,
    pub calibration: Option<&'a TextChoice>,
    pub tokens: Option<usize>,
    /// The window, where nothing but a calibration would take it.
    pub context: Option<usize>,
    /// The scores that are asked for; none is the default, which takes norms.
    pub scores: &'a [String],
    /// Whether something beside the scores takes norms.
    pub is_used_by_others: bool,
}

impl NormsFlags<'_> {
    /// Where the norms come from.
    pub fn request(&self) -> Result<NormsRequest, TextError> {
        Ok(match (self.norms, self.calibration) {
            (Some(path), _) => NormsRequest::Read(path.clone()),
            (None, None) => NormsRequest::Automatic,
            (None, Some(TextChoice::None)) => NormsRequest::WeightsOnly,
            (None, Some(TextChoice::Builtin)) => NormsRequest::Measure(Text::calibration()),
            (None, Some(TextChoice::File(path))) => NormsRequest::Measure(Text::read(path)?),
        })
    }

    /// The flags, each with what leaves it nothing to do.
    pub fn flags(&self) -> [Flag; 4] {
        let by_weights_alone = |name: &String| {
            Score::by_name(name).is_some_and(|score| score.norms == NormsUse::Unused)
        };
        let is_unused = !self.is_used_by_others
            && !self.scores.is_empty()
            && self.scores.iter().all(by_weights_alone);
        let unused = is_unused.then(|| format!("with --score {}", self.scores.join(",")));
        let is_none = self.calibration == Some(&TextChoice::None);
        let none = is_none.then(|| "with --calibration none".to_owned());
        let read = self.norms.map(|_| "with --norms".to_owned());
        let nothing_runs = unused.clone().or(none);
        [
            ("--norms", self.norms.is_some(), unused.clone()),
            // To say that nothing is measured is no contradiction to a score that measures nothing.
            (
                "--calibration",
                self.calibration.is_some() && !is_none,
                unused,
            ),
            ("--tokens", self.tokens.is_some(), nothing_runs.clone()),
            ("--context", self.context.is_some(), nothing_runs.or(read)),
        ]
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
